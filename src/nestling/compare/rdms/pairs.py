"""Pairs of stimuli in the order of scipy's ``squareform``: (0, 1), (0, 2), ..., (1, 2), ..."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nestling.errors import DataError

Ints = NDArray[np.int64]


def count_pairs(stimuli: int) -> int:
    """The number of pairs among a number of stimuli."""
    return stimuli * (stimuli - 1) // 2


def count_stimuli(pairs: int) -> int:
    """The number of stimuli that have this number of pairs.

    Raises:
        DataError: if no number of stimuli has that many pairs; the nearest ones are named.

    >>> count_stimuli(1891)
    62
    """
    stimuli = (1 + math.isqrt(1 + 8 * pairs)) // 2
    if count_pairs(stimuli) != pairs:
        raise DataError(
            f"{pairs} dissimilarities are no whole matrix: {stimuli} stimuli have {count_pairs(stimuli)} "
            f"pairs, {stimuli + 1} have {count_pairs(stimuli + 1)}"
        )
    return stimuli


def first_pairs(stimuli: int) -> Ints:
    """``Int[stimuli]``: where the pairs (i, i + 1), (i, i + 2), ... begin, for each stimulus i."""
    rows = np.arange(stimuli, dtype=np.int64)
    return rows * (2 * stimuli - rows - 1) // 2


def pair_positions(stimuli: int, chosen: Ints) -> Ints:
    """Positions of the pairs of some stimuli among the pairs of all.

    Args:
        stimuli: number of all stimuli.
        chosen: ``Int[k]``, different ones, in any order.

    Returns:
        ``Int[k(k-1)/2]``, in the order of the chosen ones; memory for three times as many.

    >>> pair_positions(4, np.array([3, 0, 2]))
    array([2, 5, 1])
    """
    rows, columns = (np.asarray(side) for side in np.triu_indices(len(chosen), 1))
    one, other = chosen[rows], chosen[columns]
    low, high = np.minimum(one, other), np.maximum(one, other)
    return first_pairs(stimuli)[low] + high - low - 1
