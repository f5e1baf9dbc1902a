"""Dense ranks of numbers, and Kendall's S of many pairs of rankings in ``O(size log size)`` each."""

from __future__ import annotations

from ctypes import c_int64, c_void_p
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.kernels.dispatch import level
from nestling.kernels.library import address, declared
from nestling.kernels.scans.layout import Doubles, Ints

Ranks = NDArray[np.int32]


def dense_ranks(x: Doubles) -> Ranks:
    """Ranks 0, 1, 2, ... of the numbers of each row, ``Int32[rows, size]``; equal numbers share a rank.

    Args:
        x: ``Float64[rows, size]``, no NaN; infinities are allowed, both zeros are equal.
    """
    return ranks_by_numpy(x) if level() == "off" else ranks_by_library(x)


def concordance(a: Ranks, b: Ranks) -> Ints:
    """Concordant minus discordant pairs of each row of ``a`` with each row of ``b``, ``Int64[rows, rows]``.

    Nothing is checked here.

    Args:
        a: ``Int32[rows, size]``, dense ranks.
        b: ``Int32[rows, size]``.

    Source: Knight 1966; inversions are counted by bytes of the ranks.
    """
    return by_numpy(a, b) if level() == "off" else by_library(a, b)


def ranks_by_library(x: Doubles) -> Ranks:
    """:func:`dense_ranks` by the compiled kernel."""
    x = np.ascontiguousarray(x, np.float64)
    ranks = np.empty(x.shape, np.int32)
    if _functions().nestling_dense_ranks(x.shape[1], address(x), len(x), address(ranks)):
        raise MemoryError(f"no memory to rank {x.shape[1]} numbers")
    return ranks


def by_library(a: Ranks, b: Ranks) -> Ints:
    """:func:`concordance` by the compiled kernel."""
    a, b = (np.ascontiguousarray(ranks, np.int32) for ranks in (a, b))
    found = np.empty((len(a), len(b)), np.int64)
    given = (a.shape[1], address(a), len(a), address(b), len(b), address(found))
    if _functions().nestling_concordance(*given):
        raise MemoryError(f"no memory to compare {len(a)} and {len(b)} rankings of {a.shape[1]} numbers")
    return found


@cache
def _functions() -> Any:
    pointer, size = c_void_p, c_int64
    return declared(
        {
            "dense_ranks": [size, pointer, size, pointer],
            "concordance": [size, pointer, size, pointer, size, pointer],
        }
    )


def ranks_by_numpy(x: Doubles) -> Ranks:
    """:func:`dense_ranks` by numpy."""
    order = np.argsort(x, axis=1)
    rising = np.take_along_axis(x, order, axis=1)
    steps = np.zeros(x.shape, np.int32)
    np.cumsum(rising[:, 1:] != rising[:, :-1], axis=1, out=steps[:, 1:])
    ranks = np.empty_like(steps)
    np.put_along_axis(ranks, order, steps, axis=1)
    return ranks


def by_numpy(a: Ranks, b: Ranks) -> Ints:
    """:func:`concordance` by numpy."""
    return np.array([[_concordance(x, y) for y in b] for x in a], np.int64).reshape(len(a), len(b))


def _concordance(x: Ranks, y: Ranks) -> int:
    size, wide = len(x), x.astype(np.int64)
    both = _tied(np.unique(wide * (int(y.max()) + 1) + y, return_counts=True)[1])
    untied = size * (size - 1) // 2 - _tied(np.bincount(x)) - _tied(np.bincount(y)) + both
    # Values that are equal in x are sorted by y, so none of their pairs is inverted.
    return untied - 2 * _inversions(y[np.lexsort((y, x))])


def _tied(counts: Ints) -> int:
    return int((counts * (counts - 1) // 2).sum())


def _inversions(values: Ranks) -> int:
    """Pairs in falling order, counted bit by bit: a pair counts at the highest bit that differs.

    Values are kept sorted by their higher bits, so values that share those bits are contiguous.
    """
    starts = np.concatenate([[0], np.cumsum(np.bincount(values))])
    places, found = np.arange(len(values)), 0
    for bit in reversed(range(int(values.max()).bit_length())):
        ones = (values >> bit) & 1
        before = np.cumsum(ones) - ones
        before -= before[starts[(values >> (bit + 1)) << (bit + 1)]]
        found += int(before[ones == 0].sum())
        sorted_values = np.empty_like(values)
        sorted_values[np.where(ones == 1, starts[(values >> bit) << bit] + before, places - before)] = values
        values = sorted_values
    return found
