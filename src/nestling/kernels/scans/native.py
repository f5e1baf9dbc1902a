"""The compiled kernels of :mod:`nestling.kernels.scans`."""

from __future__ import annotations

from ctypes import POINTER, Structure, c_int32, c_int64, c_void_p
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from nestling.kernels.library import LEVELS, address, declared
from nestling.kernels.scans.layout import (
    LANES,
    Doubles,
    Floats,
    Found,
    Ints,
    Packed,
    Probes,
    StoredRows,
    TwoPlanes,
)

_TYPES = {"float32": 0, "float16": 1, "int8": 2}


class Vectors(Structure):
    """Stored rows, as ``NestlingVectors`` of ``rows.h``."""

    _fields_ = [
        ("data", c_void_p),
        ("stride", c_int64),
        ("dim", c_int64),
        ("scale", c_void_p),
        ("type", c_int32),
        ("distance", c_int32),
    ]


class _Codes(Structure):
    _fields_ = [("rows", c_int64), ("lines", c_int64)] + [
        (name, c_void_p)
        for name in (
            "coarse", "fine", "coarse_scale", "coarse_radius", "fine_scale", "fine_radius", "bias", "allowed"
        )
    ] + [("first", c_int64), ("last", c_int64)]  # fmt: skip

    def narrowed(self, allowed: int | None, blocks: slice | None) -> _Codes:
        """The same codes, of which only some rows may be found."""
        first, last = (self.first, self.last) if blocks is None else (blocks.start, blocks.stop)
        fixed = [getattr(self, field[0]) for field in self._fields_[:-3]]
        return _Codes(*fixed, allowed, first, last)


class _Queries(Structure):
    _fields_ = [("count", c_int64)] + [
        (name, c_void_p) for name in ("codes", "sums", "likely", "sure", "exact", "bounds")
    ]


class _Answers(Structure):
    _fields_ = [(name, c_void_p) for name in ("indices", "scores", "refined", "verified", "skipped")]


def search(
    level: str,
    vectors: StoredRows,
    codes: TwoPlanes,
    probes: Probes,
    k: int,
    *,
    allowed: NDArray[np.bool_] | None = None,
    blocks: slice | None = None,
) -> Found:
    count = len(probes.codes)
    counts, skipped = np.empty((2, count), np.int64), np.empty(count, np.float64)
    found = Found(
        np.empty((count, k), np.int64), np.empty((count, k), np.float64), counts[0], counts[1], skipped
    )
    held = [probes.codes, probes.sums, probes.likely, probes.sure, probes.exact, probes.bounds]
    described = _codes(codes)
    if allowed is not None or blocks is not None:
        described = described.narrowed(address(allowed), blocks)
    failed = _functions().nestling_search(
        LEVELS.index(level),
        vectors_of(vectors),
        described,
        _Queries(count, *map(address, held)),
        k,
        _Answers(*map(address, (found.indices, found.scores, found.refined, found.verified, found.skipped))),
    )
    if failed:
        raise MemoryError(f"no memory for the {k} best of {count} queries")
    return found


def scan(level: str, codes: Packed, queries: NDArray[np.int8], factors: Floats) -> list[tuple[Ints, Floats]]:
    count, room = len(queries), (len(codes.blocks) + 1) * LANES
    rows, bounds = np.empty((count, room), np.int32), np.empty((count, room), np.float32)
    counts, sums = np.empty(count, np.int64), queries.sum(axis=1, dtype=np.int32)
    failed = _functions().nestling_scan(
        LEVELS.index(level),
        address(codes.blocks),
        codes.rows,
        codes.blocks.shape[1],
        codes.bits,
        *map(address, (codes.scale, codes.radius, codes.bias)),
        count,
        *map(address, (queries, sums, factors, rows, bounds, counts)),
    )
    if failed:
        raise MemoryError(f"no memory to scan {codes.rows} rows for {count} queries")
    return [(rows[i, : counts[i]].astype(np.int64), bounds[i, : counts[i]].copy()) for i in range(count)]


def score(level: str, vectors: StoredRows, query: Doubles, rows: Ints) -> Doubles:
    scores = np.empty(len(rows), np.float64)
    places = map(address, (query, rows))
    _functions().nestling_score(LEVELS.index(level), vectors_of(vectors), *places, len(rows), address(scores))
    return scores


@cache
def _functions() -> Any:
    vectors = POINTER(Vectors)
    loaded = declared(
        {
            "search": [c_int32, vectors, POINTER(_Codes), POINTER(_Queries), c_int64, POINTER(_Answers)],
            "scan": [
                *[c_int32, c_void_p, c_int64, c_int64, c_int32, *[c_void_p] * 3, c_int64],
                *[c_void_p] * 6,
            ],
            "score": [c_int32, vectors, c_void_p, c_void_p, c_int64, c_void_p],
        }
    )
    loaded.nestling_score.restype = None
    return loaded


# Arrays are described to the library once: that takes longer than a small search, and they stay in place.
_described: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def vectors_of(vectors: StoredRows) -> Vectors:
    """Stored rows as the kernels read them."""
    if vectors not in _described:
        values = vectors.values
        _described[vectors] = Vectors(
            address(values),
            values.strides[0],
            values.shape[1],
            address(vectors.scale),
            _TYPES[values.dtype.name],
            vectors.distance,
        )
    return _described[vectors]  # type: ignore[no-any-return]


def _codes(codes: TwoPlanes) -> _Codes:
    if codes not in _described:
        coarse = codes.coarse
        arrays = (coarse.blocks, codes.fine, coarse.scale, coarse.radius)
        floats = (codes.fine_scale, codes.fine_radius, coarse.bias)
        places = map(address, (*arrays, *floats))
        blocks, lines, _ = coarse.blocks.shape
        _described[codes] = _Codes(coarse.rows, lines, *places, None, 0, blocks)
    return _described[codes]  # type: ignore[no-any-return]
