"""The compiled kernels of :mod:`nestling.kernels.planes`."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import (
    POINTER,
    Structure,
    addressof,
    byref,
    c_float,
    c_int32,
    c_int64,
    c_uint8,
    c_uint16,
    c_void_p,
)
from functools import cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from nestling.kernels.library import LEVELS, address, declared
from nestling.kernels.planes.layout import (
    MOST_BITS,
    ROUNDING,
    Bytes,
    Cells,
    CodeSlice,
    Counts,
    Doubles,
    Floats,
    Ints,
    Mask,
    Steps,
    stride_of,
)

_KINDS = {"dot": 0, "cosine": 1, "distance": 2}
_LANES = 16
_LARGEST = 127


class _Cells(Structure):
    _fields_ = [
        ("dim", c_int64),
        ("centre", c_void_p),
        ("inverse", c_void_p),
        ("half", c_float),
        ("last", c_float),
        ("shrink", c_float),
        ("parts", c_float),
    ]


class _BitRows(Structure):
    _fields_ = [("rows", c_void_p), ("stride", c_int64), ("bytes", c_int64), ("mask", c_uint8)]


class _CellValues(Structure):
    _fields_ = [(name, c_void_p) for name in ("values", "spread", "centre")] + [
        (name, c_int64) for name in ("dim", "shift")
    ]


class _EvenLevels(Structure):
    _fields_ = [(name, c_uint16) for name in ("slope", "offset", "tail", "first", "last")]


class _Slice(Structure):
    _fields_ = (
        [(f"plane{place}", c_void_p) for place in range(MOST_BITS)]
        + [(name, c_int64) for name in ("rows", "stride", "dim", "bits")]
        + [(name, c_void_p) for name in ("values", "spread", "centre", "factor", "bias", "rest", "levels")]
        + [("kind", c_int32)]
    )


class _SliceQueries(Structure):
    _fields_ = [("count", c_int64), ("width", c_int64)] + [
        (name, c_void_p) for name in ("codes", "offsets", "factors", "exact")
    ]


def encode(level: str, x: NDArray[np.float32], cells: Cells) -> Bytes:
    dim = len(cells.centre)
    x = _side_by_side(x)
    codes = np.empty((len(x), dim), np.uint8)
    numbers = (cells.half, cells.last, cells.shrink, cells.parts)
    described = _Cells(dim, address(cells.centre), address(cells.inverse), *numbers)
    _functions().nestling_encode(
        LEVELS.index(level), byref(described), address(x), x.strides[0], len(x), address(codes)
    )
    return codes


def decode(
    level: str, codes: Bytes, values: Floats, spread: Floats, centre: Floats, out: Floats | None = None
) -> Floats:
    codes = _side_by_side(codes)
    found = np.empty(codes.shape, np.float32) if out is None else out
    shift = MOST_BITS + 1 - len(values).bit_length()
    described = _CellValues(*map(address, (values, spread, centre)), codes.shape[1], shift)
    _functions().nestling_decode(
        LEVELS.index(level), byref(described), address(codes), codes.strides[0], len(codes), address(found)
    )
    return found


def packed(level: str, codes: Bytes, bits: int) -> list[Bytes]:
    codes = _side_by_side(codes)
    rows, dim = codes.shape
    planes = [np.empty((rows, stride_of(dim)), np.uint8) for _ in range(bits)]
    _functions().nestling_pack_planes(
        LEVELS.index(level), address(codes), codes.strides[0], rows, dim, bits, _places(planes)
    )
    return planes


def unpacked(level: str, planes: Sequence[Bytes], dim: int) -> Bytes:
    held = alike(planes)
    codes = np.empty((len(held[0]), dim), np.uint8)
    _functions().nestling_unpack_planes(
        LEVELS.index(level), _places(held), held[0].strides[0], len(codes), dim, len(held), address(codes)
    )
    return codes


def hamming(
    level: str,
    bits: Bytes,
    dim: int,
    queries: Bytes,
    k: int,
    *,
    allowed: Mask | None = None,
    rows: slice | None = None,
) -> tuple[Ints, Counts]:
    span = slice(0, len(bits)) if rows is None else rows
    bits, queries = _side_by_side(bits), np.ascontiguousarray(queries)
    found = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.int32)
    mask = 0xFF << (-dim % 8) & 0xFF
    failed = _functions().nestling_hamming(
        LEVELS.index(level),
        byref(_BitRows(address(bits), bits.strides[0], stride_of(dim), mask)),
        span.start,
        span.stop,
        *map(address, (allowed, queries)),
        len(queries),
        k,
        *map(address, found),
    )
    if failed:
        raise MemoryError(f"no memory for the {k} nearest of {len(queries)} queries")
    return found


def search(
    level: str,
    codes: CodeSlice,
    queries: Doubles,
    k: int,
    *,
    allowed: Mask | None = None,
    rows: slice | None = None,
) -> tuple[Ints, Doubles]:
    span = slice(0, codes.rows) if rows is None else rows
    described = _described(codes)
    queries = np.ascontiguousarray(queries)
    coded = _coded(codes, queries, described.steps)
    asked = _SliceQueries(len(queries), coded[0].shape[1], *map(address, (*coded, queries)))
    found = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float64)
    blocks = span.start // _LANES, -(-span.stop // _LANES)
    failed = _functions().nestling_search_slice(
        LEVELS.index(level), described.slice, asked, *blocks, address(allowed), k, *map(address, found)
    )
    if failed:
        raise MemoryError(f"no memory for the {k} best of {len(queries)} queries")
    return found


def score(level: str, codes: CodeSlice, queries: Doubles, shortlist: Ints) -> Doubles:
    queries, shortlist = np.ascontiguousarray(queries), np.ascontiguousarray(shortlist)
    scores = np.empty(shortlist.shape, np.float64)
    failed = _functions().nestling_score_slice(
        LEVELS.index(level),
        _described(codes).slice,
        address(queries),
        len(queries),
        address(shortlist),
        shortlist.shape[1],
        address(scores),
    )
    if failed:
        raise MemoryError(f"no memory for a row of {codes.dim} entries")
    return scores


def measure(level: str, codes: CodeSlice) -> Doubles:
    found = np.empty((codes.rows, 3))
    if _functions().nestling_measure_slice(LEVELS.index(level), _described(codes).slice, address(found)):
        raise MemoryError(f"no memory for a row of {codes.dim} entries")
    return found


class _Described(NamedTuple):  # and what it must keep alive
    slice: _Slice
    steps: Steps
    levels: _EvenLevels | None
    planes: list[Bytes]


_slices: WeakKeyDictionary[CodeSlice, _Described] = WeakKeyDictionary()


def _described(codes: CodeSlice) -> _Described:
    """A slice as the kernels read it; described once, as that takes longer than a small search."""
    if codes not in _slices:
        planes, steps = alike(codes.planes), Steps.of(codes.values)
        sizes = codes.rows, planes[0].strides[0], codes.dim, codes.bits
        arrays = codes.values, codes.spread, codes.centre, codes.factor, codes.bias
        levels = None if steps.levels is None else _EvenLevels(*steps.levels)
        places = [*map(address, arrays), address(steps.rest), None if levels is None else addressof(levels)]
        held = [*map(address, planes), *[None] * (MOST_BITS - len(planes))]
        described = _Slice(*held, *sizes, *places, _KINDS[codes.kind])
        _slices[codes] = _Described(described, steps, levels, planes)
    return _slices[codes]


def _coded(codes: CodeSlice, queries: Doubles, steps: Steps) -> tuple[NDArray[np.int8], Counts, Floats]:
    """Queries in 8 bits, in the places of packed codes; offsets of their products; alpha and beta of bounds.

    The inner product with a row is ``alpha * (2 * <query, code> - offset) + beta``, or less: what rounding a
    query and the cells leaves out is at most the product of its length and that of the row (Cauchy, Schwarz).
    """
    weighted = queries * codes.spread
    step = np.abs(weighted).max(axis=1, initial=0, keepdims=True) / _LARGEST
    step[step == 0] = 1
    rounded = np.rint(weighted / step)
    places, is_there = _places_of(codes.dim, codes.bits)
    coded = np.where(is_there, rounded[:, places], 0).astype(np.int8, order="C")
    sums = rounded.sum(axis=1)
    alpha = step[:, 0] * steps.half
    length, error = (np.linalg.norm(x, axis=1) for x in (weighted, weighted - step * rounded))
    centre = queries @ codes.centre.astype(np.float64)
    beta = centre + alpha * sums * steps.shift + error * codes.reach + length * codes.rest
    beta += ROUNDING * (length * codes.reach + np.abs(queries) @ np.abs(codes.centre))
    with np.errstate(over="ignore"):  # a bound that is infinite leaves no row out
        factors = np.stack([alpha, beta], axis=1).astype(np.float32)
    return coded, (steps.most * sums).astype(np.int32), factors


@cache
def _places_of(dim: int, bits: int) -> tuple[Ints, Mask]:
    """The entry that stands at each place of packed codes (``gather`` of ``cpp/planes.h``), if there is one.

    Four bytes of a plane, 32 entries, are a line of 1-bit codes. Two lines are joined by the upper fields of
    their bytes and by the lower ones, so that the entries of a byte are divided in two.
    """
    lines = [list(range(7, -1, -1))]  # entries of a byte, by the fields of its code from the lowest up
    while len(lines) < bits:
        lines = [half for line in lines for half in (line[1::2], line[0::2])]
    within = np.array(lines)[:, :, None] + 8 * np.arange(4)
    entries = (32 * np.arange(-(-dim // 32))[:, None] + within.reshape(1, -1)).ravel()
    return np.minimum(entries, dim - 1), entries < dim


def alike(planes: Sequence[Bytes]) -> list[Bytes]:
    """Planes whose rows lie equally far apart."""
    held = [_side_by_side(plane) for plane in planes]
    if len({plane.strides[0] for plane in held}) == 1:
        return held
    return [np.ascontiguousarray(plane) for plane in held]


def _side_by_side(rows: NDArray[Any]) -> NDArray[Any]:
    """A matrix whose rows are contiguous, and in memory for as long as it lives."""
    return rows if rows.strides[1] == rows.itemsize and rows.strides[0] > 0 else np.ascontiguousarray(rows)


def _places(planes: Sequence[Bytes]) -> Any:
    return (c_void_p * MOST_BITS)(*map(address, planes))


@cache
def _functions() -> Any:
    pointer, size, number = c_void_p, c_int64, c_int32
    places = POINTER(c_void_p)
    return declared(
        {
            "decode": [number, POINTER(_CellValues), pointer, size, size, pointer],
            "search_slice": [
                number,
                POINTER(_Slice),
                POINTER(_SliceQueries),
                size,
                size,
                pointer,
                size,
                pointer,
                pointer,
            ],
            "score_slice": [number, POINTER(_Slice), pointer, size, pointer, size, pointer],
            "measure_slice": [number, POINTER(_Slice), pointer],
            "encode": [number, POINTER(_Cells), pointer, size, size, pointer],
            "pack_planes": [number, pointer, *[size] * 4, places],
            "unpack_planes": [number, places, *[size] * 4, pointer],
            "hamming": [number, POINTER(_BitRows), size, size, *[pointer] * 2, size, size, *[pointer] * 2],
        }
    )
