"""The kernels of :mod:`nestling.kernels.walking` in numpy: slower, the same answers."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nestling.kernels import twin
from nestling.kernels.layout import Bytes, Doubles, Floats, Ints, StoredRows, unpack_rows

if TYPE_CHECKING:
    from nestling.kernels.walking import CodedGraph, Links, Walks, WholeRows

_ENTRIES = 2
_Key = tuple[float, int]  # the estimate with its sign changed, and the row


def walk(graph: CodedGraph, walks: Walks, ef: int, kept: int, allowed: NDArray[np.bool_] | None) -> Links:
    """See :func:`nestling.kernels.walking.walk`."""
    found = np.full((len(walks.codes), kept), -1, np.int32)
    for number, row in enumerate(found):
        met = _walk(graph, walks, number, ef, kept, allowed)[:kept]
        row[: len(met)] = met
    return found


def grow(graph: CodedGraph, whole: WholeRows, walks: Walks, rows: Links, ef: int, alpha: float) -> None:
    """See :func:`nestling.kernels.walking.grow`."""
    for number, row in enumerate(rows):
        met = np.array(_walk(graph, walks, number, ef, 0, None), np.int32)
        _choose(graph, whole, int(row), met, graph.links.shape[1], np.float32(alpha))


def link(graph: CodedGraph, whole: WholeRows, rows: Links, alpha: float) -> None:
    """See :func:`nestling.kernels.walking.link`."""
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
    """See :func:`nestling.kernels.walking.rank`."""
    indices, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.nan)
    for number, each in enumerate(candidates):
        rows = each[each >= 0].astype(np.int64)
        found = twin.score(vectors, queries[number], rows)
        order = np.lexsort((rows, -found))[:k]
        indices[number, : len(order)], scores[number, : len(order)] = rows[order], found[order]
    return indices, scores


def _estimates(graph: CodedGraph, codes: Bytes, walks: Walks, number: int) -> list[float]:
    levels = unpack_rows(codes).astype(np.int32)
    steps = 2 * (levels @ walks.codes[number].astype(np.int32)) - 3 * walks.sums[number]
    numbers = np.ascontiguousarray(codes[:, -8:]).view(np.float32)
    found: Floats = steps.astype(np.float32) * walks.scales[number] * numbers[:, 1]
    return [float(each) for each in (found + numbers[:, 0] if graph.biased else found)]


def _walk(
    graph: CodedGraph, walks: Walks, number: int, ef: int, kept: int, allowed: NDArray[np.bool_] | None
) -> list[int]:
    """The rows that one walk meets: the ``ef`` best, or the ``kept`` best that are allowed."""
    hubs = zip(_estimates(graph, graph.hub_codes, walks, number), graph.hubs.tolist(), strict=True)
    pool: list[_Key] = sorted((-estimate, row) for estimate, row in hubs)[: min(_ENTRIES, ef)]
    met = list(pool)
    seen, followed = {row for _, row in pool}, set[int]()
    while ahead := [row for _, row in pool if row not in followed]:
        followed.add(ahead[0])
        new = [row for row in graph.links[ahead[0]].tolist() if row >= 0 and row not in seen]
        seen.update(new)
        if new:
            for estimate, row in zip(_estimates(graph, graph.codes[new], walks, number), new, strict=True):
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
