"""The query resampler: learned queries that attend to features, any number of leading ones at use."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from nestling.arguments.constraints import OneOf, Real, Whole, check, checked
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.tokens.compressor import Compressor
from nestling.nn.tokens.grid_pool import read_shape
from nestling.nn.tokens.resampler.query_attention import QueryAttention, QueryBlock
from nestling.nn.tokens.resampler.query_layout import (
    Grid,
    Order,
    finest,
    overlaps,
    place_entries,
    places_of,
    regions_of,
    resized,
    sincos,
)
from nestling.nn.tokens.resampler.static_resampler import StaticResampler
from nestling.nn.tokens.tokens import AnyTokens, Count, Tokens, as_tokens, check_grid, check_not_empty

Keys = Literal["content+pos", "content", "pos"]
Positions = Literal["sincos", "learned", "none"]
Queries = Literal["free", "pooled"]
Start = Literal["random", "grid"]
_SHARPNESSES = [0.0, *(2.0**power for power in range(-2, 11))]


class QueryResampler(Compressor):
    """Learned queries attend to features of a picture or a sequence; the first ``m`` give ``m`` tokens.

    Token i depends on query i, and with several layers on the queries before it. So the tokens at ``m`` are
    the first ``m`` of the tokens at any larger size (the prefix property).

    Args:
        max_tokens: number of queries.
        width: entries of a feature and of an output token.
        grid: rows and columns of the features of a picture, or the length of a sequence. Features of another
            grid may be given at use; they say which (``Tokens.grid``).
        tokens: sizes on ``axis``; every number up to ``max_tokens`` by default.
        heads: of the attention.
        keys: what scores are computed from: ``"content+pos"``, features and their places; ``"content"``; or
            ``"pos"``, places alone, as the code of MQT was released. Then the weights of the attention are
            the same for all inputs, and :meth:`freeze_attention` computes them once.
        positions: codes of places: ``"sincos"``, ``"learned"`` (a table on the grid of the queries,
            interpolated for other grids), or ``"none"``.
        order: places of the queries; see :func:`~nestling.nn.tokens.resampler.query_layout.regions_of`. With
            ``"pyramid"`` 1, 5, 21, ... tokens of a picture are coarse to fine.
        queries: ``"free"`` vectors; or ``"pooled"``, each also made of the mean of the features of its
            region, to which its token is added.
        own_region: let a query attend only to the features of its region.
        depth: layers; those after the first have attention to the queries before, and feed-forward parts.
        start: ``"random"``; or ``"grid"``, each query attends to its region at the start.
        focus: with ``start="grid"``, the least share of its attention that a query has in its region.
        axis: name of the axis.

    Raises:
        ConfigError: for a width or a number of queries that does not fit, or options that exclude each other.
        GranularityError: for sizes beyond ``max_tokens``.

    Source: MQT, arXiv 2405.19315; region-to-point attention as in TokenPacker, arXiv 2407.02392.

    >>> resampler = QueryResampler(16, 8, grid=(4, 4), heads=2)
    >>> resampler(torch.zeros(2, 16, 8), at=3).values.shape
    torch.Size([2, 3, 8])
    """

    kind = "query_resampler"

    @checked(
        max_tokens=Whole(1),
        width=Whole(1),
        heads=Whole(1),
        keys=OneOf(get_args(Keys)),
        positions=OneOf(get_args(Positions)),
        order=OneOf(get_args(Order)),
        queries=OneOf(get_args(Queries)),
        depth=Whole(1),
        start=OneOf(get_args(Start)),
        focus=Real(above=0, below=1),
    )
    def __init__(
        self,
        max_tokens: int,
        width: int,
        grid: Sequence[int] | int,
        *,
        tokens: Nesting | str | Sequence[int] | None = None,
        heads: int = 16,
        keys: Keys = "content+pos",
        positions: Positions = "sincos",
        order: Order = "raster",
        queries: Queries = "free",
        own_region: bool = False,
        depth: int = 1,
        start: Start = "random",
        focus: float = 0.8,
        axis: str = "tokens",
    ) -> None:
        super().__init__()
        self.grid: Grid = check("grid", grid, Whole(1)) if isinstance(grid, int) else read_shape(grid, "grid")
        self.max_tokens, self.width, self.heads, self.axis = max_tokens, width, heads, axis
        self.keys, self.positions, self.order = keys, positions, order
        self.pools, self.own_region, self.depth = queries == "pooled", own_region, depth
        self.inputs = self.grid if isinstance(self.grid, int) else self.grid[0] * self.grid[1]
        self.axes = 1 if isinstance(self.grid, int) else 2
        self._check(start)
        self.nesting = _sizes(tokens, max_tokens, axis)
        count = self.nesting.full[axis]
        self.queries = nn.Parameter(nn.init.trunc_normal_(torch.empty(count, width), std=0.02))
        self.sharpness = nn.Parameter(torch.ones(count))
        self.norm_q, self.norm_k, self.norm_v = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.attention = QueryAttention(width, heads)
        self.blocks = nn.ModuleList(QueryBlock(width, heads) for _ in range(depth - 1))
        learned = nn.init.trunc_normal_(torch.empty(max_tokens, width), std=0.02)
        self.table = nn.Parameter(learned) if positions == "learned" else None
        self._constants: dict[tuple[object, ...], Tensor] = {}
        if start == "grid" and self.queries.device.type != "meta":
            _start_on_grid(self, focus)

    def read(self, tokens: AnyTokens) -> Tokens:
        """The input, checked; without a grid of its own it has that of the resampler.

        Raises:
            DataError: also if an item is padding alone.
        """
        found = as_tokens(tokens, self.width)
        if found.grid is None and not isinstance(self.grid, int):
            check_grid(found.values.shape[1], self.grid)
            found = found._replace(grid=self.grid)
        check_not_empty(found)
        return found

    def each(self, tokens: Tokens, wanted: Sequence[Granularity]) -> dict[Granularity, Tokens]:
        """The tokens at each granularity: those of the largest, of which the others are prefixes."""
        most = max(g[self.axis] for g in wanted)
        values = self._resampled(tokens, most)
        return {g: Tokens(values[:, : g[self.axis]]) for g in wanted}

    def lengths(self, n: Count, at: At = None) -> Count:
        """The number of tokens at ``at``, whatever ``n``."""
        size = self.nesting.resolve(at)[self.axis]
        return torch.full_like(n, size) if isinstance(n, Tensor) else size

    def freeze_attention(self, grid: Sequence[int] | int | None = None) -> StaticResampler:
        """The same resampler for one grid, with the weights of its attention computed once.

        Args:
            grid: of the features; that of the resampler by default.

        Raises:
            ConfigError: if the weights depend on the input.
        """
        for wrong, why in (
            (self.keys != "pos", f"keys={self.keys!r} depend on the features; only keys='pos' do not"),
            (self.pools, "queries='pooled' depend on the features; only queries='free' do not"),
            (
                self.depth > 1,
                f"depth={self.depth}: later layers depend on the features; only depth=1 does not",
            ),
        ):
            if wrong:
                raise ConfigError(f"the attention cannot be frozen: {why}")
        wanted: Grid = (
            self.grid if grid is None else grid if isinstance(grid, int) else read_shape(grid, "grid")
        )
        with torch.no_grad():
            return StaticResampler.of(self.attention, self.place_weights(wanted), self.norm_v, self.nesting)

    def flops(self, at: At = None) -> float:
        """Multiply-adds for one item of the grid of the resampler."""
        m, n, width = self.nesting.resolve(at)[self.axis], self.inputs, self.width
        cross = 2 * (m + n) * width**2 + 2 * m * n * width
        own = 12 * m * width**2 + 2 * m * m * width
        return self.depth * cross + (self.depth - 1) * own + self.pools * m * n * width

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        return {
            "max_tokens": self.max_tokens,
            "width": self.width,
            "grid": self.grid if isinstance(self.grid, int) else list(self.grid),
            "tokens": str(self.nesting.up_to(self.nesting.resolve(at))),
            "heads": self.heads,
            "keys": self.keys,
            "positions": self.positions,
            "order": self.order,
            "queries": "pooled" if self.pools else "free",
            "own_region": self.own_region,
            "depth": self.depth,
            "axis": self.axis,
        }

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """The weights, of the queries only those up to ``at``."""
        size = self.nesting.resolve(at)[self.axis]
        return {
            name: weight[:size] if name in ("queries", "sharpness") else weight
            for name, weight in self.state_dict().items()
        }

    def _check(self, start: Start) -> None:
        axes = self.axes
        if self.positions == "sincos" and self.width % (2 * axes):
            raise ConfigError(
                f"width={self.width} must be a multiple of {2 * axes} for the sines and cosines of {axes} "
                f"ax{'i' if axes == 1 else 'e'}s; use positions='learned' or another width"
            )
        if self.positions == "learned" and self.order == "pyramid":
            raise ConfigError("positions='learned' is a table on one grid; use 'sincos' with order='pyramid'")
        if self.positions == "none" and self.keys == "pos":
            raise ConfigError("keys='pos' needs positions; use positions='sincos'")
        if start == "grid" and (self.positions != "sincos" or self.keys == "content"):
            raise ConfigError(
                "start='grid' needs keys with places; use keys='content+pos', positions='sincos'"
            )
        if start == "grid" and self.width // self.heads < 2 * axes:
            raise ConfigError(
                f"start='grid' needs at least {2 * axes} entries a head, and width={self.width} with "
                f"heads={self.heads} has {self.width // self.heads}; use fewer heads"
            )
        regions_of(self.max_tokens, self.order, axes)

    @cached_property
    def _cells(self) -> float:
        """The number of the smallest regions that fill a picture or a sequence."""
        return finest(regions_of(self.max_tokens, self.order, self.axes)) ** self.axes

    def _constant(self, name: str, grid: Grid, like: Tensor) -> Tensor:
        """Codes or regions of a grid, computed once for each device and dtype."""
        key = (name, grid, like.device, like.dtype)
        if key not in self._constants:
            regions = regions_of(self.max_tokens, self.order, self.axes)
            if name == "overlaps":
                made = overlaps(regions, grid)
            else:
                places = regions.mean(dim=2) if name == "queries" else places_of(grid)
                made = sincos(places * finest(regions), self.width)
            self._constants[key] = made.to(like.device, like.dtype)
        return self._constants[key]

    def _codes(self, name: Literal["queries", "keys"], grid: Grid, like: Tensor) -> Tensor:
        """Codes of the places of queries or features, ``Float[queries or n, width]``."""
        if self.positions == "none":
            return like.new_zeros(())
        if self.table is not None:
            return self.table if name == "queries" else resized(self.table, grid)
        return self._constant(name, grid, like)

    def _resampled(self, tokens: Tokens, m: int) -> Tensor:
        """The first ``m`` tokens ``Float[batch, m, width]``."""
        features, mask, shape = tokens
        n = features.shape[1]
        grid: Grid = n if shape is None else shape
        if isinstance(grid, int) != isinstance(self.grid, int):
            raise DataError(
                "the resampler is for sequences, and these features lie on a grid; give grid=None"
            )
        # A pyramid over all features has more queries than there are features, and means to.
        if min(m, self._cells) > n:
            warnings.warn(f"{m} queries resample {n} features: more tokens than before", stacklevel=5)
        if mask is not None:
            features = torch.where(mask[..., None], features, 0)  # a weight of zero times NaN is NaN
        values = self.norm_v(features)
        allowed = self._allowed(grid, mask, m, features)
        pooled = self._pooled(values, grid, mask, m) if self.pools else None
        keys, queries = self._key_inputs(grid, features), self._query_inputs(grid, m, pooled)
        x: Tensor = self.attention(queries, keys, values, allowed=allowed, sharpness=self.sharpness[:m])
        x = x if pooled is None else x + pooled
        for block in self.blocks:
            x = block(x, keys, values, allowed=allowed)
        return x

    def _query_inputs(self, grid: Grid, m: int, pooled: Tensor | None) -> Tensor:
        """``Float[1 or batch, m, width]``."""
        codes = self._codes("queries", grid, self.queries)
        x = self.queries[:m] + (codes[:m] if codes.ndim else codes)
        found: Tensor = self.norm_q(x[None] if pooled is None else x + pooled)
        return found

    def _key_inputs(self, grid: Grid, features: Tensor) -> Tensor:
        """``Float[1 or batch, n, width]``."""
        codes = None if self.keys == "content" else self._codes("keys", grid, features)
        if codes is not None and self.keys == "pos":
            return self._normed_keys(codes)[None]
        content = self._normed_keys(features)
        return content if codes is None else content + codes

    def _normed_keys(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm_k(x)
        return found

    def _allowed(self, grid: Grid, mask: Tensor | None, m: int, like: Tensor) -> Tensor | None:
        """The features that each query may see; a query whose region is padding sees all that is none."""
        if not self.own_region:
            return None if mask is None else mask[:, None]
        near = self._constant("overlaps", grid, like)[None, :m] > 0
        if mask is None:
            return near
        seen = near & mask[:, None]
        return torch.where(seen.any(dim=2, keepdim=True), seen, mask[:, None])

    def _pooled(self, values: Tensor, grid: Grid, mask: Tensor | None, m: int) -> Tensor:
        """The mean of the features of the region of each query, ``Float[batch, m, width]``."""
        shares = self._constant("overlaps", grid, values)[:m]
        if mask is None:
            return shares @ values
        real = shares * mask[:, None]
        found: Tensor = (real / real.sum(dim=2, keepdim=True).clamp(min=1e-6)) @ values
        return found

    def place_weights(self, grid: Grid) -> Tensor:
        """The weights ``Float[heads, queries, n]`` that places alone give the attention."""
        queries = self._query_inputs(grid, len(self.queries), None)
        codes = self._codes("keys", grid, self.queries)
        keys = (self._normed_keys(codes) if self.keys == "pos" else codes)[None]
        q, k = self.attention.projected(queries, 0), self.attention.projected(keys, 1)
        scores = (q * self.sharpness[:, None]) @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        found: Tensor = scores.softmax(dim=3)[0]
        return found


def _sizes(tokens: Nesting | str | Sequence[int] | None, most: int, axis: str) -> Nesting:
    if tokens is None:
        tokens = range(1, most + 1)
    nesting = Nesting.parse(tokens) if isinstance(tokens, str) else tokens
    if not isinstance(nesting, Nesting):
        nesting = Nesting.chain(**{axis: nesting})
    return nesting.within("a query resampler", needs=(axis,), **{axis: most})


@torch.no_grad()
def _start_on_grid(resampler: QueryResampler, focus: float) -> None:
    """Let each query attend to its region, with scores that are sharp enough for that.

    The content enters keys with weights of zero, which are learned, so that places decide at first.
    """
    regions = regions_of(resampler.max_tokens, resampler.order, resampler.axes)
    near = overlaps(regions, resampler.grid)[: len(resampler.queries)] > 0
    rows, entries, zero = place_entries(resampler.width, resampler.heads, regions)
    queries, keys, _ = resampler.attention.in_proj_weight.chunk(3)
    queries.zero_()
    keys[rows] = 0
    queries[rows, entries] = keys[rows, entries] = 1
    # Norms take the mean of a code away; the entry that is zero everywhere says what it was.
    queries[rows, zero] = -1
    if resampler.keys == "pos":
        keys[rows, zero] = -1
    else:
        resampler.norm_k.weight.zero_()
    resampler.queries.zero_()
    chosen = torch.full_like(resampler.sharpness, _SHARPNESSES[-1])
    for sharpness in reversed(_SHARPNESSES):
        resampler.sharpness.fill_(sharpness)
        inside = (resampler.place_weights(resampler.grid) * near).sum(dim=2).mean(dim=0)
        chosen = torch.where(inside >= focus, sharpness, chosen)
    resampler.sharpness.copy_(chosen)
