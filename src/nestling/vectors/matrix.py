"""Matrices of vectors: the sizes they are cut at, and reading them in blocks."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.granularity import AnyNesting, Nesting
from nestling.process.blocks import blocks

Vectors: TypeAlias = NDArray[np.floating[Any]]
Sizes: TypeAlias = AnyNesting | None
"""What a ``nesting`` argument accepts: a nesting, its text, its sizes on the axis ``dim``, or None."""

_SMALLEST_DIM = 8
_ENTRIES_AT_A_TIME = 1 << 22


def blocks_of(x: Vectors) -> list[slice]:
    """The rows of ``x`` in blocks that memory holds easily."""
    return blocks(len(x), max(1, _ENTRIES_AT_A_TIME // x.shape[1]))


def read_sizes(given: Sizes, full: int) -> Nesting:
    """The nesting that an argument names for vectors of ``full`` entries; 8, 16, ... ``full`` by default.

    Raises:
        GranularityError: for other axes than ``dim``, or sizes beyond ``full``.
    """
    if given is None:
        return Nesting.doubling(min(_SMALLEST_DIM, full), full)
    return Nesting.of(given).within("a set of vectors", dim=full)
