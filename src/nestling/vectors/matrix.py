"""Matrices of vectors: their sizes, maps of them, reading them in blocks, and rows that have no direction."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule, name_rows, zero_rows
from nestling.errors import DataError, GranularityError
from nestling.granularity import AnyNesting, Nesting
from nestling.process.blocks import blocks

Vectors: TypeAlias = NDArray[np.floating[Any]]
Sizes: TypeAlias = AnyNesting | None
"""A ``nesting`` argument: a nesting, its text, its sizes on the axis ``dim``, or None."""

_SMALLEST_DIM = 8
_ENTRIES_AT_A_TIME = 1 << 22


def blocks_of(x: Vectors) -> list[slice]:
    """The rows of ``x`` in blocks that memory holds easily."""
    return blocks(len(x), max(1, _ENTRIES_AT_A_TIME // x.shape[1]))


def usual_sizes(full: int) -> Nesting:
    """8, 16, ... up to ``full``: the assumption where nothing else is known."""
    return Nesting.doubling(min(_SMALLEST_DIM, full), full)


def read_sizes(given: Sizes, full: int) -> Nesting:
    """The nesting that an argument names for vectors of ``full`` entries; 8, 16, ... ``full`` by default.

    Raises:
        GranularityError: for other axes than ``dim``, or sizes beyond ``full``.
    """
    if given is None:
        return usual_sizes(full)
    return Nesting.of(given).within("a set of vectors", dim=full)


def read_full_sizes(given: Sizes, full: int) -> Nesting:
    """As :func:`read_sizes`, of a nesting that ends at the full size.

    Raises:
        GranularityError: for one that ends before.
    """
    sizes = read_sizes(given, full)
    if sizes.full["dim"] != full:
        raise GranularityError(
            f"the nesting {sizes} must end at {full}, the size of the vectors; add {full} to it"
        )
    return sizes


def refuse_zero_rows(values: Vectors, rule: CutRule) -> None:
    """Refuse rows that a rule cannot normalise.

    Raises:
        DataError: for rows of zeros under ``l2`` after the cut; they are named.
    """
    if rule.after == "l2" and len(zero := zero_rows(values)):
        raise DataError(
            f"{name_rows(zero, 'of the vectors are')} all zero and cannot be normalised; remove those rows"
        )


class Map(Protocol):
    """A map of vectors, such as :class:`~nestling.encoders.maps.pca.PCARotation`."""

    nesting: Any
    rule: Any

    def transform(self, X: Any, /) -> Vectors:  # noqa: N803 - scikit-learn's name
        """``Float[n, dim]`` of ``Float[n, features]``, before the cut rule."""
        ...
