"""Exact search at many prefixes at once, of rows that are held at some precisions; compiled only."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import POINTER, Structure, addressof, byref, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nestling.kernels.dispatch import level
from nestling.kernels.library import LEVELS, address, declared, library
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
    """Rows at one or more precisions, all close to the same levels.

    Args:
        levels: ``UInt8[rows, dim]``.
        values: ``Float32[rows, at least dim]`` of each precision.
        sharp: whether levels give the values of each precision, but for rounding.
        sizes: increasing; the last is ``dim``.
    """

    levels: Bytes
    values: Sequence[Floats]
    sharp: Sequence[bool]
    sizes: tuple[int, ...]

    @cached_property
    def packed(self) -> Bytes:
        """Room for the levels in blocks of 16 rows, which :func:`pack` fills."""
        return np.empty(_functions().nestling_packed_held(byref(_described(self).held)), np.uint8)


@dataclass(frozen=True, eq=False)
class Bounds:
    """What bounds on scores need of rows, by precision and size.

    A score is the inner product times ``inverse``. It is at most ``(product of levels + query's length *
    doubts) / lengths``.

    Args:
        inverse: ``Float64[precisions, rows, sizes]``.
        lengths: ``Float32[precisions, sizes, padded rows]``, positive; :data:`FAR` of a row that is left out
            of a sharp precision.
        doubts: the same shape; -inf of a row that is left out.
    """

    inverse: Doubles
    lengths: Floats
    doubts: Floats

    def leave_out(self, size: int, rows: Ints) -> None:
        """Leave out some rows of sharp precisions at a size."""
        self.lengths[:, size, rows], self.doubts[:, size, rows] = FAR, -np.inf


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


class _Kind(Structure):
    _fields_ = [("values", c_void_p), ("stride", c_int64), ("sharp", c_int64)]


class _Held(Structure):
    _fields_ = [(name, c_int64) for name in ("rows", "padded", "sizes", "kinds")] + [
        (name, c_void_p) for name in ("dims", "levels", "packed", "values", "inverse", "lengths", "doubts")
    ]


class _Queries(Structure):
    _fields_ = [("count", c_int64)] + [(name, c_void_p) for name in ("codes", "exact", "factors", "likely")]


def search(held: Held, bounds: Bounds, queries: Queries, k: int) -> tuple[Ints, Doubles]:
    """The ``k`` best rows of each query, ``Int64[n, precisions, sizes, k]``, and their scores.

    Scores are inner products in double precision; of equal ones the lower row wins. All are -1 where bounds
    leave thousands of rows, which another search has to compare.
    """
    kinds, sizes = bounds.lengths.shape[:2]
    shape = (len(queries.codes), kinds, sizes, k)
    found = np.empty(shape, np.int64), np.empty(shape, np.float64)
    described = _described(held, bounds, held.packed)
    arrays = queries.codes, queries.exact, queries.factors, queries.likely
    asked = _Queries(len(queries.codes), *map(address, arrays))
    given = LEVELS.index(level()), byref(described.held), byref(asked), k
    if _functions().nestling_search_held(*given, *map(address, found)):
        raise MemoryError(f"no memory for the {k} best of {len(queries.codes)} queries")
    return found


@dataclass(frozen=True, eq=False)
class Measured:
    """Lengths of rows.

    Args:
        squares: ``Float64[sizes, rows]``, of their values.
        residuals: ``Float64[sizes, rows]``, squared lengths of what values differ from their levels.
        reach: ``Int64[sizes]``: the largest sum of ``(2 level - most)`` squared.
    """

    squares: Doubles
    residuals: Doubles
    reach: Ints

    @classmethod
    def room(cls, rows: int, sizes: int) -> Measured:
        """Room for so many."""
        return cls(np.empty((sizes, rows)), np.empty((sizes, rows)), np.zeros(sizes, np.int64))


def measure(
    held: Held,
    kind: int,
    grid: tuple[Doubles, Doubles, int],
    scale: Doubles | None,
    rows: slice,
    found: Measured,
) -> None:
    """Measure some rows of a precision.

    Args:
        held: the rows.
        kind: the place of the precision.
        grid: ``Float64[dim]`` centre and unit, and the highest level: an entry is about
            ``centre + unit * level``.
        scale: ``Float64[rows]``, by which that is multiplied; None is 1.
        rows: from start to stop.
        found: where the lengths go; ``reach`` is raised.
    """
    described = _described(held)
    centre, unit, most = grid
    failed = _functions().nestling_measure_held(
        LEVELS.index(level()),
        byref(described.held),
        kind,
        *map(address, (centre, unit, scale)),
        most,
        rows.start,
        rows.stop,
        *map(address, (found.squares, found.residuals, found.reach)),
    )
    if failed:
        raise MemoryError(f"no memory for a row of {held.sizes[-1]} entries")


def pack(held: Held, blocks: slice) -> None:
    """Pack the levels of some blocks of 16 rows, from start to stop."""
    if _functions().nestling_pack_held(
        byref(_described(held, None, held.packed).held), blocks.start, blocks.stop
    ):
        raise MemoryError(f"no memory to describe {len(held.sizes)} sizes")


class _Described(NamedTuple):
    held: _Held
    kept: tuple[Any, ...]  # what it must keep alive


def _described(held: Held, bounds: Bounds | None = None, packed: Bytes | None = None) -> _Described:
    """The rows as the kernels read them."""
    sizes = np.array(held.sizes, np.int64)
    described = (
        _Kind(address(each), each.strides[0] // each.itemsize, is_sharp)
        for each, is_sharp in zip(held.values, held.sharp, strict=True)
    )
    kinds = (_Kind * len(held.values))(*described)
    numbers = (None,) * 3 if bounds is None else (bounds.inverse, bounds.lengths, bounds.doubts)
    counts = len(held.levels), padded(len(held.levels)), len(sizes), len(held.values)
    arrays = map(address, (sizes, held.levels, packed))
    rows = _Held(*counts, *arrays, addressof(kinds), *map(address, numbers))
    return _Described(rows, (sizes, kinds))


@cache
def _functions() -> Any:
    pointer, size, number = c_void_p, c_int64, c_int32
    return declared(
        {
            "has_prefixes": [number],
            "packed_held": [POINTER(_Held)],
            "pack_held": [POINTER(_Held), size, size],
            "search_held": [number, POINTER(_Held), POINTER(_Queries), size, pointer, pointer],
            "measure_held": [number, POINTER(_Held), size, *[pointer] * 3, *[size] * 3, *[pointer] * 3],
        }
    )
