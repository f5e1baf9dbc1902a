"""The stage that compares codes: of all rows, of some inverted lists, or along a graph."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import numpy as np

from nestling.search.codes import Code
from nestling.search.filters import Allowed
from nestling.search.graph import Graph
from nestling.search.plan import Point
from nestling.search.space import Floats, Ints, Space
from nestling.search.views import Codes, faiss

_ROWS_MORE = 16
_SHARE_MORE = 1.2


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
        fetched = int(k / allowed.share * _SHARE_MORE) + _ROWS_MORE
        while True:
            fetched = min(fetched, len(self._codes))
            rows, distances = _swap(self._index.search(asked, fetched))
            fits = (rows >= 0) & allowed.mask[rows]
            if fetched == len(self._codes) or fits.sum(axis=1).min() >= min(k, allowed.count):
                return _compact(rows, distances, fits, k)
            fetched *= 2

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
        """See :class:`Scanner`; of lists that hold too few rows more are read, the nearest first."""
        space = self._code.space
        asked = self._code.query(space.prefix(queries, self._code.dim, "queries"))
        coarse = space.prefix(queries, self._centroids.shape[1], "queries")
        nprobe = min(point.nprobe or 1, len(self._centroids))
        sizes = self._sizes if allowed is None else self._allowed_sizes(allowed)
        nearness, lists = self._probe(coarse, nprobe)
        few = np.flatnonzero(sizes[lists].sum(axis=1) < least)
        if not len(few):
            return self._scan(asked, nearness, lists, k, allowed)
        every_nearness, every_list = self._probe(coarse[few], len(self._centroids))
        held = np.cumsum(sizes[every_list], axis=1)
        read = np.maximum((held < min(least, int(sizes.sum()))).sum(axis=1) + 1, nprobe)
        more = ((0, 0), (0, int(read.max()) - nprobe))
        nearness, lists = np.pad(nearness, more), np.pad(lists, more, constant_values=-1)
        width = lists.shape[1]
        nearness[few] = every_nearness[:, :width]
        lists[few] = np.where(np.arange(width) < read[:, None], every_list[:, :width], -1)
        return self._scan(asked, nearness, lists, k, allowed)

    def _allowed_sizes(self, allowed: Allowed) -> Ints:
        """How many rows of each list may be found."""
        until = np.concatenate([[0], np.cumsum(allowed.mask[self._rows])])
        return np.diff(until[self._starts])

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
        """See :class:`Scanner`; with a filter the walk keeps so many more rows in view as are not allowed."""
        asked = self._code.query(self._code.space.prefix(queries, self._code.dim, "queries"))
        ef = max(point.ef or 1, k)
        if allowed is not None:
            ef = int(ef / allowed.share) + 1
        parameters = faiss.SearchParametersHNSW(
            efSearch=min(ef, len(self._codes)), sel=None if allowed is None else allowed.selector
        )
        return _swap(self._index.search(asked, k, params=parameters))

    def positions(self, rows: Ints) -> Ints:
        """See :class:`Scanner`."""
        return rows


def _probing_metric(space: Space) -> int:
    """Lists are clustered by distance; for inner products those are read whose mean has the largest."""
    is_dot = space.metric == "dot" and not space.is_normalised
    return int(faiss.METRIC_INNER_PRODUCT if is_dot else faiss.METRIC_L2)


def _swap(found: tuple[Floats, Ints]) -> tuple[Ints, Floats]:
    return found[1], found[0]


def _compact(rows: Ints, distances: Floats, fits: Any, k: int) -> tuple[Ints, Floats]:
    """The first ``k`` of each row that fit, in order, then -1."""
    order = np.argsort(~fits, axis=1, kind="stable")[:, :k]
    kept = np.where(np.take_along_axis(fits, order, 1), np.take_along_axis(rows, order, 1), -1)
    missing = k - kept.shape[1]
    kept = np.pad(kept, ((0, 0), (0, missing)), constant_values=-1)
    return kept, np.pad(np.take_along_axis(distances, order, 1), ((0, 0), (0, missing)))
