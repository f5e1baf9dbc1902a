"""Graph-based approximate search over 2-bit codes, one cache line per vector."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling import kernels
from nestling.arguments.paths import home_path
from nestling.cut import CutRule, check_vectors
from nestling.elastic import Cost
from nestling.errors import ArtifactError
from nestling.kernels import graph as graph_kernels
from nestling.kernels.graph import CodedGraph, Residuals, SearchedGraph, WholeRows, aligned
from nestling.process.progress import Progress
from nestling.search.exact.centring import Centring, readable
from nestling.search.exact.filters import keep_allowed, length_to_fetch
from nestling.search.exact.neighbours import Metric, Neighbours
from nestling.search.exact.scores import CLOSE, Comparison
from nestling.search.exact.space import Space
from nestling.search.exact.subset import look_through
from nestling.search.exact.threads import count_workers
from nestling.search.graph.codec import Codec
from nestling.search.graph.equal_rows import MORE_NODES, Equal, Members, find_equal
from nestling.search.graph.growth import (
    batches,
    begun_at,
    begun_graph,
    linking_order,
    share_out,
    shares,
    usual_view,
)
from nestling.search.graph.requests import Rerank, check_options, check_request, in_doubles, refuse_query
from nestling.storage.artifact import read_folder, read_manifest, write_folder
from nestling.storage.npy import read_arrays, write_array

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Links = NDArray[np.int32]

_KIND = "graph-scan"
_ALPHA = 1.15
# Estimates are good enough that more rows than these are hardly ever among the k best.
_SCORED, _SCORED_MORE = 40, 6
# Below this share of rows allowed, reading their vectors costs less than searching past all the others.
_FEW = 1 / 10


@dataclass(frozen=True)
class _Settings:
    metric: Metric
    space: str
    scale: float
    longest: float
    coded: int
    lines: int
    moved: bool = False


class GraphScan:
    """Approximate nearest neighbours: beam search over a graph by 2-bit codes, then exact scores.

    The graph has one layer (Vamana: Subramanya et al., DiskANN, 2019). Beam search compares codes of the
    principal axes of the vectors (RaBitQ: Gao and Long, 2024), mostly 64 bytes per row, one cache line. The
    best rows are then scored by their vectors, in double precision. The same vectors and seed give the same
    graph with any number of threads. Searching changes nothing: any number of threads may search at once.
    """

    def __init__(
        self,
        vectors: NDArray[Any],
        centring: Centring,
        codec: Codec,
        graph: CodedGraph,
        metric: Metric,
        residuals: Residuals | None = None,
        equal: Equal | None = None,
    ) -> None:
        self._vectors, self._centring, self._codec = vectors, centring, codec
        self._graph, self._metric = graph, metric
        self._encoder = codec.query_encoder(centring, whole=residuals is not None)
        self._residuals, self._equal = residuals, equal
        self._stored = kernels.StoredRows(vectors, centring.inverse_norms, centring.metric == "euclidean")
        self._searched = SearchedGraph(graph, self._encoder, residuals or self._stored)

    @classmethod
    def build(
        cls,
        vectors: Any,
        *,
        rule: CutRule = CutRule(),
        metric: Metric = "dot",
        links: int = 64,
        ef: int | None = None,
        rerank: Rerank = "full",
        seed: int = 0,
        workers: int | None = None,
    ) -> Self:
        """Code the vectors and link each with near ones.

        Args:
            vectors: ``Float[rows, dim]``, kept and read again when searching (float32 or float16, which
                may be a memory map; anything else is copied as float32).
            rule: with ``l2`` after the cut similarities are cosines. The step before a cut must have
                been done to vectors and queries.
            metric: ``"dot"`` or ``"euclidean"``.
            links: of a row, 8 to 1024.
            ef: beam width while links are searched: a wider beam builds a better graph, slower. By
                default 100 up to 200,000 rows, then more.
            rerank: scores of the rows in the beam: ``"full"`` reads the vectors, ``"int8"`` keeps
                8-bit residuals of the codes beside them, so that the vectors may stay on a disk.
            seed: of the rotation and of the order in which rows are linked.
            workers: threads; as many as there are cores by default. The graph is the same.

        Raises:
            DataError: for vectors that cannot be used, or rows of length zero under ``l2`` (named).
            ConfigError: for an unknown metric, a rule with something before the cut, or numbers outside
                their range.
        """
        check_options(rule, metric, links, ef, rerank)
        vectors = readable(check_vectors(vectors))
        centring = Centring.fit(vectors, Space.of(rule, metric).similarity)
        codec = Codec.fit(vectors, centring, seed)
        codes, whole, residuals = codec.code_all(vectors, centring, with_residuals=rerank == "int8")
        every = np.arange(len(vectors))
        equal = Equal(find_equal(lambda rows: centring.centre(vectors, every[rows]), len(vectors), seed))
        order = linking_order(equal, seed)
        graph = begun_graph(codes, links, codec, order)
        made = cls(vectors, centring, codec, graph, metric, residuals, equal if equal.is_grouped else None)
        deque(made.grow(whole, ef or usual_view(len(vectors)), order, workers=workers), maxlen=0)
        return made

    def grow(
        self, whole: WholeRows, ef: int, order: Links, *, workers: int | None = None, linked: int = 0
    ) -> Iterator[int]:
        """Link the rows, and give after each step how many are linked.

        An interrupted build resumes from the links after one of those steps.

        Args:
            whole: 8-bit codes of all rows.
            ef: beam width while links are searched.
            order: in which rows are linked, that of :func:`begun_graph`.
            workers: threads; as many as there are cores by default.
            linked: number of rows linked already.
        """
        workers = count_workers(workers)
        with (
            ThreadPoolExecutor(workers) as pool,
            Progress("linking", len(order), "rows", done=linked) as progress,
        ):
            for start, end in batches(len(order)):
                if end > linked:
                    self._link_some(pool, order, start, end, whole, ef, workers)
                    yield end
                    progress.update(end - max(start, linked))

    def search(
        self,
        queries: Any,
        k: int,
        *,
        ef: int = 100,
        shortlist: int | None = None,
        allowed: NDArray[np.bool_] | None = None,
        workers: int | None = None,
    ) -> Neighbours:
        """About the ``k`` nearest rows of every query.

        All rows are scanned for a query whose beam holds too few, or would hold them all; all allowed rows,
        if those are few. Returns fewer than ``k`` hits only if fewer rows are allowed.

        Args:
            queries: ``Float[queries, dim]``.
            k: 1 to the number of rows. Where fewer are allowed, -1 and nan fill the result.
            ef: beam width, at least 1: a wider beam finds more of the nearest, slower.
            shortlist: number of them to score exactly, ``k`` to ``ef``; by default three quarters, but
                no more than ``6 k + 40``.
            allowed: ``Bool[rows]``: the rows that may be found.
            workers: threads, each with some of the queries; as many as there are cores by default.

        Raises:
            DataError: for queries or a mask that do not fit, or ``k`` outside its range.
            ConfigError: for ``ef`` or ``workers`` below 1, or a shortlist below ``k``.
        """
        check_request(len(self._vectors), k, ef, shortlist, allowed)
        exact = in_doubles(queries, self._encoder.dim)
        beam = max(ef, k, shortlist or 1)
        kept = shortlist or max(k, min(ef * 3 // 4, _SCORED + _SCORED_MORE * k))
        allowed = None if allowed is None else np.ascontiguousarray(allowed)
        share = 1.0 if allowed is None else float(np.count_nonzero(allowed)) / len(allowed)
        if share < _FEW or min(beam, kept) >= len(self._vectors):
            direct = self._centring.direct(check_vectors(exact, "queries"))
            indices, scores = look_through(self._stored, direct, self._rows(allowed), k)
            return self._answer(exact, indices, scores, k)
        members = None if self._equal is None else self._equal.members(allowed)
        find = partial(self._find, exact, k=k, beam=beam, kept=kept, allowed=allowed, members=members)
        found = share_out(find, len(exact), workers)
        indices, scores = (np.concatenate(each) for each in zip(*found, strict=True))
        return self._answer(exact, indices, scores, k)

    def candidates(
        self,
        queries: NDArray[Any],
        kept: int,
        *,
        ef: int = 100,
        allowed: NDArray[np.bool_] | None = None,
        workers: int | None = None,
    ) -> Links:
        """Rows that beam search finds by their codes alone, the most promising first.

        Args:
            queries: ``Float[queries, dim]``, finite.
            kept: number of rows, at least 1.
            ef: beam width; with a filter, of the rows that are allowed.
            allowed: ``Bool[rows]``: the rows that may be found.
            workers: threads, each with some of the queries.

        Returns:
            ``Int32[queries, kept]``, -1 where fewer were found; all there are, unordered, where all fit. A
            query near which fewer than ``kept`` are allowed finds none.
        """
        exact = self._centring.direct(queries)
        if kept >= len(self._vectors):
            rows = self._rows(allowed)
            return np.tile(np.pad(rows, (0, kept - len(rows)), constant_values=-1), (len(exact), 1))
        found = share_out(lambda part: self._candidates(exact[part], kept, ef, allowed), len(exact), workers)
        return np.concatenate(found)

    def cost(self) -> Cost:
        """Bytes of codes, links and residuals beside the vectors; the work of a search depends on ``ef``."""
        graph, rows = self._graph, len(self._vectors)
        size = graph.codes.nbytes + graph.links.nbytes + graph.hub_codes.nbytes + graph.hubs.nbytes
        if self._centring.inverse_norms is not None:
            size += self._centring.inverse_norms.nbytes
        if self._equal is not None:
            size += self._equal.first.nbytes
        if self._residuals is not None:
            size += self._residuals.values.nbytes + self._residuals.steps.nbytes
        return Cost(flops=2 * len(self._codec.basis) ** 2, size_bytes=size, output_bytes=size // rows)

    def save(self, folder: str | Path) -> None:
        """Write codes and links, not the vectors, to a folder.

        Raises:
            ArtifactError: if ``folder`` holds something else.
            StorageError: if writing fails.
        """
        centring, codec = self._centring, self._codec
        shape = (codec.longest, codec.coded, codec.lines, codec.mean is not None)
        settings = asdict(_Settings(self._metric, centring.metric, centring.scale, *shape))
        with write_folder(folder, _KIND, settings=settings) as path:
            for name, array in self._arrays().items():
                write_array(path / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: str | Path, vectors: Any) -> Self:
        """Read what ``save`` wrote; ``vectors`` are those that were linked, and some are compared.

        Raises:
            ArtifactError: if files are missing, altered, malformed, or not of these vectors.
        """
        folder, vectors = home_path(folder), readable(check_vectors(vectors))
        read_folder(folder, _KIND)
        try:
            settings = _Settings(**read_manifest(folder).settings)
            arrays = read_arrays(folder)
            centring = Centring(settings.space, settings.scale, arrays["mean"], arrays.get("norms"))
            shape = (settings.coded, settings.lines, settings.space, settings.longest)
            codec = Codec(arrays["basis"], *shape, centring.mean if settings.moved else None)
            codes = aligned(len(vectors), codec.stride)
            codes[:] = arrays["codes"]
            graph = begun_at(codes, arrays["links"], arrays["hubs"], codec)
            rest = [arrays[name] for name in ("residuals", "residual_steps") if name in arrays]
            residuals = Residuals(*rest) if rest else None
            equal = Equal(arrays["first"]) if "first" in arrays else None
            made = cls(vectors, centring, codec, graph, settings.metric, residuals, equal)
            fits = made._fits()
        except (OSError, ValueError, KeyError, TypeError, EOFError, IndexError) as error:
            raise ArtifactError(f"{folder} does not hold a graph of these vectors: {error}") from error
        if not fits:
            raise ArtifactError(f"{folder} holds a graph of other vectors; give those it was built from")
        return made

    def _arrays(self) -> dict[str, NDArray[Any]]:
        graph, centring = self._graph, self._centring
        arrays: dict[str, NDArray[Any]] = {"codes": graph.codes, "links": graph.links, "hubs": graph.hubs}
        arrays |= {"basis": self._codec.basis, "mean": centring.mean}
        if self._residuals is not None:
            arrays |= {"residuals": self._residuals.values, "residual_steps": self._residuals.steps}
        if self._equal is not None:
            arrays["first"] = self._equal.first
        return arrays if centring.inverse_norms is None else arrays | {"norms": centring.inverse_norms}

    def _fits(self) -> bool:
        """Whether some of the codes are those of the vectors, and all links lead to rows."""
        links, hubs, rest = self._graph.links, self._graph.hubs, self._residuals
        inside = all(each.min() >= -1 and each.max() < len(self._vectors) for each in (links, hubs))
        shape = (len(links), self._encoder.basis.shape[1])
        whole = rest is None or (rest.values.shape == shape and rest.steps.shape == shape[:1])
        grouped = self._equal is None or self._equal.fits(len(links))
        coded = self._codec.fits(self._centring, self._vectors, self._graph.codes)
        return coded and inside and whole and grouped and len(links) == len(self._vectors)

    def _link_some(
        self,
        pool: ThreadPoolExecutor,
        order: Links,
        start: int,
        end: int,
        whole: WholeRows,
        ef: int,
        workers: int,
    ) -> None:
        """Link rows of an order: each looks among those before ``start``."""
        new, graph = order[start:end], self._graph
        if start < len(graph.hubs):
            graph = begun_at(graph.codes, graph.links, order[:start], self._codec)
        parts = [new[part] for part in shares(len(new), workers)]
        list(pool.map(lambda part: self._grow(graph, whole, part, ef), parts))
        graph_kernels.link(graph, whole, new, _ALPHA)

    def _grow(self, graph: CodedGraph, whole: WholeRows, new: Links, ef: int) -> None:
        encoded = graph_kernels.encode(
            self._encoder, *self._codec.towards(self._centring, self._vectors, new)
        )
        graph_kernels.grow(graph, whole, encoded, new, ef, _ALPHA)

    def _find(
        self,
        exact: Doubles,
        rows: slice,
        k: int,
        beam: int,
        kept: int,
        allowed: NDArray[np.bool_] | None,
        members: Members | None,
    ) -> tuple[Ints, Doubles]:
        queries, nodes = exact[rows], k if members is None else k + MORE_NODES
        beam, kept = max(beam, nodes), max(kept, nodes)
        if allowed is None:
            found = graph_kernels.search(self._searched, queries, beam, kept, nodes)
            if found.refused is not None:
                refuse_query(exact, rows.start + found.refused)
            representatives, values = found.indices, found.scores
        else:
            direct = self._centring.direct(check_vectors(queries, "queries"))
            candidates = self._candidates(direct, kept, beam, allowed if members is None else members.reached)
            if self._residuals is None:
                representatives, values = graph_kernels.rank(self._stored, direct, candidates, nodes)
            else:
                representatives, values = graph_kernels.rank_coded(
                    self._searched, self._residuals, queries, candidates, nodes
                )
        indices, scores = representatives[:, :k], values[:, :k]
        if members is not None and members.is_needed(indices):
            candidates = members.expand(representatives, k).astype(np.int32)
            indices, scores = graph_kernels.rank(self._stored, self._centring.direct(queries), candidates, k)
        possible = len(self._vectors) if allowed is None else int(np.count_nonzero(allowed))
        short = np.flatnonzero(indices[:, min(k, possible) - 1] < 0)
        if len(short):
            every, direct = self._rows(allowed), self._centring.direct(queries[short])
            indices[short], scores[short] = look_through(self._stored, direct, every, k)
        return indices, scores

    def _answer(self, queries: Doubles, indices: Ints, scores: Doubles, k: int) -> Neighbours:
        """Scores as results show them; distances of directions that are close by their differences."""
        stored, is_by_angle = self._stored, self._metric == "euclidean" and self._centring.metric == "cosine"
        if self._residuals is not None or not is_by_angle or not (scores > 1 - CLOSE / 2).any():
            return Neighbours(indices, self._centring.shown(scores, self._metric))
        units = queries * (1 / np.linalg.norm(queries, axis=1))[:, None]  # as rows are: to the last bit
        shown = Comparison(True, True).shown(units, stored.values, stored.scale, indices, scores, k)
        return Neighbours(shown[0], shown[1].astype(np.float32))

    def _candidates(self, exact: Doubles, kept: int, ef: int, allowed: NDArray[np.bool_] | None) -> Links:
        rows, beam = len(self._vectors), max(ef, kept)
        centred = self._encoder.centred(exact)
        encoded = graph_kernels.encode(self._encoder, centred.rows, centred.weights)
        if allowed is None:
            return graph_kernels.beam_search(self._graph, encoded, beam, kept, None)
        count = int(np.count_nonzero(allowed))
        beam = min(rows, max(length_to_fetch(kept, count / rows, rows), beam * rows // count))
        found = graph_kernels.beam_search(self._graph, encoded, beam, beam, None)
        found = keep_allowed(found, allowed, kept, min(kept, count))[0]
        return np.pad(found, ((0, 0), (0, kept - found.shape[1])), constant_values=-1)

    def _rows(self, allowed: NDArray[np.bool_] | None) -> Links:
        rows = np.arange(len(self._vectors)) if allowed is None else np.flatnonzero(allowed)
        return rows.astype(np.int32)
