"""The arrays of a graph search: rows with 2-bit codes and links, encoded queries, and results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nestling.kernels.scans.layout import Bytes, Doubles, Floats, Ints, StoredRows

Links = NDArray[np.int32]
Whole = NDArray[np.int8]

LINE_BYTES = 64


@dataclass(frozen=True, eq=False)
class CodedGraph:
    """Rows with their 2-bit codes and links.

    A byte of a code holds four entries: bits ``2s`` and ``2s + 1`` of byte ``j`` are the entry
    ``s * stride + j``.
    The last four bytes hold a factor (float32), and the four before them a bias if ``biased``. With
    ``t = 2 <query, code> - 3 sum(query)`` the estimated score of a row is
    ``t * scale * factor + weight * bias``.

    Args:
        codes: ``UInt8[rows, stride]``, ``stride`` a multiple of 64; fastest if aligned to 64 bytes, too.
        links: ``Int32[rows, degree]``, padded with -1; :func:`grow` and :func:`link` write it.
        hubs: ``Int32[hubs]``: rows from which a search starts at the best two.
        hub_codes: ``UInt8[hubs, stride]``: their codes.
        biased: whether rows have a bias.
    """

    codes: Bytes
    links: Links
    hubs: Links
    hub_codes: Bytes
    biased: bool


@dataclass(frozen=True, eq=False)
class EncodedQueries:
    """Queries as 8-bit codes, which are compared with the 2-bit codes of rows.

    Args:
        codes: ``Int8[queries, 4 * stride]``, -127 to 127, zero where codes of rows hold a factor or bias.
        sums: ``Int32[queries]``: sum of each query's codes.
        scales: ``Float32[queries]``: the step that a code is multiplied by.
        weights: ``Float32[queries]``: factor of the bias of a row, if rows have one.
    """

    codes: Whole
    sums: Links
    scales: Floats
    weights: Floats

    def part(self, rows: slice) -> EncodedQueries:
        """Some of the queries."""
        return EncodedQueries(self.codes[rows], self.sums[rows], self.scales[rows], self.weights[rows])


class CentredQueries(NamedTuple):
    """Queries less the mean of the rows.

    Attributes:
        rows: ``Float64[queries, dim]``.
        weights: ``Float64[queries]``: factor of the bias of a row.
        factors: ``Float64[queries]``: factor of the queries before the mean was subtracted.
    """

    rows: Doubles
    weights: Doubles
    factors: Doubles


@dataclass(frozen=True, eq=False)
class QueryEncoder:
    """Encodes queries: centred, rotated and quantised to 8 bits.

    Args:
        dim: entries of a query.
        width: entries of an encoded query, ``4 * stride``.
        basis: ``Float32[dim or more, width or more]``: the rotation. Columns behind the first ``width`` serve
            residuals only.
        mean: ``Float64[dim]``: subtracted from rows after scaling.
        scale: a power of two.
        cosine: whether queries are normalised first.
        biased: whether estimates have a bias; queries are then centred as the rows were.
        products: whether scores are inner products all the same. Then each query loses its projection onto
            the mean, instead of the mean.
    """

    dim: int
    width: int
    basis: Floats
    mean: Doubles
    scale: float
    cosine: bool
    biased: bool
    products: bool = False

    def centred(self, queries: Doubles) -> CentredQueries:
        """Queries ``Float64[queries, dim]`` less the mean; for the cosine they have length one.

        All rows share the mean, so it would use up the levels of a query's code. The bias of a row holds what
        the mean adds to its score.
        """
        if not self.biased:
            return CentredQueries(queries, np.zeros(len(queries)), np.ones(len(queries)))
        factors, weights = np.full(len(queries), self.scale), np.ones(len(queries))
        if self.products:
            factors = 1 / np.maximum(np.abs(queries).max(axis=1), np.finfo(np.float64).tiny)
            weights = (queries * factors[:, None]) @ self.mean / (self.mean @ self.mean)
        rows = queries * factors[:, None] - weights[:, None] * self.mean
        return CentredQueries(rows, weights, factors)


@dataclass(frozen=True, eq=False)
class WholeRows:
    """8-bit codes of all entries of the rows; links are chosen by their distances.

    Args:
        values: ``Int8[rows, dim]``, ``dim`` a multiple of 64.
        scales: ``Float32[rows]``: factor of a code.
        norms: ``Float32[rows]``: squared lengths.
    """

    values: Whole
    scales: Floats
    norms: Floats


@dataclass(frozen=True, eq=False)
class Residuals:
    """8-bit codes of rotated rows less their 2-bit codes.

    Args:
        values: ``Int8[rows, columns of the encoder]``.
        steps: ``Float32[rows]``: factor of a code.
    """

    values: Whole
    steps: Floats

    @classmethod
    def joined(cls, parts: list[Residuals]) -> Residuals:
        """The residuals of several blocks of rows, concatenated."""
        return cls(
            np.concatenate([part.values for part in parts]), np.concatenate([part.steps for part in parts])
        )


@dataclass(frozen=True, eq=False)
class SearchedGraph:
    """Everything that a search reads.

    Args:
        graph: the codes and links.
        encoder: encodes the queries.
        vectors: the vectors of the rows, or residuals that replace them when candidates are ranked.
    """

    graph: CodedGraph
    encoder: QueryEncoder
    vectors: StoredRows | Residuals


class Answer(NamedTuple):
    """The result of a search.

    Attributes:
        indices: ``Int64[queries, k]``, best first, -1 where there are fewer.
        scores: ``Float64[queries, k]``, nan where there are fewer.
        few: number of queries that found fewer than ``k`` rows.
        refused: number of the first query that is not finite or has length zero; if there is one, nothing is
            searched.
    """

    indices: Ints
    scores: Doubles
    few: int
    refused: int | None = None


def aligned(rows: int, stride: int) -> Bytes:
    """``UInt8[rows, stride]`` of zeros that begins at a cache line.

    >>> aligned(3, 64).ctypes.data % 64
    0
    """
    whole = np.zeros(rows * stride + LINE_BYTES, np.uint8)
    start = -whole.ctypes.data % LINE_BYTES
    return whole[start : start + rows * stride].reshape(rows, stride)
