"""Pictures of high resolution: a view of the whole and tiles of it, compressed alike and put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from nestling.elastic import resolve_each
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Granularity
from nestling.nn.part import part_from
from nestling.nn.tokens.compressor import Compressor
from nestling.nn.tokens.grid_pool import Shape, read_shape
from nestling.nn.tokens.tokens import AnyTokens, Count, Tokens, as_tokens


class TiledViews(Compressor):
    """A compressor used on each view of a picture: first the whole picture, then its tiles in raster order.

    The input holds one view after the other, ``Float[batch, (1 + rows * columns) * n, width]``. The output
    holds the tokens of the whole picture, then those of the tiles as one large grid, and a learned vector
    after each of its rows. A grid is known of pooling; tokens of a resampler follow one another tile by tile.

    Masked tokens are the area that was padded when the picture was resized. A window of padding alone is
    padding, and so is the vector after a row of padding, so nothing has to be cropped.

    Args:
        inner: for one view.
        tiles: rows and columns of tiles; another number of tiles may be given at use.
        newline: put a learned vector after each row of the grid of tiles.

    Raises:
        ConfigError: if ``newline`` is asked of tokens without a grid, or of different widths.

    Source: LLaVA-NeXT (AnyRes); M3, arXiv 2405.17430, pools each view to the same number of tokens.

    >>> from nestling.nn.tokens import GridPool
    >>> views = TiledViews(GridPool((4, 4), [1, 4, 16], width=8), tiles=(2, 2))
    >>> views(torch.zeros(1, 5 * 16, 8), at=4).values.shape  # 5 * 4 tokens, 4 rows of tiles
    torch.Size([1, 24, 8])
    """

    kind = "tiled_views"

    def __init__(self, inner: Compressor, tiles: Sequence[int] = (2, 2), *, newline: bool = True) -> None:
        super().__init__()
        self.inner, self.tiles = inner, read_shape(tiles, "tiles")
        self.nesting, self.width = inner.nesting, inner.width
        self.inputs = self.views() * inner.inputs
        widths = {inner.out_width(g) for g in inner.nesting}
        if newline and (len(widths) > 1 or any(inner.shape(g) is None for g in inner.nesting)):
            raise ConfigError(
                "newline=True puts a vector of one width after each row of a grid, and the tokens of this "
                f"{type(inner).__name__} have no grid or several widths; use newline=False"
            )
        width = inner.out_width()
        self.newline = nn.Parameter(torch.randn(width) * width**-0.5) if newline else None

    def forward(self, tokens: AnyTokens, /, at: At = None, *, tiles: Shape | None = None) -> Tokens:
        """The tokens at one granularity; ``tiles`` are rows and columns of this picture."""
        granularity = self.nesting.resolve(at)
        return self.forward_each(tokens, (granularity,), tiles=tiles)[granularity]

    def forward_each(
        self, tokens: AnyTokens, /, granularities: Iterable[At] | None = None, *, tiles: Shape | None = None
    ) -> dict[Granularity, Tokens]:
        """The tokens at several granularities; shared work is done once."""
        wanted, tiles = resolve_each(self.nesting, granularities), tiles or self.tiles
        split = self._split(as_tokens(tokens, self.width), tiles)
        found = self.inner.forward_each(split, wanted)
        return {g: self._joined(view, tiles) for g, view in found.items()}

    def each(self, tokens: Tokens, wanted: Sequence[Granularity]) -> dict[Granularity, Tokens]:
        """The tokens at each granularity."""
        return self.forward_each(tokens, wanted)

    def views(self, tiles: Shape | None = None) -> int:
        """The number of views: the whole picture and its tiles."""
        rows, columns = tiles or self.tiles
        return 1 + rows * columns

    def lengths(self, n: Count, at: At = None, *, tiles: Shape | None = None) -> Count:
        """The exact number of tokens of a picture without padding, those after rows included.

        Args:
            n: input tokens, of all views; they do not change the answer.
            at: the granularity.
            tiles: rows and columns of tiles.
        """
        g = self.nesting.resolve(at)
        size = self.views(tiles) * self.inner.lengths(self.inner.inputs, g)
        if self.newline is not None:
            size += (tiles or self.tiles)[0] * (self.inner.shape(g) or (0, 0))[0]
        return torch.full_like(n, size) if isinstance(n, Tensor) else size

    def out_width(self, at: At = None) -> int:
        """Entries of an output token."""
        return self.inner.out_width(at)

    def flops(self, at: At = None) -> float:
        """Multiply-adds for one picture."""
        return self.views() * self.inner.flops(at)

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        inner = {"kind": self.inner.kind, **self.inner.arguments(self.nesting.resolve(at))}
        return {"inner": inner, "tiles": list(self.tiles), "newline": self.newline is not None}

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> Self:
        """See :class:`Part`."""
        inner: Any = part_from(arguments["inner"])
        with torch.device("meta"):
            return cls(inner, arguments["tiles"], newline=arguments["newline"])

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """See :class:`Part`."""
        own = {} if self.newline is None else {"newline": self.newline}
        return {f"inner.{name}": weight for name, weight in self.inner.weights(at).items()} | own

    def _split(self, tokens: Tokens, tiles: Shape) -> Tokens:
        """The views as items of one batch."""
        values, mask, _ = tokens
        batch, n, width = values.shape
        views = self.views(tiles)
        if n != views * self.inner.inputs:
            raise DataError(
                f"{n} tokens are not {views} views (the picture and {tiles[0]} x {tiles[1]} tiles) of "
                f"{self.inner.inputs} tokens; give all views, or tiles= of this picture"
            )
        of_views = None if mask is None else mask.reshape(batch * views, -1)
        return Tokens(values.reshape(batch * views, -1, width), of_views)

    def _joined(self, view: Tokens, tiles: Shape) -> Tokens:
        """The tokens of all views of a picture in one sequence."""
        views, (count, width) = self.views(tiles), view.values.shape[1:]
        values = view.values.reshape(-1, views, count, width)
        mask = None if view.mask is None else view.mask.reshape(-1, views, count, 1)
        if view.grid is None:
            return Tokens(values.flatten(1, 2), None if mask is None else mask.flatten(1))
        rows = _stitched(values[:, 1:], tiles, view.grid)
        real = None if mask is None else _stitched(mask[:, 1:], tiles, view.grid)
        if self.newline is not None:
            rows = torch.cat([rows, self.newline.to(rows).expand(*rows.shape[:2], 1, width)], dim=2)
            real = None if real is None else torch.cat([real, real.any(dim=2, keepdim=True)], dim=2)
        joined = torch.cat([values[:, 0], rows.flatten(1, 2)], dim=1)
        if mask is None or real is None:
            return Tokens(joined)
        return Tokens(joined, torch.cat([mask[:, 0], real.flatten(1, 2)], dim=1)[..., 0])


def _stitched(values: Tensor, tiles: Shape, grid: Shape) -> Tensor:
    """Tiles ``[batch, tiles, tokens, width]`` as one grid ``[batch, rows, columns, width]``."""
    batch, width = len(values), values.shape[-1]
    split = values.reshape(batch, *tiles, *grid, width).transpose(2, 3)
    return split.reshape(batch, tiles[0] * grid[0], tiles[1] * grid[1], width)
