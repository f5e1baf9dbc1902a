"""Exact search at many prefixes at once, of rows that are held at some precisions; compiled only."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import POINTER, Structure, addressof, byref, c_int32, c_int64, c_uint16, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nestling.kernels.dispatch import level
from nestling.kernels.library import LEVELS, address, declared, library
from nestling.kernels.planes.layout import MOST_BITS
from nestling.kernels.scans.layout import Bytes, Doubles, Floats, Ints

_ROWS_TOGETHER = 96
FAR = 3e38
"""The length of a row that is left out: no bound reaches a threshold there."""


def padded(rows: int) -> int:
    """The number of rows, rounded up to what products take together."""
    return -(-rows // _ROWS_TOGETHER) * _ROWS_TOGETHER


def available() -> bool:
    """Whether the present level has these kernels: products of bytes in registers of AVX-512."""
    if level() == "off" or not hasattr(library(), "nestling_has_prefixes"):
        return False
    return bool(_functions().nestling_has_prefixes(LEVELS.index(level())))


@dataclass(frozen=True, eq=False)
class Held:
    """Rows at one or more precisions, all close to the levels of the same codes.

    Args:
        codes: ``UInt8[rows, at least dim]``, of 8 bits.
        cells: ``Float32[2**bits]``: the value of an entry is ``cells[leading bits] * spread + centre``.
        spread: ``Float32[at least dim]``.
        centre: the same.
        levels: ``slope, offset, tail, first, last`` of :class:`~nestling.kernels.planes.layout.Steps`.
        values: ``Float32[rows, at least dim]`` of each precision; None are the values of the codes.
        sizes: increasing; the last is ``dim``.
        is_cosine: whether rows are compared by their direction. Values that are given are then near the
            levels once divided by the length of the whole row.
    """

    codes: Bytes
    cells: Floats
    spread: Floats
    centre: Floats
    levels: tuple[int, int, int, int, int]
    values: Sequence[Floats | None]
    sizes: tuple[int, ...]
    is_cosine: bool


@dataclass(frozen=True, eq=False)
class Bounds:
    """What bounds on scores need of rows, by precision and size.

    A score by the length of the query is at most ``(product of levels + query's length * doubts) / lengths``.

    Args:
        lengths: ``Float32[precisions, sizes, padded rows]``, positive; :data:`FAR` of a row that is left out.
        doubts: the same shape; None where levels give values but for rounding, of which queries take care.
    """

    lengths: Floats
    doubts: Floats | None

    @classmethod
    def room(cls, held: Held, *, doubts: bool) -> Bounds:
        """Room for those of some rows, which :func:`measure` fills."""
        rows = len(held.codes)
        shape = (len(held.values), len(held.sizes), padded(rows))
        found = cls(np.empty(shape, np.float32), np.empty(shape, np.float32) if doubts else None)
        found.lengths[..., rows:] = FAR
        if found.doubts is not None:
            found.doubts[..., rows:] = 0
        return found


@dataclass(frozen=True, eq=False)
class Queries:
    """Queries for such rows.

    Args:
        codes: ``Int8[n, dim]``.
        exact: ``Float64[n, dim]``.
        factors: ``Float32[n, sizes, 4]``: the step of products, what is added to them in upper and in lower
            bounds, and the length of the query.
        likely: ``Int64[n, sizes, k]``: different rows that are likely to be among the best; -1 is none.
    """

    codes: NDArray[np.int8]
    exact: Doubles
    factors: Floats
    likely: Ints | None = None

    def part(self, rows: slice) -> Queries:
        """Some of the queries."""
        likely = None if self.likely is None else self.likely[rows]
        return Queries(self.codes[rows], self.exact[rows], self.factors[rows], likely)


class _Levels(Structure):
    _fields_ = [(name, c_uint16) for name in ("slope", "offset", "tail", "first", "last")]


class _Kind(Structure):
    _fields_ = [("values", c_void_p), ("stride", c_int64), ("whole", c_int64)]


class _Held(Structure):
    _fields_ = [
        (name, c_int64) for name in ("rows", "padded", "sizes", "kinds", "stride", "shift", "is_cosine")
    ] + [
        (name, c_void_p)
        for name in ("dims", "codes", "cells", "spread", "centre", "levels", "values", "lengths", "doubts")
    ]


class _Queries(Structure):
    _fields_ = [("count", c_int64)] + [(name, c_void_p) for name in ("codes", "exact", "factors", "likely")]


def search(held: Held, bounds: Bounds, queries: Queries, k: int) -> tuple[Ints, Doubles]:
    """The ``k`` best rows of each query, ``Int64[n, precisions, sizes, k]``, and their scores.

    Scores are inner products in double precision, by the length of the row if its direction is compared; of
    equal ones the lower row wins. All are -1 where bounds leave thousands of rows, which another search has
    to compare.
    """
    kinds, sizes = bounds.lengths.shape[:2]
    shape = (len(queries.codes), kinds, sizes, k)
    found = np.empty(shape, np.int64), np.empty(shape, np.float64)
    described = _described(held, bounds)
    arrays = queries.codes, queries.exact, queries.factors, queries.likely
    asked = _Queries(len(queries.codes), *map(address, arrays))
    given = LEVELS.index(level()), byref(described.held), byref(asked), k
    if _functions().nestling_search_held(*given, *map(address, found)):
        raise MemoryError(f"no memory for the {k} best of {len(queries.codes)} queries")
    return found


class Measured(NamedTuple):
    """What holds for all of some rows.

    Args:
        reach: ``Int64[sizes]``: the largest sum of ``(2 level - most)`` squared.
        shortest: of all lengths, at any size and precision.
        longest: likewise.
    """

    reach: Ints
    shortest: float
    longest: float


def measure(held: Held, bounds: Bounds, grid: tuple[Doubles, Doubles, int], rows: slice) -> Measured:
    """Fill in the bounds of some rows.

    Args:
        held: the rows.
        bounds: where lengths and doubts go.
        grid: ``Float64[dim]`` centre and unit, and the highest level: an entry is about
            ``centre + unit * level``.
        rows: from start to stop.
    """
    described = _described(held, bounds)
    centre, unit, most = grid
    reach, extremes = np.zeros(len(held.sizes), np.int64), np.array([np.inf, 0])
    place = LEVELS.index(level()), byref(described.held), *map(address, (centre, unit)), most
    if _functions().nestling_measure_held(*place, rows.start, rows.stop, *map(address, (reach, extremes))):
        raise MemoryError(f"no memory for a row of {held.sizes[-1]} entries")
    return Measured(reach, *map(float, extremes))


class _Described(NamedTuple):
    held: _Held
    kept: tuple[Any, ...]  # what it must keep alive


def _described(held: Held, bounds: Bounds) -> _Described:
    """The rows as the kernels read them."""
    sizes, levels = np.array(held.sizes, np.int64), _Levels(*held.levels)
    described = (
        _Kind()
        if each is None
        else _Kind(address(each), each.strides[0] // each.itemsize, each.shape[1] if held.is_cosine else 0)
        for each in held.values
    )
    kinds = (_Kind * len(held.values))(*described)
    counts = len(held.codes), padded(len(held.codes)), len(sizes), len(held.values)
    shift = MOST_BITS + 1 - len(held.cells).bit_length()
    arrays = map(address, (sizes, held.codes, held.cells, held.spread, held.centre))
    places = addressof(levels), addressof(kinds), *map(address, (bounds.lengths, bounds.doubts))
    rows = _Held(*counts, held.codes.strides[0], shift, held.is_cosine, *arrays, *places)
    return _Described(rows, (sizes, levels, kinds))


@cache
def _functions() -> Any:
    pointer, size, number = c_void_p, c_int64, c_int32
    return declared(
        {
            "has_prefixes": [number],
            "search_held": [number, POINTER(_Held), POINTER(_Queries), size, pointer, pointer],
            "measure_held": [number, POINTER(_Held), *[pointer] * 2, *[size] * 3, *[pointer] * 2],
        }
    )
