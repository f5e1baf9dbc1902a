"""A graph of rows, walked by their 2-bit codes: how it is grown, walked, and its finds put in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestling import kernels
from nestling.kernels import walking_native, walking_twin
from nestling.kernels.layout import Bytes, Doubles, Floats, Ints, StoredRows

Links = NDArray[np.int32]
Whole = NDArray[np.int8]

LINE_BYTES = 64


@dataclass(frozen=True, eq=False)
class CodedGraph:
    """Rows with their codes and links.

    A code has four levels of two bits a byte: level ``s`` of byte ``j`` is entry ``s * stride + j``. Its
    last four bytes are a factor (float32), the four before them a bias if rows have one. With
    ``t = 2 <query, code> - 3 sum(query)`` the estimate of a row is ``t * scale * factor + bias``.

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
    """

    codes: Whole
    sums: Links
    scales: Floats

    def part(self, rows: slice) -> Walks:
        """Some of the walks."""
        return Walks(self.codes[rows], self.sums[rows], self.scales[rows])


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


def aligned(rows: int, stride: int) -> Bytes:
    """``UInt8[rows, stride]`` of zeros that begins where a line of the cache does.

    >>> aligned(3, 64).ctypes.data % 64
    0
    """
    whole = np.zeros(rows * stride + LINE_BYTES, np.uint8)
    start = -whole.ctypes.data % LINE_BYTES
    return whole[start : start + rows * stride].reshape(rows, stride)


def walk(
    graph: CodedGraph, walks: Walks, ef: int, kept: int, allowed: NDArray[np.bool_] | None = None
) -> Links:
    """Rows that each walk meets, the most promising first: ``Int32[walks, kept]``, -1 where there are fewer.

    A walk follows the links of the best row it met and did not follow yet, until the ``ef`` best are
    followed (Vamana's greedy search: Subramanya et al., DiskANN, 2019, algorithm 1).

    Args:
        graph: where to walk.
        walks: towards what.
        ef: how many rows a walk keeps in view, at least 1.
        kept: how many to give, at least 1; without ``allowed`` no more than ``ef`` are found.
        allowed: ``Bool[rows]``: rows that may be given. Walks lead through all.
    """
    now = kernels.level()
    if now == "off":
        return walking_twin.walk(graph, walks, ef, kept, allowed)
    return walking_native.walk(now, graph, walks, ef, kept, allowed)


def grow(graph: CodedGraph, whole: WholeRows, walks: Walks, rows: Links, ef: int, alpha: float) -> None:
    """Choose links of new rows among what walks towards them meet; threads may share the new rows out.

    A candidate is left out if a nearer one that was chosen is ``alpha`` times nearer to it than the row
    (in squared distances; DiskANN, algorithm 2).

    Args:
        graph: of the rows so far; the links of the new ones are written.
        whole: all rows.
        walks: one for each of the new rows.
        rows: ``Int32[walks]``: the new rows.
        ef: how many rows a walk keeps in view.
        alpha: at least 1; larger ones leave less out.
    """
    now = kernels.level()
    if now == "off":
        walking_twin.grow(graph, whole, walks, rows, ef, alpha)
    else:
        walking_native.grow(now, graph, whole, walks, rows, ef, alpha)


def link(graph: CodedGraph, whole: WholeRows, rows: Links, alpha: float) -> None:
    """Link what new rows chose with them as well, in the order given; rows with no room choose again."""
    now = kernels.level()
    if now == "off":
        walking_twin.link(graph, whole, rows, alpha)
    else:
        walking_native.link(now, graph, whole, rows, alpha)


def rank(vectors: StoredRows, queries: Doubles, candidates: Links, k: int) -> tuple[Ints, Doubles]:
    """The ``k`` best candidates of every query by exact scores; of equal ones the lower row wins.

    Args:
        vectors: what scores are computed from.
        queries: ``Float64[queries, dim]``.
        candidates: ``Int32[queries, length]``, -1 behind the last of each.
        k: at least 1.

    Returns:
        ``Int64[queries, k]`` and ``Float64[queries, k]``; -1 and nan where there are fewer.
    """
    now = kernels.level()
    if now == "off":
        return walking_twin.rank(vectors, queries, candidates, k)
    return walking_native.rank(now, vectors, queries, candidates, k)
