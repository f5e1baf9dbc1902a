"""The stages of a plan at one size, over built arrays: select candidates, scan codes, re-rank."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from nestling.search.exact.faiss_arrays import faiss_threads
from nestling.search.exact.filters import Allowed
from nestling.search.exact.reranker import Reranker, fetch_vectors
from nestling.search.exact.space import Floats, Ints
from nestling.search.exact.subset import SubsetSearch
from nestling.search.graph.equal_rows import MORE_NODES
from nestling.search.plan.plan import Plan, Point
from nestling.search.stages.building import Built, FusedScanner
from nestling.search.stages.nested_code import CodeSubset

# Slices of unit vectors are found by distance and then put in order by their angle, which differs little.
_TIMES_MORE_SLICES, _MORE_SLICES = 2, 16


class Pipeline:
    """Searches at one size; it never changes, so threads may share it.

    Args:
        built: the arrays, and the plan cut to the size.
    """

    def __init__(self, built: Built) -> None:
        plan, space, dim = built.plan, built.space, built.plan.answer_dim
        self.plan, self._vectors = plan, built.vectors
        self._rerankers = [stage.open(built, number) for number, stage in enumerate(plan.reranks)]
        plan.scan.check_cut(built.whole.scan)
        self._scanner = plan.scan.open(built)
        self._equal, self._fused = self._scanner.equal, self._fuse()
        is_coded = built.planes is not None
        self._subset = CodeSubset(built) if is_coded else SubsetSearch(built.vectors, dim, space)
        self._row_bytes = plan.code_bytes if is_coded else 4 * dim
        self._in_full = Reranker(space, dim, fetch_vectors(built.vectors, dim))

    def _fuse(self) -> FusedScanner | None:
        """The scan with the first re-ranking, where both are one call."""
        if not self._rerankers:
            return None
        fused = self._scanner.fuse(self._rerankers[0], is_last=len(self._rerankers) == 1)
        if fused is not None:
            del self._rerankers[0]
            self._equal = fused.equal
        return fused

    @property
    def whole(self) -> FusedScanner | None:
        """A search of full-size queries without a filter in one call, if the stages have one."""
        reads_all = self.plan.scan.dim == self._vectors.shape[1]
        return self._fused if reads_all and not self._rerankers else None

    def search(
        self, queries: Floats, k: int, point: Point, allowed: Allowed | None, workers: int | None
    ) -> tuple[Ints, Floats]:
        """Rows ``Int[queries, k]``, -1 where there are fewer, and their scores."""
        with faiss_threads(workers):
            if allowed is not None and self._is_few(allowed, k, point):
                return self._subset.best(queries, k, allowed.rows())
            found, scores = self._search_groups(queries, k, point, allowed)
            self._fill(queries, found, scores, allowed)
            return found, scores

    def _is_few(self, allowed: Allowed, k: int, point: Point) -> bool:
        """Whether comparing all allowed rows reads less than a search that must find enough of them."""
        if allowed.count <= max((k, *point.shortlists)):
            return True
        rows, full = self._vectors.shape
        bytes_read = _bytes_read(self.plan, rows, full, point)
        if not self.plan.reads_all:
            bytes_read /= allowed.share
        return self._row_bytes * allowed.count <= bytes_read

    def _search_groups(
        self, queries: Floats, k: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """All stages see one of several equal rows; the others are added in the end."""
        if self._equal is None:
            return self._search_codes(queries, k, point, allowed)
        rows = len(self._vectors)
        members = self._equal.members(None if allowed is None else allowed.mask)
        nodes = len(self._equal.nodes)
        reached = None if allowed is None else Allowed(members.reached, rows, nodes)
        found, scores = self._search_codes(queries, k + MORE_NODES, point, reached)
        if not members.is_needed(found):
            return found[:, :k], scores[:, :k]
        return self._in_full.order(queries, members.expand(found, k), k)

    def _search_codes(
        self, queries: Floats, k: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        rows, scanner = len(self._vectors), self._scanner
        if not point.shortlists:
            if scanner.last is None:
                found, distances = scanner.search(queries, k, k, point, allowed)
                return found, scanner.scores(queries, distances)
            wanted = min(rows, _TIMES_MORE_SLICES * k + _MORE_SLICES)
            found, _ = scanner.search(queries, max(wanted, k), k, point, allowed)
            return scanner.last.order(queries, found, k)
        lengths = [*(max(k, min(length, rows)) for length in point.shortlists), k]
        if self._fused is not None:
            found, scores = self._fused.search(queries, lengths[0], lengths[1], point, allowed)
            del lengths[0]
        else:
            least = k if allowed is None else lengths[0]
            found, scores = scanner.search(queries, lengths[0], least, point, allowed)
        for reranker, length in zip(self._rerankers, lengths[1:], strict=True):
            found, scores = reranker.order(queries, found, length)
        return found, scores

    def _fill(self, queries: Floats, found: Ints, scores: Floats, allowed: Allowed | None) -> None:
        """Look through all rows for queries whose search found fewer rows than there are."""
        possible = len(self._vectors) if allowed is None else allowed.count
        short = np.flatnonzero(found[:, min(found.shape[1], possible) - 1] < 0)
        if len(short):
            rows = np.arange(possible) if allowed is None else allowed.rows()
            found[short], scores[short] = self._subset.best(queries[short], found.shape[1], rows)


@lru_cache(256)  # the same for all queries at a point, and it takes as long as a part of a search
def _bytes_read(plan: Plan, rows: int, full: int, point: Point) -> float:
    return plan.cost(rows, full, point).bytes_read
