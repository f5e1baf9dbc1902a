"""Sums over channels for every pair of stimuli, computed as matrix products in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.compare.rdms.pairs import first_pairs
from nestling.errors import DataError
from nestling.process.blocks import blocks
from nestling.process.progress import watched

Floats: TypeAlias = NDArray[np.float64]
Result: TypeAlias = NDArray[np.floating[Any]]
Sides: TypeAlias = tuple[Floats, Floats]
"""``Float[n, q]`` twice, left and right, whose products left_i . right_j are the same from j to i."""

_FEWEST_ROWS = 128
_STRIP_ENTRIES = 1 << 20
_DIFFERENCES_AT_A_TIME = 1 << 20

# A float32 product has a relative error of about 3e-8 per channel; it accumulates, as a random walk, to 3e-7
# of the lengths over this many channels. Sums over more channels are added block by block.
_CHANNELS_IN_SINGLE = 512

# Where less than this share of the lengths is left of them, pairs are computed from their differences.
_NEAR = {np.dtype(np.float32): 0.05, np.dtype(np.float64): 1e-8}
# Of a strip; with more such pairs, products in double are cheaper.
_MANY = 0.01


def write_pairs(chunks: Iterable[Sides], scale: float, out: Result, block: int | None) -> None:
    """Write ``scale * (left_i - left_j) . (right_i - right_j)`` for every pair into ``out``.

    All estimators have this form. It is computed as a product of matrices, a strip of rows at a time, of
    which only the half that is needed: in the precision of ``out``, but for pairs of nearly equal rows,
    whose lengths would cancel. Those are computed from their differences in float64, so that equal rows
    are at 0.

    Args:
        chunks: the sides for some channels at a time; their sums are added. They are changed.
        scale: a factor.
        out: ``Float[n(n-1)/2]``, float32 or float64.
        block: rows of a strip; by default as many as make a million numbers.

    Raises:
        DataError: if squares overflow.
    """
    is_first = True
    for left, right in chunks:
        _centre(left, right)
        starts = first_pairs(len(left))
        step = _CHANNELS_IN_SINGLE if out.dtype == np.float32 else left.shape[1]
        for channels in blocks(left.shape[1], step):
            one = left[:, channels]
            other = one if right is left else right[:, channels]
            for row, strip in _Strips(one, other, scale, out.dtype).each(block):
                for i, values in enumerate(strip):
                    part = out[starts[row + i] : starts[row + i] + len(values) - i - 1]
                    if is_first:
                        part[:] = values[i + 1 :]
                    else:
                        part += values[i + 1 :]
            is_first = False


def _centre(left: Floats, right: Floats) -> None:
    """Move the origin to the mean, which no difference sees: the closer it is, the less cancels.

    Where both sides are one, it is rounded to a power of two below the spread. Whole numbers
    stay whole, and distances that are equal remain equal to the last bit, as those of counts often are.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # values that overflow are refused with their squares
        mean = left.mean(axis=0)
        if right is not left:
            left -= mean
            right -= right.mean(axis=0)
            return
        spread = left.max(axis=0) - left.min(axis=0)
        unit = np.exp2(np.floor(np.log2(spread, where=spread > 0, out=np.zeros_like(spread))))
        left -= np.where(spread > 0, np.round(mean / unit) * unit, left[0])


class _Strips:
    """The values of some rows against all that follow."""

    def __init__(self, left: Floats, right: Floats, scale: float, kind: np.dtype[Any]) -> None:
        self.exact, self.scale, self.kind = (left, right), scale, kind
        with np.errstate(over="ignore", invalid="ignore"):
            self.own = np.einsum("ij,ij->i", left, right) * scale
        if not np.isfinite(self.own).all():
            raise DataError(
                "the patterns are so large that their squares overflow; divide them by a constant"
            )
        self.rounded: tuple[Result, Result] = self.exact
        if kind != np.float64:
            narrow = left.astype(kind)
            self.rounded = narrow, narrow if right is left else right.astype(kind)

    def each(self, block: int | None) -> Iterator[tuple[int, Result]]:
        """The first row of each strip, and ``Float[rows, n - first]``; its lower half means nothing."""
        n = len(self.own)
        size = min(n, block or max(_FEWEST_ROWS, _STRIP_ENTRIES // n))
        scratch = np.empty(size * n, self.kind)
        for start in watched(range(0, n - 1, size), "comparing", "strips"):
            rows = slice(start, min(start + size, n))
            shape = rows.stop - start, n - start
            strip = self._products(self.rounded, rows, scratch[: shape[0] * shape[1]].reshape(shape))
            near = self._near(strip, rows)
            if self.kind != np.float64 and len(near[0]) > _MANY * strip.size:
                strip = self._products(self.exact, rows, np.empty(shape))
                near = self._near(strip, rows)
            strip[near] = self._from_differences(near, start)
            yield start, strip

    def _products(self, sides: tuple[Result, Result], rows: slice, out: Result) -> Result:
        left, right = sides
        np.matmul(left[rows] * (-2 * self.scale), right[rows.start :].T, out=out)
        own = self.own.astype(out.dtype)
        out += own[rows.start :]
        out += own[rows, None]
        out[:, : len(out)][np.tri(len(out), dtype=np.bool_)] = np.inf
        return out

    def _near(self, strip: Result, rows: slice) -> tuple[NDArray[np.intp], ...]:
        """The pairs of nearly equal rows."""
        lengths, share = np.abs(self.own[rows.start :]).astype(strip.dtype), _NEAR[strip.dtype]
        if strip.min() >= 2 * share * lengths.max():
            return np.zeros(0, np.intp), np.zeros(0, np.intp)
        return np.nonzero(np.abs(strip) < share * (lengths[: len(strip), None] + lengths))

    def _from_differences(self, pairs: tuple[NDArray[np.intp], ...], first: int) -> Floats:
        left, right = self.exact
        values = np.empty(len(pairs[0]))
        step = max(1, _DIFFERENCES_AT_A_TIME // left.shape[1])
        for part in blocks(len(values), step):
            i, j = (side[part] + first for side in pairs)
            one = left[i] - left[j]
            other = one if right is left else right[i] - right[j]
            values[part] = self.scale * np.einsum("ij,ij->i", one, other)
        return values
