"""The stages of one plan at one size, over arrays that were built: probe, scan, re-order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, cut
from nestling.errors import ArtifactError
from nestling.search.engine.building import code_of_store
from nestling.search.engine.codes import Code
from nestling.search.engine.graph_stage import WalkScanner
from nestling.search.engine.hnsw import Graph
from nestling.search.engine.rerank import Reranker, fetch_codes, fetch_vectors, moved_rows
from nestling.search.engine.scanners import FlatScanner, GraphScanner, ListScanner, Scanner
from nestling.search.exact.faiss_arrays import faiss, faiss_threads
from nestling.search.exact.filters import Allowed
from nestling.search.exact.some_rows import SomeRows, stored_rows
from nestling.search.exact.space import Floats, Ints, Space
from nestling.search.graph.equal_rows import MORE_NODES, Equal
from nestling.search.graph.scan import GraphScan
from nestling.search.plan.plan import Plan, Point
from nestling.storage.resumable import Arrays

# Slices of unit vectors are found by distance and then put in order by their angle, which differs little.
_TIMES_MORE_SLICES, _MORE_SLICES = 2, 16


def cut_plan(plan: Plan, dim: int) -> Plan:
    """``plan`` with no stage that reads more than ``dim`` entries; it has as many stages as before.

    A code that mixes all entries of its prefix stays as it is, and so do the lists before it.
    """

    def cut(stage: Any) -> Any:
        return replace(stage, dim=min(int(stage.dim), dim))

    coarse = None if plan.coarse is None else cut(plan.coarse)
    return replace(plan, coarse=coarse, scan=cut(plan.scan), reranks=tuple(map(cut, plan.reranks)))


class Pipeline:
    """What answers queries at one size; it is only read, so that threads may share it.

    Args:
        plan: cut to the size, with sizes as numbers.
        built: the plan that the arrays were built for.
        arrays: what was built.
        vectors: ``Float[rows, at least the size]``.
        space: how they are compared.
    """

    def __init__(self, plan: Plan, built: Plan, arrays: Arrays, vectors: NDArray[Any], space: Space) -> None:
        self.plan, self._vectors, self._space = plan, vectors, space
        self._rerankers = _rerankers(plan, built, arrays, vectors, space)
        self._by_angle: Reranker | None = None
        self._ranked: GraphScan | None = None
        self._code: Code | None = None
        self._equal = Equal(np.array(arrays["equal.first"])) if "equal.first" in arrays else None
        self._some_rows = SomeRows(vectors, plan.answer_dim, space)
        self._in_full = Reranker(space, plan.answer_dim, fetch_vectors(vectors, plan.answer_dim))
        if plan.scan.code == "graph":
            self._scanner: Scanner = (walked := WalkScanner(plan, built, arrays, vectors, space))
            stored = self._rerankers[0].stored
            is_moved = self._rerankers[0].origin is not None
            if plan.reranks[0].dim == plan.scan.dim and stored is not None and not is_moved:
                del self._rerankers[0]
                self._ranked = walked.ranked(stored, arrays, None if self._rerankers else self._equal)
                self._equal = self._equal if self._rerankers else None
            return
        codes, code = arrays["codes"], Code.from_parts(built.scan, space, group(arrays, "scan"))
        if codes.shape[1:] != (code.trained.sa_code_size(),):
            raise ArtifactError(f"codes of shape {codes.shape} are not those of {built.scan}; build it again")
        self._code = code = code.cut(int(plan.scan.dim or 0))
        if code.scan.code == "flat" and code.dim < int(built.scan.dim or 0):
            codes = code.slices(codes)  # faiss reads floats only as long as they are
        self._scanner = _scanner(plan, code, codes, arrays, space)
        if code.is_sliced and not self._rerankers:
            fetch = fetch_codes(code, codes, self._scanner.positions)
            self._by_angle = Reranker(space, code.dim, fetch)
        elif space.is_normalised and space.is_rising and code.scan.code == "flat" and not self._rerankers:
            # Rounding to length one costs distances of near duplicates their last digits.
            self._by_angle = Reranker(space, code.dim, fetch_vectors(vectors, code.dim))

    @property
    def whole(self) -> GraphScan | None:
        """What answers queries of full size without a filter in one call, where there is such a thing."""
        reads_all = self.plan.scan.dim == self._vectors.shape[1]
        return self._ranked if reads_all and not self._rerankers else None

    def search(
        self, queries: Floats, k: int, point: Point, allowed: Allowed | None, workers: int | None
    ) -> tuple[Ints, Floats]:
        """Rows ``Int[queries, k]``, -1 where there are fewer, and their scores."""
        with faiss_threads(workers):
            if allowed is not None and self._is_few(allowed, k, point):
                return self._some_rows.best(queries, k, allowed.rows())
            found, scores = self._search_groups(queries, k, point, allowed)
            self._fill(queries, found, scores, allowed)
            return found, scores

    def _is_few(self, allowed: Allowed, k: int, point: Point) -> bool:
        """Whether comparing all allowed rows reads less than a search that must find enough of them."""
        if allowed.count <= max((k, *point.shortlists)):
            return True
        rows, full = self._vectors.shape
        bytes_read = _bytes_read(self.plan, rows, full, point)
        if self.plan.coarse is not None or self.plan.is_walked:
            bytes_read /= allowed.share
        return 4 * self.plan.answer_dim * allowed.count <= bytes_read

    def _search_groups(
        self, queries: Floats, k: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """Of rows that are equal all stages see one alone, and the others follow in the end."""
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
        rows = len(self._vectors)
        if self._by_angle is not None:
            wanted = min(rows, _TIMES_MORE_SLICES * k + _MORE_SLICES)
            found, _ = self._scanner.search(queries, max(wanted, k), k, point, allowed)
            return self._by_angle.order(queries, found, k)
        lengths = [*(max(k, min(length, rows)) for length in point.shortlists), k]
        if self._ranked is not None:
            found, scores = self._walk(self._ranked, queries, lengths[0], lengths[1], point, allowed)
            del lengths[0]
        else:
            least = k if allowed is None else lengths[0]
            found, distances = self._scanner.search(queries, lengths[0], least, point, allowed)
            scores = self._scores(queries, distances)
        for reranker, length in zip(self._rerankers, lengths[1:], strict=True):
            found, scores = reranker.order(queries, found, length)
        return found, scores

    def _scores(self, queries: Floats, distances: Floats) -> Floats:
        """Of rows as their codes tell them; the stages that follow have scores of their own."""
        if self._code is None or self._rerankers:
            return self._space.scores(distances)
        return self._code.scores(self._space.prefix(queries, self._code.dim, "queries"), distances)

    def _walk(
        self,
        ranked: GraphScan,
        queries: Floats,
        shortlist: int,
        k: int,
        point: Point,
        allowed: Allowed | None,
    ) -> tuple[Ints, Floats]:
        """The walk and the first re-ordering in one call."""
        rows = len(self._vectors)
        found = ranked.search(
            cut(queries, int(self.plan.scan.dim or 0), RAW),
            min(k, rows),
            ef=point.ef or 1,
            shortlist=min(shortlist, rows),
            allowed=None if allowed is None else allowed.mask,
            workers=faiss.omp_get_max_threads(),
        )
        if k <= rows:
            return found.indices, found.scores
        more = ((0, 0), (0, k - rows))
        return np.pad(found.indices, more, constant_values=-1), np.pad(found.scores, more)

    def _fill(self, queries: Floats, found: Ints, scores: Floats, allowed: Allowed | None) -> None:
        """Look through all rows for queries whose walk met fewer than there are to be found."""
        possible = len(self._vectors) if allowed is None else allowed.count
        short = np.flatnonzero(found[:, min(found.shape[1], possible) - 1] < 0)
        if len(short):
            rows = np.arange(possible) if allowed is None else allowed.rows()
            found[short], scores[short] = self._some_rows.best(queries[short], found.shape[1], rows)


@lru_cache(256)  # the same for all queries at a point, and it takes as long as a part of a search
def _bytes_read(plan: Plan, rows: int, full: int, point: Point) -> float:
    return plan.cost(rows, full, point).bytes_read


def group(arrays: Arrays, name: str) -> Arrays:
    """The arrays called ``name.key``, by key."""
    return {key.removeprefix(f"{name}."): part for key, part in arrays.items() if key.startswith(f"{name}.")}


def _scanner(plan: Plan, code: Code, codes: Any, arrays: Arrays, space: Space) -> Scanner:
    coarse = plan.coarse
    if coarse is None:
        return FlatScanner(code, codes)
    if coarse.kind == "hnsw":
        return GraphScanner(code, codes, Graph.from_parts(coarse.count, group(arrays, "graph")))
    centroids = cut_centroids(arrays["coarse.centroids"], int(coarse.dim or 0), space)
    return ListScanner(code, codes, arrays["rows"], arrays["starts"], centroids)


def cut_centroids(centroids: NDArray[Any], dim: int, space: Space) -> Floats:
    """Centroids of a shorter prefix; where vectors are scaled, their prefixes are too."""
    if dim == centroids.shape[1]:
        return np.asarray(centroids, np.float32)
    return space.scaled(np.asarray(cut(centroids, dim, RAW), np.float32))


def _rerankers(
    plan: Plan, built: Plan, arrays: Arrays, vectors: NDArray[Any], space: Space
) -> list[Reranker]:
    found = []
    for number, (stage, whole) in enumerate(zip(plan.reranks, built.reranks, strict=True)):
        dim = int(stage.dim or 0)
        fetch: Callable[[Ints], Floats] = fetch_vectors(vectors, dim)
        values: NDArray[Any] | None = cut(vectors, dim, RAW)
        if f"copies{number}" in arrays:
            kind = code_of_store(stage.store, int(whole.dim or 0))
            code = Code.from_parts(kind, space, group(arrays, f"store{number}")).cut(dim)
            copies = arrays[f"copies{number}"]
            fetch = fetch_codes(code, copies)
            if code.origin is not None:
                found.append(Reranker(space, dim, fetch, moved_rows(code, copies, space), code.origin))
                continue
            values = cut(copies.view(np.float16), dim, RAW) if stage.store == "fp16" else None
        norms = arrays.get(f"norms{number}") if stage.dim == whole.dim else None
        stored = None if values is None else stored_rows(values, space, norms)
        found.append(Reranker(space, dim, fetch, stored))
    return found
