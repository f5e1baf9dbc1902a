"""What a graph that is walked consists of: coded rows with links, what walks go towards, what they find."""

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
    """Rows with their codes and links.

    A code has four levels of two bits a byte: level ``s`` of byte ``j`` is entry ``s * stride + j``. Its
    last four bytes are a factor (float32), the four before them a bias if rows have one. With
    ``t = 2 <query, code> - 3 sum(query)`` the estimate of a row is ``t * scale * factor + weight * bias``.

    Args:
        codes: ``UInt8[rows, stride]``, ``stride`` a multiple of 64; best at addresses that are, too.
        links: ``Int32[rows, degree]``, -1 behind the last of each; growing changes it.
        hubs: ``Int32[hubs]``: rows among whose best a walk begins.
        hub_codes: ``UInt8[hubs, stride]``: their codes.
        biased: whether rows have a bias.
    """

    codes: Bytes
    links: Links
    hubs: Links
    hub_codes: Bytes
    biased: bool


@dataclass(frozen=True, eq=False)
class Walks:
    """What to walk towards.

    Args:
        codes: ``Int8[walks, 4 * stride]``, from -127 to 127, zero where a code ends with numbers.
        sums: ``Int32[walks]``: sum of the codes of each.
        scales: ``Float32[walks]``: what a code is multiplied by.
        weights: ``Float32[walks]``: what the bias of a row is multiplied by, if rows have one.
    """

    codes: Whole
    sums: Links
    scales: Floats
    weights: Floats

    def part(self, rows: slice) -> Walks:
        """Some of the walks."""
        return Walks(self.codes[rows], self.sums[rows], self.scales[rows], self.weights[rows])


class Moved(NamedTuple):
    """Queries relative to the mean of the rows.

    Attributes:
        rows: ``Float64[queries, dim]``.
        weights: ``Float64[queries]``: how much the bias of a row counts.
        factors: ``Float64[queries]``: what queries were multiplied by before the mean was taken off.
    """

    rows: Doubles
    weights: Doubles
    factors: Doubles


@dataclass(frozen=True, eq=False)
class Lens:
    """How queries become walks.

    Args:
        dim: entries of a query.
        width: entries of a walk, ``4 * stride``.
        basis: ``Float32[dim or more, width or more]``: what each entry of a row adds to the entries of a
            walk, and to those that only residuals have.
        mean: ``Float64[dim]`` that was taken off the rows after scaling.
        scale: a power of two.
        cosine: whether scores are those of queries of length one.
        biased: whether estimates have a bias; queries are then moved as the rows were.
        products: whether scores are inner products nevertheless: queries are moved by as much of the mean
            as is in them.
    """

    dim: int
    width: int
    basis: Floats
    mean: Doubles
    scale: float
    cosine: bool
    biased: bool
    products: bool = False

    def moved(self, queries: Doubles) -> Moved:
        """Queries ``Float64[queries, dim]`` relative to the mean; for the cosine they have length one.

        They lose all of the mean or, where products are compared, as much of it as is in them: what rows
        share would take the levels of their codes. The bias of a row says what that adds to its score.
        """
        if not self.biased:
            return Moved(queries, np.zeros(len(queries)), np.ones(len(queries)))
        factors, weights = np.full(len(queries), self.scale), np.ones(len(queries))
        if self.products:
            factors = 1 / np.maximum(np.abs(queries).max(axis=1), np.finfo(np.float64).tiny)
            weights = (queries * factors[:, None]) @ self.mean / (self.mean @ self.mean)
        rows = queries * factors[:, None] - weights[:, None] * self.mean
        return Moved(rows, weights, factors)


@dataclass(frozen=True, eq=False)
class WholeRows:
    """8-bit codes of whole rows, which links are chosen by.

    Args:
        values: ``Int8[rows, dim]``, ``dim`` a multiple of 64.
        scales: ``Float32[rows]``: what a code is multiplied by.
        norms: ``Float32[rows]``: squared lengths.
    """

    values: Whole
    scales: Floats
    norms: Floats


@dataclass(frozen=True, eq=False)
class Residuals:
    """8-bit codes of what the 2-bit codes of turned rows leave out.

    Args:
        values: ``Int8[rows, columns of the lens]``.
        steps: ``Float32[rows]``: what a code is multiplied by.
    """

    values: Whole
    steps: Floats

    @classmethod
    def joined(cls, parts: list[Residuals]) -> Residuals:
        """Those of several blocks of rows, one after the other."""
        return cls(
            np.concatenate([part.values for part in parts]), np.concatenate([part.steps for part in parts])
        )


@dataclass(frozen=True, eq=False)
class SearchedGraph:
    """All that a search reads.

    Args:
        graph: where to walk.
        lens: what turns queries into walks.
        vectors: what rows are ranked by: themselves, or codes and residuals.
    """

    graph: CodedGraph
    lens: Lens
    vectors: StoredRows | Residuals


class Answer(NamedTuple):
    """What a search found.

    Attributes:
        indices: ``Int64[queries, k]``, best first, -1 where there are fewer.
        scores: ``Float64[queries, k]``, nan where there are fewer.
        few: how many queries found fewer than ``k``.
        refused: a query that is not finite or has no direction, if there is one; nothing was searched then.
    """

    indices: Ints
    scores: Doubles
    few: int
    refused: int | None = None


def aligned(rows: int, stride: int) -> Bytes:
    """``UInt8[rows, stride]`` of zeros that begins where a line of the cache does.

    >>> aligned(3, 64).ctypes.data % 64
    0
    """
    whole = np.zeros(rows * stride + LINE_BYTES, np.uint8)
    start = -whole.ctypes.data % LINE_BYTES
    return whole[start : start + rows * stride].reshape(rows, stride)
