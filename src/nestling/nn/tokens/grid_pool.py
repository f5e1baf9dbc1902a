"""Pooling of a grid of tokens in equal windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import gcd, isqrt
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from nestling.arguments.constraints import OneOf, Whole, checked
from nestling.arguments.formatting import shown
from nestling.errors import DataError, GranularityError
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.tokens.compressor import Compressor
from nestling.nn.tokens.tokens import (
    AnyTokens,
    Count,
    Tokens,
    accumulating,
    as_tokens,
    check_grid,
)

GridMode = Literal["mean", "spatial", "sequential"]
Shape: TypeAlias = tuple[int, int]
"""Rows and columns."""


class GridPool(Compressor):
    """Fewer tokens of a picture: a mean of each window of its grid, or a selection of its tokens.

    It has no weights. Windows are equal and do not overlap, so pooling from 24 x 24 to 12 x 12 to 6 x 6
    equals pooling from 24 x 24 to 6 x 6. Padding enters no mean, and a window of padding alone is padding.

    Args:
        grid: rows and columns of the input.
        tokens: sizes on ``axis``: numbers of tokens, each a square that the sides of a square grid allow, or
            (rows, columns) of each; a nesting, or its text.
        width: entries of a token.
        mode: ``"mean"`` of each window; ``"spatial"``, the first token of each window; ``"sequential"``, the
            first tokens in raster order.
        axis: name of the axis.

    Raises:
        GranularityError: for sizes that the grid does not allow, that repeat or do not increase.

    Source: M3, arXiv 2405.17430, section 3; the two selections are its baselines.

    >>> pool = GridPool((4, 4), [1, 4, 16], width=8)
    >>> pool(torch.zeros(2, 16, 8), at=4).values.shape
    torch.Size([2, 4, 8])
    """

    kind = "grid_pool"

    @checked(width=Whole(1), mode=OneOf(get_args(GridMode)))
    def __init__(
        self,
        grid: Sequence[int],
        tokens: Nesting | str | Sequence[int | Sequence[int]],
        width: int,
        *,
        mode: GridMode = "mean",
        axis: str = "tokens",
    ) -> None:
        super().__init__()
        self.grid, self.width, self.mode, self.axis = read_shape(grid, "grid"), width, mode, axis
        self.inputs = self.grid[0] * self.grid[1]
        shapes = [self._read_size(size) for size in _listed(tokens, axis)]
        self.nesting = Nesting.chain(**{axis: [size for size, _ in shapes]})
        self._shapes = dict(shapes)

    def shape(self, at: At = None) -> Shape | None:
        """Rows and columns at a granularity; None for tokens that fill no grid."""
        return self._shapes[self.nesting.resolve(at)[self.axis]]

    def read(self, tokens: AnyTokens) -> Tokens:
        """The input, checked; without a grid of its own it has that of the pool."""
        found = as_tokens(tokens, self.width)
        check_grid(found.values.shape[1], self.grid)
        if found.grid is not None and found.grid != self.grid:
            raise DataError(
                f"the tokens are of a grid of {found.grid[0]} x {found.grid[1]}, and the pool is for "
                f"{self.grid[0]} x {self.grid[1]}; make a GridPool for that grid"
            )
        return found._replace(grid=self.grid)

    def each(self, tokens: Tokens, wanted: Sequence[Granularity]) -> dict[Granularity, Tokens]:
        """The tokens at each granularity."""
        return {g: self._pooled(tokens, g[self.axis], self._shapes[g[self.axis]]) for g in wanted}

    def lengths(self, n: Count, at: At = None) -> Count:
        """The number of tokens at ``at``, whatever ``n``: the grid is always full."""
        size = self.nesting.resolve(at)[self.axis]
        return torch.full_like(n, size) if isinstance(n, Tensor) else size

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        sizes = self.nesting.up_to(self.nesting.resolve(at)).sizes(self.axis)
        kept = [size if self._shapes[size] is None else list(self._shapes[size] or ()) for size in sizes]
        return {
            "grid": list(self.grid),
            "tokens": kept,
            "width": self.width,
            "mode": self.mode,
            "axis": self.axis,
        }

    def _pooled(self, tokens: Tokens, size: int, shape: Shape | None) -> Tokens:
        if size == self.inputs:
            return tokens
        values, mask, _ = tokens
        if shape is None:
            return Tokens(values[:, :size], None if mask is None else mask[:, :size])
        rows, columns = shape
        windows = (rows, self.grid[0] // rows, columns, self.grid[1] // columns)
        split = values.reshape(len(values), *windows, self.width)
        real = None if mask is None else mask.reshape(len(mask), *windows)
        if self.mode == "spatial":
            chosen = None if real is None else real[:, :, 0, :, 0].flatten(1)
            return Tokens(split[:, :, 0, :, 0].flatten(1, 2), chosen, shape)
        if real is None:
            means = split.mean(dim=(2, 4), dtype=accumulating(values))
            return Tokens(means.to(values.dtype).flatten(1, 2), None, shape)
        counts = real.sum(dim=(2, 4))
        sums = torch.where(real[..., None], split, 0).sum(dim=(2, 4), dtype=accumulating(values))
        means = (sums / counts.clamp(min=1)[..., None]).to(values.dtype)
        return Tokens(means.flatten(1, 2), (counts > 0).flatten(1), shape)

    def _read_size(self, size: int | Sequence[int]) -> tuple[int, Shape | None]:
        """A size as a number of tokens, with its shape if it has one."""
        if isinstance(size, Sequence):
            shape = read_shape(size, "a size")
        elif self.mode == "sequential":
            count = Granularity(**{self.axis: size})[self.axis]
            if count > self.inputs:
                raise GranularityError(f"{self.axis}={count} is more than the {self.inputs} of the grid")
            return count, self.grid if count == self.inputs else None
        else:
            shape = self._square(Granularity(**{self.axis: size})[self.axis])
        rows, columns = shape
        if self.grid[0] % rows or self.grid[1] % columns:
            raise GranularityError(
                f"a size of {rows} x {columns} does not divide the grid of {self.grid[0]} x {self.grid[1]} "
                f"in equal windows; {self._allowed()}"
            )
        whole = self.mode != "sequential" or shape == self.grid
        return rows * columns, shape if whole else None

    def _square(self, count: int) -> Shape:
        rows, columns = self.grid
        if count == self.inputs:
            return self.grid
        side = isqrt(count)
        if rows != columns:
            raise GranularityError(
                f"{self.axis}={count} does not say how many rows and columns are meant on a grid of {rows} x "
                f"{columns}; write each size as (rows, columns); {self._allowed()}"
            )
        if side * side != count or rows % side:
            raise GranularityError(
                f"{self.axis}={count} cannot be had from a grid of {rows} x {columns} in equal square "
                f"windows; {self._allowed()}"
            )
        return side, side

    def _allowed(self) -> str:
        """The sizes with square windows, in words."""
        rows, columns = self.grid
        common = gcd(rows, columns)
        shapes = [(rows // k, columns // k) for k in range(common, 0, -1) if common % k == 0]
        said = [str(r * c) if rows == columns else f"({r}, {c})" for r, c in shapes]
        return f"square windows give {', '.join(said)}"


def _listed(tokens: Nesting | str | Sequence[int | Sequence[int]], axis: str) -> list[Any]:
    """The sizes that the argument names."""
    if isinstance(tokens, str):
        tokens = Nesting.parse(tokens)
    if isinstance(tokens, Nesting):
        return list(tokens.within("a grid pool", needs=(axis,), **{axis: None}).sizes(axis))
    if not isinstance(tokens, Iterable):
        raise GranularityError(f"tokens must be a list of sizes, such as [1, 4], not {shown(tokens)}")
    return list(tokens)


def read_shape(given: Sequence[int], what: str) -> Shape:
    """Rows and columns.

    Raises:
        GranularityError: for anything but two whole numbers of at least 1.
    """
    if (
        not isinstance(given, Sequence)
        or len(given) != 2
        or not all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in given)
    ):
        raise GranularityError(
            f"{what} is (rows, columns), two whole numbers of at least 1, not {shown(given)}"
        )
    return given[0], given[1]
