"""A graph of rows, walked by their 2-bit codes: how it is grown, walked, and its finds put in order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nestling import kernels
from nestling.kernels import walking_native, walking_twin
from nestling.kernels.graph_layout import (
    LINE_BYTES,
    Answer,
    CodedGraph,
    Lens,
    Links,
    Residuals,
    SearchedGraph,
    Walks,
    WholeRows,
    aligned,
)
from nestling.kernels.layout import Doubles, Ints, StoredRows

__all__ = [
    "LINE_BYTES",
    "Answer",
    "CodedGraph",
    "Lens",
    "Residuals",
    "SearchedGraph",
    "Walks",
    "WholeRows",
    "aim",
    "aligned",
    "grow",
    "link",
    "rank",
    "rank_coded",
    "search",
    "walk",
]


def aim(lens: Lens, rows: Doubles, weights: Doubles) -> Walks:
    """Walks towards rows in terms of the frame, ``Float64[walks, entries or fewer]``, finite.

    ``weights``, ``Float64[walks]``, say how much the biases of rows count.

    Products and sums are rounded one by one and in order, so that every level gives the same walks.
    """
    now = kernels.level()
    if now == "off":
        return walking_twin.aim(lens, rows, weights)
    return walking_native.aim(now, lens, rows, weights)


def search(
    searched: SearchedGraph,
    queries: Doubles,
    ef: int,
    kept: int,
    k: int,
    allowed: NDArray[np.bool_] | None = None,
) -> Answer:
    """The ``k`` best of the rows that walks towards queries meet; of equal ones the lower row wins.

    Args:
        searched: where to walk, and what with.
        queries: ``Float64[queries, dim]``, entries of a row side by side.
        ef: how many rows a walk keeps in view, at least 1.
        kept: how many of those it meets are scored, at least ``k``.
        k: at least 1.
        allowed: ``Bool[rows]``: rows that may be given.
    """
    now = kernels.level()
    if now == "off":
        return walking_twin.search(searched, queries, ef, kept, k, allowed)
    return walking_native.search(now, searched, queries, ef, kept, k, allowed)


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


def rank_coded(
    searched: SearchedGraph, residuals: Residuals, queries: Doubles, candidates: Links, k: int
) -> tuple[Ints, Doubles]:
    """The same by codes and residuals; by numpy alone, as only what a filter leaves of a walk is ranked so.

    Args:
        searched: where the candidates were met.
        residuals: what its codes leave out.
        queries: ``Float64[queries, dim]``, as they are asked.
        candidates: ``Int32[queries, length]``, -1 behind the last of each.
        k: at least 1.
    """
    return walking_twin.rank_coded(searched, residuals, queries, candidates, k)
