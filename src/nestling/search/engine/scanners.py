"""The stage that compares codes: of all rows, of some inverted lists, or along a graph."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np

from nestling.search.engine.codes import Code
from nestling.search.engine.hnsw import Graph
from nestling.search.exact.faiss_arrays import Codes, faiss
from nestling.search.exact.filters import Allowed, keep_allowed, length_to_fetch
from nestling.search.exact.space import Floats, Ints, Space
from nestling.search.plan.plan import Point

# A filter is far from a query if less than this share of what it allows on average is allowed nearby.
_FAR, _TIMES_MORE_FAR = 1 / 2, 8


class Scanner(Protocol):
    """Finds the rows whose codes are nearest. All state is read only, so that threads may share it."""

    def search(
        self, queries: Floats, k: int, least: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """Rows ``Int[queries, k]``, -1 where there are fewer, and what faiss says of their distance.

        ``least`` of them have to be found, if so many exist and are allowed: where parts are scanned they
        hold no fewer.
        """
        ...

    def positions(self, rows: Ints) -> Ints:
        """Where the codes of these rows stand."""
        ...


class FlatScanner:
    """Compares the codes of all rows.

    Args:
        code: what the codes mean.
        codes: ``UInt8[rows, size]``.
    """

    def __init__(self, code: Code, codes: Codes) -> None:
        self._code, self._codes, self._index = code, codes, code.flat(codes)
        # faiss takes a filter only where it compares row by row.
        self._takes_filters = isinstance(self._index, (faiss.IndexFlat, faiss.IndexScalarQuantizer))

    def search(
        self, queries: Floats, k: int, least: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """See :class:`Scanner`."""
        asked = self._code.query(self._code.space.prefix(queries, self._code.dim, "queries"))
        if allowed is None:
            return _swap(self._index.search(asked, k))
        if self._takes_filters:
            return _swap(self._index.search(asked, k, params=faiss.SearchParameters(sel=allowed.selector)))
        fetched = length_to_fetch(k, allowed.share, len(self._codes))
        while True:
            rows, distances = _swap(self._index.search(asked, fetched))
            kept, places = keep_allowed(rows, allowed.mask, k, 0)
            if fetched == len(self._codes) or kept[:, : min(k, allowed.count)].min() >= 0:
                return _wide(kept, np.take_along_axis(distances, places, 1), k)
            fetched = min(2 * fetched, len(self._codes))

    def positions(self, rows: Ints) -> Ints:
        """See :class:`Scanner`."""
        return rows


class ListScanner:
    """Compares the codes of the rows whose inverted lists are nearest to the query.

    Args:
        code: what the codes mean.
        codes: ``UInt8[rows, size]``, list by list.
        rows: the number of the row of each code.
        starts: where each list begins, and the end of the last.
        centroids: ``Float[lists, dim]``, of the prefixes that were clustered.
    """

    def __init__(self, code: Code, codes: Codes, rows: Ints, starts: Ints, centroids: Floats) -> None:
        self._code, self._rows, self._starts = code, rows, starts
        self._centroids, self._sizes = np.ascontiguousarray(centroids), np.diff(starts)
        self._index, self._kept_alive = code.lists(codes, rows, starts)

    def search(
        self, queries: Floats, k: int, least: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """See :class:`Scanner`; of lists that hold too few rows more are read, the nearest first.

        Where few rows near a query are allowed, its neighbours lie far away, spread over more lists; then
        several times as many are compared as without a filter.
        """
        space = self._code.space
        asked = self._code.query(space.prefix(queries, self._code.dim, "queries"))
        coarse = space.prefix(queries, self._centroids.shape[1], "queries")
        nprobe = min(point.nprobe or 1, len(self._centroids))
        nearness, lists = self._probe(coarse, nprobe)
        near = self._sizes[lists].sum(axis=1) if allowed is None else self._allowed_in(lists, allowed)
        wanted = self._wanted(lists, near, least, allowed)
        few = np.flatnonzero(near < wanted)
        if not len(few):
            return self._scan(asked, nearness, lists, k, allowed)
        sizes = self._sizes if allowed is None else self._allowed_sizes(allowed)
        wanted = np.minimum(wanted, int(sizes.sum()))
        every_nearness, every_list = self._probe(coarse[few], len(self._centroids))
        held = np.cumsum(sizes[every_list], axis=1)
        read = np.maximum((held < wanted[few, None]).sum(axis=1) + 1, nprobe)
        more = ((0, 0), (0, int(read.max()) - nprobe))
        nearness, lists = np.pad(nearness, more), np.pad(lists, more, constant_values=-1)
        width = lists.shape[1]
        nearness[few] = every_nearness[:, :width]
        is_read = (np.arange(width) < read[:, None]) & (sizes[every_list[:, :width]] > 0)
        lists[few] = np.where(is_read, every_list[:, :width], -1)
        return self._scan(asked, nearness, lists, k, allowed)

    def _wanted(self, lists: Ints, near: Ints, least: int, allowed: Allowed | None) -> Ints:
        """How many rows the lists that are read have to hold, if the nearest of them hold so many."""
        wanted = np.full(len(lists), least)
        if allowed is not None:
            compared = lists.shape[1] * len(self._rows) // len(self._sizes)
            is_far = near < _FAR * allowed.share * self._sizes[lists].sum(axis=1)
            wanted[is_far] = max(least, _TIMES_MORE_FAR * compared)
        return wanted

    def _allowed_in(self, lists: Ints, allowed: Allowed) -> Ints:
        """How many rows of each query's lists may be found; where those are few, all others are not read."""
        lengths = self._sizes[lists]
        if lengths.sum() > len(self._rows):
            return np.asarray(self._allowed_sizes(allowed)[lists].sum(axis=1))
        each, until = lengths.ravel(), np.cumsum(lengths)
        places = np.arange(until[-1]) + np.repeat(self._starts[lists.ravel()] - until + each, each)
        counted = np.concatenate([[0], np.cumsum(allowed.mask[self._rows[places]])])
        ends = until[lists.shape[1] - 1 :: lists.shape[1]]
        return np.asarray(np.diff(counted[ends], prepend=0))

    def _allowed_sizes(self, allowed: Allowed) -> Ints:
        """How many rows of each list may be found."""
        until = np.cumsum(allowed.mask[self._rows], dtype=np.int64)
        return np.diff(np.where(self._starts > 0, until[self._starts - 1], 0))

    def _probe(self, coarse: Floats, nprobe: int) -> tuple[Floats, Ints]:
        """The nearest lists."""
        nearness, lists = faiss.knn(coarse, self._centroids, nprobe, metric=_probing_metric(self._code.space))
        return nearness, lists

    def _scan(
        self, asked: Floats, nearness: Floats, lists: Ints, k: int, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """Scan given lists, -1 is none; the parameters travel with the call, nothing in the index is set."""
        rows = np.empty((len(asked), k), np.int64)
        distances = np.empty((len(asked), k), np.float32)
        parameters = faiss.SearchParametersIVF(
            nprobe=lists.shape[1], sel=None if allowed is None else allowed.selector
        )
        pointers = [faiss.swig_ptr(each) for each in (lists, nearness, distances, rows)]
        self._index.search_preassigned_c(len(asked), faiss.swig_ptr(asked), k, *pointers, False, parameters)
        return rows, distances

    def positions(self, rows: Ints) -> Ints:
        """See :class:`Scanner`."""
        return np.where(rows < 0, -1, self._inverse[rows])

    @cached_property
    def _inverse(self) -> Ints:
        inverse = np.empty_like(self._rows)
        inverse[self._rows] = np.arange(len(self._rows))
        return inverse


class GraphScanner:
    """Walks a graph of neighbours, which may be that of another prefix, comparing codes on the way.

    Args:
        code: what the codes mean.
        codes: ``UInt8[rows, size]``.
        graph: over the same rows.
    """

    def __init__(self, code: Code, codes: Codes, graph: Graph) -> None:
        self._code, self._graph = code, graph
        self._codes = codes
        self._storage = code.flat(codes, is_packed=False)
        self._index = graph.walker(self._storage)

    def search(
        self, queries: Floats, k: int, least: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """See :class:`Scanner`; with a filter the walk keeps so many more rows in view as are not allowed.

        Where few of those are allowed, the filter lies far from the query, and no rows are given.
        """
        asked = self._code.query(self._code.space.prefix(queries, self._code.dim, "queries"))
        ef, fetched = max(point.ef or 1, k), k
        if allowed is not None:
            fetched = max(int(ef / allowed.share), length_to_fetch(k, allowed.share, len(self._codes)))
            ef = fetched = min(fetched, len(self._codes))
        parameters = faiss.SearchParametersHNSW(efSearch=min(ef, len(self._codes)))
        rows, distances = _swap(self._index.search(asked, fetched, params=parameters))
        if allowed is None:
            return rows, distances
        kept, places = keep_allowed(rows, allowed.mask, k, min(least, allowed.count))
        return _wide(kept, np.take_along_axis(distances, places, 1), k)

    def positions(self, rows: Ints) -> Ints:
        """See :class:`Scanner`."""
        return rows


def _probing_metric(space: Space) -> int:
    """Lists are clustered by distance; for inner products those are read whose mean has the largest."""
    is_dot = space.metric == "dot" and not space.is_normalised
    return int(faiss.METRIC_INNER_PRODUCT if is_dot else faiss.METRIC_L2)


def _swap(found: tuple[Floats, Ints]) -> tuple[Ints, Floats]:
    return found[1], found[0]


def _wide(rows: Ints, distances: Floats, k: int) -> tuple[Ints, Floats]:
    """``k`` columns, of which the last hold no rows if there are fewer."""
    missing = ((0, 0), (0, k - rows.shape[1]))
    return np.pad(rows, missing, constant_values=-1), np.pad(distances, missing)
