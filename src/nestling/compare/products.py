"""Sums over channels for every pair of stimuli: products of matrices, strip by strip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nestling.compare.pairs import first_pairs
from nestling.errors import DataError

Floats: TypeAlias = NDArray[np.float64]
Sides: TypeAlias = tuple[Floats, Floats]
"""``Float[n, q]`` twice, left and right, whose products left_i . right_j are the same from j to i."""

_FEWEST_ROWS = 128
_STRIP_ENTRIES = 1 << 20
_DIFFERENCES_AT_A_TIME = 1 << 20

# A product of rows is exact to some units of 1e-16 of their lengths. Where what is left of the lengths is
# less than this share of them, it would keep less than seven digits, and is taken from the differences.
_NEAR = 1e-8


def write_pairs(chunks: Iterable[Sides], scale: float, out: NDArray[np.floating], block: int | None) -> None:
    """Write ``scale * (left_i - left_j) . (right_i - right_j)`` for every pair into ``out``.

    All estimators have this form. The products come from one matrix product a strip of rows, of which
    only the half that is needed is computed, in float64; pairs of nearly equal rows are computed anew
    from their differences, so that equal rows are at distance 0.

    Args:
        chunks: the sides for some channels at a time; their sums are added. They are changed.
        scale: a factor.
        out: ``Float[n(n-1)/2]``.
        block: rows of a strip; by default as many as make a megabyte of numbers.

    Raises:
        DataError: if squares overflow.
    """
    for number, (left, right) in enumerate(chunks):
        _centre(left, right)
        starts = first_pairs(len(left))
        for row, strip in _strips(left, right, scale, block):
            for i, values in enumerate(strip):
                part = out[starts[row + i] : starts[row + i] + len(values) - i - 1]
                if number:
                    part += values[i + 1 :]
                else:
                    part[:] = values[i + 1 :]


def _centre(left: Floats, right: Floats) -> None:
    """Move the origin to the mean, which no difference sees: the closer it is, the less cancels."""
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused with its squares
        left -= left.mean(axis=0)
        if right is not left:
            right -= right.mean(axis=0)


def _strips(left: Floats, right: Floats, scale: float, block: int | None) -> Iterator[tuple[int, Floats]]:
    """The first row, and the values of some rows against all from the first of them on."""
    n = len(left)
    size = min(n, block or max(_FEWEST_ROWS, _STRIP_ENTRIES // n))
    with np.errstate(over="ignore", invalid="ignore"):
        own = np.einsum("ij,ij->i", left, right) * scale
    if not np.isfinite(own).all():
        raise DataError("the patterns are so large that their squares overflow; divide them by a constant")
    scratch = np.empty(size * n)
    bar = tqdm(range(0, n - 1, size), desc="rdm", unit="strip", disable=None, delay=2, leave=False)
    for start in bar:
        rows = slice(start, min(start + size, n))
        height, width = rows.stop - start, n - start
        strip = scratch[: height * width].reshape(height, width)
        np.matmul(left[rows] * (-2 * scale), right[start:].T, out=strip)
        strip += own[start:]
        strip += own[rows, None]
        strip[:, :height][np.tri(height, dtype=np.bool_)] = np.inf  # the other half, which is not used
        lengths = np.abs(own[start:])
        if strip.min() < 2 * _NEAR * lengths.max():
            near = np.nonzero(np.abs(strip) < _NEAR * (lengths[:height, None] + lengths))
            strip[near] = _from_differences(left[start:], right[start:], scale, near)
        yield start, strip


def _from_differences(
    left: Floats, right: Floats, scale: float, pairs: tuple[NDArray[np.intp], ...]
) -> Floats:
    """The same for some pairs, without cancellation."""
    values = np.empty(len(pairs[0]))
    step = max(1, _DIFFERENCES_AT_A_TIME // left.shape[1])
    for start in range(0, len(values), step):
        i, j = (side[start : start + step] for side in pairs)
        one = left[i] - left[j]
        other = one if right is left else right[i] - right[j]
        values[start : start + step] = scale * np.einsum("ij,ij->i", one, other)
    return values
