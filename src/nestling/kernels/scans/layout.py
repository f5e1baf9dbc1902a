"""The arrays of scans: packed codes, stored rows, prepared queries, and results."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

LANES = 16
"""Rows in a block of packed codes."""
BITS = (1, 2, 4, 8)
MOST_DIMS = 16_384
"""With more dims, sums of products of 8-bit codes and queries would overflow 32 bits."""
_LINE_BYTES = 64


def count_lines(dim: int, bits: int) -> int:
    """Number of 64-byte lines of a block of 16 rows."""
    return -(-dim * bits // 32)


def padded(rows: int) -> int:
    """The number of rows, rounded up to whole blocks."""
    return -(-rows // LANES) * LANES


def pack(codes: Bytes, bits: int) -> Bytes:
    """Codes ``UInt8[rows, dim]`` below ``2**bits`` in blocks of 16 rows: ``UInt8[blocks, lines, 64]``.

    In line ``l``, row ``r`` of the block owns bytes ``4r`` to ``4r + 3``; byte ``p`` of them holds, from
    its lowest bits up, the codes of the dims ``l * 32 / bits + 4s + p`` for ``s = 0, 1, ...``. The last
    block and line are padded with zeros.

    >>> pack(np.arange(8, dtype=np.uint8)[None] % 4, 2)[0, 0, :4]
    array([ 0,  5, 10, 15], dtype=uint8)
    """
    rows, dim = codes.shape
    parts, lines = 8 // bits, count_lines(dim, bits)
    whole = np.zeros((padded(rows), lines * 4 * parts), np.uint8)
    whole[:rows, :dim] = codes
    split = whole.reshape(-1, LANES, lines, parts, 4)
    packed = np.zeros((len(split), LANES, lines, 4), np.uint8)
    for part in range(parts):
        packed |= split[:, :, :, part] << np.uint8(part * bits)
    return np.ascontiguousarray(packed.transpose(0, 2, 1, 3)).reshape(len(split), lines, _LINE_BYTES)


def unpack(blocks: Bytes, bits: int) -> Bytes:
    """The codes that :func:`pack` packed, with the padding of the last block and line."""
    lines = blocks.shape[1]
    rows = blocks.reshape(-1, lines, LANES, 4).transpose(0, 2, 1, 3)
    mask = np.uint8((1 << bits) - 1)
    parts = [rows >> np.uint8(part * bits) & mask for part in range(8 // bits)]
    return np.stack(parts, axis=3).reshape(len(blocks) * LANES, -1)


def pack_rows(codes: Bytes) -> Bytes:
    """2-bit codes row by row: byte ``j`` holds the codes of dims ``s * stride + j`` for ``s = 0, 1, 2, 3``.

    Rows are padded as :func:`pack` pads their dims, so ``stride`` is four bytes for each of its lines.
    """
    stride = 4 * count_lines(codes.shape[1], 2)
    whole = np.zeros((len(codes), 4 * stride), np.uint8)
    whole[:, slice(codes.shape[1])] = codes
    parts = whole.reshape(len(codes), 4, stride)
    packed = parts[:, 0].copy()
    for part in (1, 2, 3):
        packed |= parts[:, part] << np.uint8(2 * part)
    return packed


def unpack_rows(rows: Bytes) -> Bytes:
    """The codes that :func:`pack_rows` packed, with the padding of their lines."""
    return np.concatenate([rows >> np.uint8(shift) & np.uint8(3) for shift in (0, 2, 4, 6)], axis=1)


@dataclass(frozen=True, eq=False)
class Packed:
    """Codes of 1, 2, 4 or 8 bits per dim of many rows, and the numbers that turn sums of codes into bounds.

    With ``t = 2 <query, code> - (2^bits - 1) sum(query)`` the bound of a row is
    ``scale * (alpha * t + beta) + gamma * radius + bias``; the factors belong to the query. With
    ``gamma = beta = 0`` it is an estimate of the score.

    Args:
        rows: number of rows.
        bits: 1, 2, 4 or 8.
        blocks: as :func:`pack` gives them.
        scale: ``Float[padded rows]``: half the distance between neighbouring codes.
        radius: ``Float[padded rows]``, ``-inf`` in padding rows.
        bias: ``Float[padded rows]`` or None.
    """

    rows: int
    bits: int
    blocks: Bytes
    scale: Floats
    radius: Floats
    bias: Floats | None = None


@dataclass(frozen=True, eq=False)
class TwoPlanes:
    """A 4-bit code in two halves: the high bits are scanned, the low bits are read for rows that survive.

    Args:
        coarse: the high two bits.
        fine: the low two bits, as :func:`pack_rows` gives them.
        fine_scale: ``Float[padded rows]`` of the 4-bit code.
        fine_radius: ``Float[padded rows]`` of the 4-bit code.
    """

    coarse: Packed
    fine: Bytes
    fine_scale: Floats
    fine_radius: Floats


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Vectors whose exact scores are computed in double precision.

    Args:
        values: ``float32``, ``float16`` or ``int8`` ``[rows, dim]``, entries of a row contiguous.
        scale: ``Float64[rows]``: factors of the inner products, or None.
        distance: scores are negated squared distances instead of inner products.
    """

    values: NDArray[Any]
    scale: Doubles | None = None
    distance: bool = False


@dataclass(frozen=True, eq=False)
class Probes:
    """Queries, prepared for comparison with codes and with stored rows.

    Args:
        codes: ``Int8[queries, dims of the packed code]``.
        sums: ``Int32[queries]``: sum of the codes of each.
        likely: ``Float32[queries, 2, 3]``: alpha, beta, gamma of a bound by the high bits and by all bits.
        sure: the same for bounds that always hold; if None, the likely bounds decide alone.
        exact: ``Float64[queries, dim]``.
        bounds: ``Float64[queries, 3]``: slope, offset and the absolute error of the offset of the affine map
            from scores to bounds.
    """

    codes: NDArray[np.int8]
    sums: NDArray[np.int32]
    likely: Floats
    sure: Floats | None
    exact: Doubles
    bounds: Doubles

    def part(self, rows: slice) -> Probes:
        """Some of the queries."""
        sure = None if self.sure is None else self.sure[rows]
        return Probes(
            self.codes[rows], self.sums[rows], self.likely[rows], sure, self.exact[rows], self.bounds[rows]
        )


@dataclass(frozen=True, eq=False)
class Found:
    """Results of a search.

    Args:
        indices: ``Int64[queries, k]``, best first, -1 where there are fewer.
        scores: ``Float64[queries, k]``, nan where there are fewer.
        refined: ``Int64[queries]``: rows whose low bits were read.
        verified: ``Int64[queries]``: rows whose exact score was computed.
        skipped: ``Float64[queries]``: the largest bound among rows that were not verified.
    """

    indices: Ints
    scores: Doubles
    refined: Ints
    verified: Ints
    skipped: Doubles

    @classmethod
    def joined(cls, parts: list[Found]) -> Found:
        """Results of searches for different queries, concatenated."""
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))

    @classmethod
    def merged(cls, parts: list[Found]) -> Found:
        """Results of searches for the same queries in different rows, merged."""
        k = parts[0].indices.shape[1]
        indices, scores = (
            np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("indices", "scores")
        )
        order = np.lexsort((indices, -scores))[:, :k]
        indices, scores = (np.take_along_axis(each, order, axis=1) for each in (indices, scores))
        refined, verified = (sum(getattr(part, name) for part in parts) for name in ("refined", "verified"))
        return cls(indices, scores, refined, verified, np.max([part.skipped for part in parts], axis=0))
