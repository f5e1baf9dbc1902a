"""Nested codes in numpy: the same results as the compiled kernels, slower."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nestling.kernels.planes.layout import (
    MOST_BITS,
    Bytes,
    Cells,
    CodeSlice,
    Counts,
    Doubles,
    Floats,
    Ints,
    Mask,
    Steps,
)
from nestling.process.blocks import blocks

_HIGHEST = 1 << (MOST_BITS - 1)
_BYTES_AT_A_TIME = 1 << 24
_ENTRIES_AT_A_TIME = 1 << 20


def encode(x: NDArray[np.float32], cells: Cells) -> Bytes:
    """The 8-bit codes ``UInt8[n, dim]`` of the leading entries of rows ``Float32[n, at least dim]``."""
    place = (x[:, : len(cells.centre)] - cells.centre) * cells.inverse + np.float32(cells.half)
    last, shrink = np.float32(cells.last), np.float32(cells.shrink)
    np.copyto(place, 1 - (1 - place) * shrink, where=place < 1)
    np.copyto(place, last + (place - last) * shrink, where=place > last)
    return np.asarray(np.clip(place * np.float32(cells.parts), 0, 255), np.uint8)


def decode(codes: Bytes, values: Floats, spread: Floats, centre: Floats, out: Floats | None = None) -> Floats:
    """The values ``Float32[n, dim]`` of 8-bit codes ``UInt8[n, dim]`` by their leading bits.

    Args:
        codes: of which as many bits count as there are values.
        values: ``Float32[2**bits]``, of cells.
        spread: ``Float32[dim]``.
        centre: ``Float32[dim]``.
        out: ``Float32[n, dim]``, contiguous, where the values go; new memory by default.
    """
    levels = codes >> np.uint8(MOST_BITS + 1 - len(values).bit_length())
    found: Floats = np.take(values, levels, out=out, mode="clip")
    found *= spread
    found += centre
    return found


def packed(codes: Bytes, bits: int) -> list[Bytes]:
    """The leading planes of 8-bit codes ``UInt8[n, dim]``, each ``UInt8[n, bytes]``.

    A byte holds eight entries, the first in its highest bit; the last byte is padded with zeros.
    """
    return [np.packbits(codes & np.uint8(_HIGHEST >> place), axis=1) for place in range(bits)]


def unpacked(planes: Sequence[Bytes], dim: int) -> Bytes:
    """The 8-bit codes that one or more planes hold, ``UInt8[n, dim]``; bits of further planes are zero."""
    codes = np.zeros((len(planes[0]), dim), np.uint8)
    for place, plane in enumerate(planes):
        codes |= np.unpackbits(plane, axis=1, count=dim) << np.uint8(MOST_BITS - 1 - place)
    return codes


def hamming(
    bits: Bytes, dim: int, queries: Bytes, k: int, *, allowed: Mask | None = None, rows: slice | None = None
) -> tuple[Ints, Counts]:
    """The ``k`` rows whose leading bits differ least from those of each query, and how many bits differ.

    Of equal distances the lower row wins; -1 where there are fewer rows.

    Args:
        bits: ``UInt8[n, at least dim / 8]``, a plane.
        dim: number of leading bits compared.
        queries: ``UInt8[queries, bytes]``, a plane of just these bits.
        k: at least 1.
        allowed: ``Bool[n]``: the rows that may be found; all by default.
        rows: from start to stop; all by default.
    """
    span = slice(0, len(bits)) if rows is None else rows
    some = np.arange(span.start, span.stop)
    some = some if allowed is None else some[allowed[span]]
    indices, distances = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -1, np.int32)
    held = np.packbits(np.unpackbits(bits[some], axis=1, count=dim), axis=1)  # without the bits behind
    for i, query in enumerate(queries):
        step = max(1, _BYTES_AT_A_TIME // held.shape[1])
        parts = [np.bitwise_count(held[each] ^ query).sum(axis=1) for each in blocks(len(held), step)]
        differing = np.concatenate([*parts, np.zeros(0, np.int64)])
        best = np.argsort(differing, kind="stable")[:k]
        indices[i, : len(best)], distances[i, : len(best)] = some[best], differing[best]
    return indices, distances


def search(
    codes: CodeSlice, queries: Doubles, k: int, *, allowed: Mask | None = None, rows: slice | None = None
) -> tuple[Ints, Doubles]:
    """The ``k`` best rows of each query and their scores; -1 and nan where there are fewer.

    Scores are exact, of the values that the codes hold, in double precision. Of equal scores the lower row
    wins. The compiled kernels decode rows only if a bound on their score reaches the k-th best.

    Args:
        codes: the codes, their comparison and its bounds (:meth:`CodeSlice.bounded`).
        queries: ``Float64[queries, dim]``.
        k: at least 1.
        allowed: ``Bool[n]``: the rows that may be found; all by default.
        rows: from start to stop, which 16 divides unless it is the end; all by default.
    """
    span = slice(0, codes.rows) if rows is None else rows
    some = np.arange(span.start, span.stop)
    some = some if allowed is None else some[allowed[span]]
    best = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0))
    for block in blocks(len(some), max(1, _ENTRIES_AT_A_TIME // codes.dim)):
        shortlist = np.tile(some[block], (len(queries), 1))
        found = np.append(best[0], shortlist, 1), np.append(best[1], score(codes, queries, shortlist), 1)
        order = np.argsort(-found[1], axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(found[0], order, 1), np.take_along_axis(found[1], order, 1)
    missing = ((0, 0), (0, k - best[0].shape[1]))
    return np.pad(best[0], missing, constant_values=-1), np.pad(best[1], missing, constant_values=np.nan)


def score(codes: CodeSlice, queries: Doubles, shortlist: Ints) -> Doubles:
    """Exact scores ``Float64[queries, length]`` of the rows of a shortlist for each query; nan for row -1."""
    rows, places = np.unique(shortlist, return_inverse=True)
    values = _values(codes, np.maximum(rows, 0)).astype(np.float64)
    if codes.kind == "distance":
        scores = -np.stack([np.square(values - query).sum(axis=1) for query in queries])
    else:
        scores = np.stack([values @ query for query in queries])
        lengths = np.linalg.norm(values, axis=1) if codes.kind == "cosine" else np.ones(len(values))
        scores = np.divide(scores, lengths, out=np.zeros_like(scores), where=lengths > 0)
    found = np.take_along_axis(scores, places.reshape(shortlist.shape), axis=1)
    return np.where(shortlist < 0, np.nan, found)


def measure(codes: CodeSlice) -> Doubles:
    """Squared lengths of all rows, ``Float64[n, 3]``.

    Of the values, of those of the cells alone, and of what these differ from evenly spaced ones.
    """
    found, rest = np.zeros((codes.rows, 3)), Steps.of(codes.values).rest
    for some in blocks(codes.rows, max(1, _ENTRIES_AT_A_TIME // codes.dim)):
        held = unpacked([plane[some] for plane in codes.planes], codes.dim)
        cells = held >> np.uint8(MOST_BITS - codes.bits)
        parts = [decode(held, codes.values, codes.spread, codes.centre), codes.values[cells]]
        for place, part in enumerate(parts if rest is None else [*parts, rest[cells]]):
            found[some, place] = np.square(part.astype(np.float64)).sum(axis=1)
    return found


def _values(codes: CodeSlice, rows: Ints) -> Floats:
    held = unpacked([plane[rows] for plane in codes.planes], codes.dim)
    return decode(held, codes.values, codes.spread, codes.centre)
