"""Graph search in numpy: the same results as the compiled kernels, slower."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nestling.kernels.graph.layout import (
    Answer,
    CodedGraph,
    EncodedQueries,
    Links,
    QueryEncoder,
    Residuals,
    SearchedGraph,
    WholeRows,
)
from nestling.kernels.scans.layout import Bytes, Doubles, Floats, Ints, StoredRows, unpack_rows
from nestling.kernels.scans.numpy import score as score_rows

_ENTRIES = 2
_LARGEST = np.float32(127)
_SMALLEST_NORM = 1e-12
_TINY, _SMALL = np.finfo(np.float64).tiny, np.finfo(np.float32).tiny
_Key = tuple[float, int]  # the estimate with its sign changed, and the row


def encode(encoder: QueryEncoder, rows: Doubles, weights: Doubles) -> EncodedQueries:
    """Encode queries that are centred already.

    Products and sums are rounded one by one and in order, so that every level gives the same codes.

    Args:
        encoder: the rotation.
        rows: ``Float64[queries, entries]``, finite; at most as many entries as the rotation takes.
        weights: ``Float64[queries]``: factors of the biases of rows.
    """
    largest = np.maximum(np.abs(rows).max(axis=1), _TINY)
    units = (rows / largest[:, None]).astype(np.float32)
    rotated = _rotated(encoder, units)
    own, ends = rotated[:, : encoder.width].copy(), 8 if encoder.biased else 4
    own.reshape(len(rows), 4, -1)[:, :, -ends:] = 0
    steps = np.maximum(np.abs(own).max(axis=1), _SMALL) / _LARGEST
    codes = np.rint(own / steps[:, None]).astype(np.int8)
    with np.errstate(over="ignore"):  # beside so large a scale biases do not count
        scales = (steps * largest).astype(np.float32) if encoder.biased else steps
    return EncodedQueries(codes, codes.sum(axis=1, dtype=np.int32), scales, weights.astype(np.float32))


def search(
    searched: SearchedGraph,
    queries: Doubles,
    ef: int,
    kept: int,
    k: int,
    allowed: NDArray[np.bool_] | None = None,
) -> Answer:
    """Encode queries, search the graph, and rank the candidates; of equal scores the lower row wins.

    Args:
        searched: the graph and its vectors.
        queries: ``Float64[queries, dim]``, contiguous rows.
        ef: width of the beam, at least 1.
        kept: number of candidates ranked, at least ``k``.
        k: number of rows to find, at least 1.
        allowed: ``Bool[rows]``: rows that may be found; all by default.
    """
    encoder, norms = searched.encoder, np.linalg.norm(queries, axis=1)
    usable = np.isfinite(queries).all(axis=1) & ~(encoder.cosine & (norms <= _SMALLEST_NORM))
    if not usable.all():
        none = np.full((len(queries), k), -1)
        return Answer(none, none.astype(np.float64), 0, int(np.argmin(usable)))
    direct = queries / norms[:, None] if encoder.cosine else queries
    centred = encoder.centred(direct)
    met = beam_search(searched.graph, encode(encoder, centred.rows, centred.weights), ef, kept, allowed)
    if isinstance(searched.vectors, Residuals):
        indices, scores = rank_coded(searched, searched.vectors, queries, met, k)
    else:
        indices, scores = rank(searched.vectors, direct, met, k)
    return Answer(indices, scores, int((indices[:, -1] < 0).sum()))


def beam_search(
    graph: CodedGraph, queries: EncodedQueries, ef: int, kept: int, allowed: NDArray[np.bool_] | None = None
) -> Links:
    """Candidates of each query by beam search, best estimate first: ``Int32[queries, kept]``, padded with -1.

    Each step expands the best row not expanded yet, until the ``ef`` best are expanded (greedy search:
    Subramanya et al., DiskANN, 2019, algorithm 1).

    Args:
        graph: codes and links.
        queries: as :func:`encode` gives them.
        ef: width of the beam, at least 1.
        kept: number of candidates, at least 1; without ``allowed`` no more than ``ef`` are found.
        allowed: ``Bool[rows]``: rows that may be candidates. The search passes through all rows.
    """
    found = np.full((len(queries.codes), kept), -1, np.int32)
    for number, row in enumerate(found):
        met = _met_rows(graph, queries, number, ef, kept, allowed)[:kept]
        row[: len(met)] = met
    return found


def grow(
    graph: CodedGraph, whole: WholeRows, queries: EncodedQueries, rows: Links, ef: int, alpha: float
) -> None:
    """Choose the links of new rows among candidates of a beam search. Threads may divide the new rows.

    A candidate is left out if a nearer one that was chosen is ``alpha`` times nearer to it than the row
    (in squared distances; DiskANN, algorithm 2).

    Args:
        graph: the rows so far; the links of the new rows are written.
        whole: 8-bit codes of all rows.
        queries: the new rows, encoded.
        rows: ``Int32[queries]``: the new rows.
        ef: width of the beam.
        alpha: at least 1; larger values leave fewer candidates out.
    """
    for number, row in enumerate(rows):
        met = np.array(_met_rows(graph, queries, number, ef, 0, None), np.int32)
        _choose(graph, whole, int(row), met, graph.links.shape[1], np.float32(alpha))


def link(graph: CodedGraph, whole: WholeRows, rows: Links, alpha: float) -> None:
    """Add the reverse of the links of new rows, in the order given; full rows choose their links again."""
    degree = graph.links.shape[1]
    for row in rows:
        for to in graph.links[row][graph.links[row] >= 0]:
            links = graph.links[to]
            count = int((links >= 0).sum())
            if count < degree:
                links[count] = row
            else:
                candidates = np.append(links, row).astype(np.int32)
                _choose(graph, whole, int(to), candidates, degree - degree // 8, np.float32(alpha))


def rank(vectors: StoredRows, queries: Doubles, candidates: Links, k: int) -> tuple[Ints, Doubles]:
    """The ``k`` best candidates of every query by exact scores; of equal ones the lower row wins.

    Args:
        vectors: vectors that scores are computed from.
        queries: ``Float64[queries, dim]``.
        candidates: ``Int32[queries, length]``, -1 behind the last of each.
        k: at least 1.

    Returns:
        ``Int64[queries, k]`` and ``Float64[queries, k]``; -1 and nan where there are fewer.
    """
    return _rank(candidates, k, lambda number, rows: score_rows(vectors, queries[number], rows))


def _rank(candidates: Links, k: int, score: Callable[[int, Ints], Doubles]) -> tuple[Ints, Doubles]:
    indices, scores = np.full((len(candidates), k), -1, np.int64), np.full((len(candidates), k), np.nan)
    for number, each in enumerate(candidates):
        rows = each[each >= 0].astype(np.int64)
        found = score(number, rows) if len(rows) else np.empty(0)
        order = np.lexsort((rows, -found))[:k]
        indices[number, : len(order)], scores[number, : len(order)] = rows[order], found[order]
    return indices, scores


def rank_coded(
    searched: SearchedGraph, residuals: Residuals, queries: Doubles, candidates: Links, k: int
) -> tuple[Ints, Doubles]:
    """The same by codes and residuals; in numpy only, as it serves filtered searches alone.

    Args:
        searched: the graph that was searched, with its encoder.
        residuals: the differences to the coded vectors.
        queries: ``Float64[queries, dim]``, as they are asked.
        candidates: ``Int32[queries, length]``, -1 behind the last of each.
        k: at least 1.
    """
    graph, encoder = searched.graph, searched.encoder
    direct = queries / np.linalg.norm(queries, axis=1, keepdims=True) if encoder.cosine else queries
    centred, weights, factors = encoder.centred(direct)
    largest = np.maximum(np.abs(centred).max(axis=1, keepdims=True), _TINY)
    rotated = _rotated(encoder, (centred / largest).astype(np.float32)) * largest
    squares, ends = np.square(centred).sum(axis=1), 8 if encoder.biased else 4
    unit = 1 if encoder.cosine else encoder.scale

    def score(number: int, rows: Ints) -> Doubles:
        levels = 2 * unpack_rows(graph.codes[rows]).astype(np.float64).reshape(len(rows), 4, -1) - 3
        levels[:, :, -ends:] = 0
        coded = levels.reshape(len(rows), -1) @ rotated[number, : encoder.width]
        bias, factor = np.ascontiguousarray(graph.codes[rows, -8:]).view(np.float32).astype(np.float64).T
        product = factor * coded + residuals.steps[rows] * (residuals.values[rows] @ rotated[number])
        if encoder.biased:
            product = product + weights[number] * bias
        if encoder.biased and not encoder.products:
            return np.asarray((2 * product - squares[number]) / encoder.scale**2)
        return np.asarray((product / factors[number] + direct[number] @ encoder.mean) / unit)

    return _rank(candidates, k, score)


def _rotated(encoder: QueryEncoder, units: Floats) -> Floats:
    """Sums in the order of the entries, each rounded as it comes."""
    rotated = np.zeros((len(units), encoder.basis.shape[1]), np.float32)
    for entry, row in zip(units.T, encoder.basis[: units.shape[1]], strict=True):
        rotated += entry[:, None] * row
    return rotated


def _estimates(graph: CodedGraph, codes: Bytes, queries: EncodedQueries, number: int) -> list[float]:
    levels = unpack_rows(codes).astype(np.int32)
    steps = 2 * (levels @ queries.codes[number].astype(np.int32)) - 3 * queries.sums[number]
    numbers = np.ascontiguousarray(codes[:, -8:]).view(np.float32)
    found: Floats = steps.astype(np.float32) * queries.scales[number] * numbers[:, 1]
    return [
        float(each) for each in (found + queries.weights[number] * numbers[:, 0] if graph.biased else found)
    ]


def _met_rows(
    graph: CodedGraph,
    queries: EncodedQueries,
    number: int,
    ef: int,
    kept: int,
    allowed: NDArray[np.bool_] | None,
) -> list[int]:
    """Candidates of one query: the ``ef`` best, or the ``kept`` best that are allowed."""
    hubs = zip(_estimates(graph, graph.hub_codes, queries, number), graph.hubs.tolist(), strict=True)
    pool: list[_Key] = sorted((-estimate, row) for estimate, row in hubs)[: min(_ENTRIES, ef)]
    met = list(pool)
    seen, followed = {row for _, row in pool}, set[int]()
    while ahead := [row for _, row in pool if row not in followed]:
        followed.add(ahead[0])
        new = [row for row in graph.links[ahead[0]].tolist() if row >= 0 and row not in seen]
        seen.update(new)
        if new:
            for estimate, row in zip(_estimates(graph, graph.codes[new], queries, number), new, strict=True):
                insort(pool, (-estimate, row))
                met.append((-estimate, row))
            del pool[ef:]
    if allowed is None:
        return [row for _, row in pool]
    return [row for _, row in sorted(met) if allowed[row]][:kept]


def _gaps(whole: WholeRows, row: int, others: Links) -> Floats:
    """Squared distances of a row from others."""
    products = whole.values[others].astype(np.int32) @ whole.values[row].astype(np.int32)
    twice = np.float32(2) * (whole.scales[others] * whole.scales[row]) * products.astype(np.float32)
    return np.asarray(np.maximum(whole.norms[others] + whole.norms[row] - twice, np.float32(0)))


def _choose(
    graph: CodedGraph, whole: WholeRows, row: int, candidates: Links, most: int, alpha: np.float32
) -> None:
    gaps = _gaps(whole, row, candidates)
    chosen: list[int] = []
    for place in np.lexsort((candidates, gaps)):
        if len(chosen) == most:
            break
        between = _gaps(whole, int(candidates[place]), np.array(chosen, np.int32))
        if not (alpha * between < gaps[place]).any():
            chosen.append(int(candidates[place]))
    graph.links[row] = -1
    graph.links[row, : len(chosen)] = chosen
