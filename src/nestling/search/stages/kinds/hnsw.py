"""``hnsw32@64``: selects candidates by an HNSW graph of faiss over a prefix."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, cut
from nestling.errors import ConfigError
from nestling.process.progress import watched
from nestling.search.exact.faiss_arrays import Codes, faiss, view
from nestling.search.exact.filters import Allowed, keep_allowed, length_to_fetch
from nestling.search.exact.space import Floats, Ints, Space, read_rows
from nestling.search.graph.equal_rows import Equal
from nestling.search.stages.building import Built, CoarseBuilder, Scanner, Task
from nestling.search.stages.coded_scan import CodedScanner, rows_first, widened
from nestling.search.stages.faiss_codes import Code
from nestling.search.stages.stage import LINK_BYTES, BeamSearch, Coarse, StageCost
from nestling.storage.resumable import Arrays, Checkpoints, ResumableArrays

if TYPE_CHECKING:
    from nestling.search.plan.point import Point

_BEAM_WHILE_BUILDING = 80
_COPIES = "graph-"
Links = NDArray[np.int32]


@dataclass(frozen=True)
class HNSW(BeamSearch, Coarse):
    """A graph of several levels, searched by the codes of the scan.

    Args:
        dim: the prefix whose neighbours are linked; None is the full size.
        links: of a node, at least 2; twice as many on the lowest level.

    Raises:
        ConfigError: for fewer.
    """

    name = "hnsw"
    usual_width = 64

    def __post_init__(self) -> None:
        if self.links < 2:
            raise ConfigError(
                f"{self} is too small; give it at least 2 links to connect the rows, such as hnsw32"
            )

    def cost(self, rows: int, point: Point) -> StageCost:
        """Links of the nodes in the beam lead to the rows that the scan compares."""
        links = 2.0 * self.links * LINK_BYTES
        visited = min(rows, (point.ef or 1) * self.links)
        return StageCost(0.0, (point.ef or 1) * links, rows * links, visited)

    def begin(self, task: Task, journal: ResumableArrays) -> CoarseBuilder:
        """See :class:`~nestling.search.stages.stage.Coarse`."""
        return _GraphBuilder(self, task, journal)

    def lengths(self, built: Built, number: int) -> Mapping[str, int | None]:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        return {"graph.levels": built.rows, "graph.neighbours": None, "graph.entry": 2}

    def check_arrays(self, built: Built, where: str) -> None:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        built.check_equal_rows(where)

    def open(self, built: Built, code: Code, codes: Codes) -> Scanner:
        """See :class:`~nestling.search.stages.stage.Coarse`."""
        graph = HNSWGraph.from_parts(self.links, built.group("graph"))
        return GraphScanner(code, codes, graph, built.equal_rows())

    def extract(self, built: Built, number: int) -> Arrays:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        return built.copied("graph.", "equal.")

    def uncounted_bytes(self, arrays: Arrays, number: int) -> int:
        """The groups of equal rows."""
        return arrays["equal.first"].nbytes if "equal.first" in arrays else 0


class _GraphBuilder(CoarseBuilder):
    """Grows the graph once all rows are coded, of equal rows by one each."""

    def __init__(self, stage: HNSW, task: Task, journal: ResumableArrays) -> None:
        self._stage, self._task, self._journal = stage, task, journal

    def finish(self) -> Arrays:
        """Link the rows; an interrupted build resumes from the last copy of the graph."""
        journal, links = self._journal, self._stage.links
        copies = Checkpoints(journal, _COPIES)
        if "graph." not in journal:
            nodes = self._task.equal_rows(journal).nodes
            last = copies.last()
            begun = None if last is None else HNSWGraph.from_parts(links, last[1])
            finished = self._grow(begun, nodes, copies)
            assert finished is not None  # there is at least one block, in this run or in one before it
            journal.once("graph", finished.renumbered(nodes, self._task.rows).to_parts)
        copies.drop()
        self._task.drop_single_groups(journal)
        return {}

    def _grow(self, begun: HNSWGraph | None, nodes: Ints, copies: Checkpoints) -> HNSWGraph | None:
        """The graph of the rows that are nodes; copies of it are written on the way."""
        task, dim = self._task, self._stage.size

        def read(span: slice) -> Floats:
            if len(nodes) == task.rows:
                return task.prefixes(span, dim)
            return task.space.scaled(read_rows(cut(task.vectors, dim, RAW)[nodes[span]]))  # read before

        copy = None
        shape = (len(nodes), dim, task.block)
        blocks = grow_graph(self._stage.links, task.space, *shape, read, task.seed, begun)
        for copy in watched(blocks, "linking", "blocks", -(-task.rows // task.block)):
            if copies.is_due:
                graph = copy()
                copies.keep(len(graph.levels), graph.to_parts())
        return begun if copy is None else copy()


class GraphScanner(CodedScanner):
    """Searches a graph of neighbours, which may be that of another prefix, by the codes of its rows.

    Args:
        code: decodes and compares the codes.
        codes: ``UInt8[rows, size]``.
        graph: over the same rows.
        equal: groups of equal rows, of which one each is linked.
    """

    def __init__(self, code: Code, codes: Codes, graph: HNSWGraph, equal: Equal | None) -> None:
        super().__init__(code)
        self._graph, self._codes, self.equal = graph, codes, equal
        self._storage = code.flat(codes, is_packed=False)
        self._index = graph.over(self._storage)

    def search(
        self, queries: Floats, k: int, least: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """See :class:`~nestling.search.stages.building.Scanner`.

        With a filter the beam is wider by as many rows as are not allowed. Where few of those it holds are
        allowed, the filter lies far from the query, and no rows are given.
        """
        asked = self.asked(queries)
        ef, fetched = max(point.ef or 1, k), k
        if allowed is not None:
            fetched = max(int(ef / allowed.share), length_to_fetch(k, allowed.share, len(self._codes)))
            ef = fetched = min(fetched, len(self._codes))
        parameters = faiss.SearchParametersHNSW(efSearch=min(ef, len(self._codes)))
        rows, distances = rows_first(self._index.search(asked, fetched, params=parameters))
        if allowed is None:
            return rows, distances
        kept, places = keep_allowed(rows, allowed.mask, k, min(least, allowed.count))
        return widened(kept, np.take_along_axis(distances, places, 1), k)


@dataclass(frozen=True, eq=False)
class HNSWGraph:
    """Links between rows, as plain arrays; nothing in it depends on the codes that are compared along it.

    Attributes:
        links: of a node on level 0 (twice ``links`` of them) and above.
        levels: ``Int[rows]``, the number of levels of each row; 0 of rows that are no nodes.
        neighbours: rows each row is linked with, level by level, -1 where there are fewer.
        entry: the row where a search begins, and the highest level.
    """

    links: int
    levels: Links
    neighbours: Links
    entry: Links

    def over(self, codes: Any) -> Any:
        """A faiss index that searches this graph by the codes of ``codes``; both are read in place."""
        index = faiss.IndexHNSW(codes, self.links)
        index.own_fields = False
        hnsw = index.hnsw
        faiss.copy_array_to_vector(self.levels, hnsw.levels)
        faiss.copy_array_to_vector(self._offsets(hnsw), hnsw.offsets)
        hnsw.neighbors = view(self.neighbours)
        hnsw.entry_point, hnsw.max_level = self.entry.tolist()
        hnsw.is_similarity = codes.metric_type == faiss.METRIC_INNER_PRODUCT
        index.ntotal, index.is_trained = len(self.levels), True
        return index

    def _offsets(self, hnsw: Any) -> NDArray[np.uint64]:
        lengths = faiss.vector_to_array(hnsw.cum_nneighbor_per_level)[self.levels]
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64)

    def renumbered(self, nodes: Ints, rows: int) -> HNSWGraph:
        """The same graph, whose nodes are some of so many rows, in their order."""
        levels = np.zeros(rows, np.int32)
        levels[nodes] = self.levels
        neighbours = np.where(self.neighbours < 0, -1, nodes[self.neighbours]).astype(np.int32)
        return HNSWGraph(
            self.links, levels, neighbours, np.array([nodes[self.entry[0]], self.entry[1]], np.int32)
        )

    def to_parts(self) -> dict[str, NDArray[Any]]:
        """The arrays to store, by name."""
        return {"levels": self.levels, "neighbours": self.neighbours, "entry": self.entry}

    @classmethod
    def from_parts(cls, links: int, parts: Mapping[str, NDArray[Any]]) -> Self:
        """Read what :meth:`to_parts` gave; the neighbours may be a memory map."""
        return cls(links, np.array(parts["levels"]), parts["neighbours"], np.array(parts["entry"]))


def grow_graph(
    links: int,
    space: Space,
    rows: int,
    dim: int,
    block: int,
    read: Callable[[slice], Floats],
    seed: int,
    begun: HNSWGraph | None = None,
) -> Iterator[Callable[[], HNSWGraph]]:
    """Link ``rows`` rows block by block, and give after each a function that copies the graph so far.

    Levels are drawn beforehand, so that a build that resumes from ``begun`` links as one that was not
    interrupted. With one thread the same seed gives the same graph; several race for links.

    Args:
        links: of a node, above level 0.
        space: metric of comparisons.
        rows: number of rows in all.
        dim: the prefix.
        block: rows linked at a time.
        read: the prefixes of some rows.
        seed: of the levels.
        begun: the graph of the first blocks.
    """
    index = faiss.IndexHNSWFlat(dim, links, space.faiss_metric())
    index.hnsw.efConstruction = _BEAM_WHILE_BUILDING
    levels = _draw_levels(rows, links, seed)
    done = 0 if begun is None else len(begun.levels)
    if begun is not None:
        _restore(index, begun)
        for start in range(0, done, block):
            index.storage.add(read(slice(start, min(start + block, done))))
    for start in range(done, rows, block):
        end = min(start + block, rows)
        faiss.copy_array_to_vector(levels[:end], index.hnsw.levels)  # as many as rows: they are kept
        index.add(read(slice(start, end)))
        yield partial(_snapshot, index, links)


def _draw_levels(rows: int, links: int, seed: int) -> Links:
    """Levels fall off exponentially, each with a share of 1 / links of the one below (HNSW, section 4.1)."""
    drawn = np.random.default_rng(seed).random(rows)
    hnsw = faiss.HNSW(links)  # named, so that it outlives the view of its table
    highest = len(faiss.vector_to_array(hnsw.assign_probas))
    levels = np.floor(-np.log1p(-drawn) / math.log(links)).astype(np.int32) + 1
    return np.asarray(np.minimum(levels, highest))


def _snapshot(index: Any, links: int) -> HNSWGraph:
    hnsw = index.hnsw
    neighbours = np.empty(hnsw.neighbors.size(), np.int32)
    faiss.memcpy(faiss.swig_ptr(neighbours), hnsw.neighbors.data(), neighbours.nbytes)
    entry = np.array([hnsw.entry_point, hnsw.max_level], np.int32)
    return HNSWGraph(links, faiss.vector_to_array(hnsw.levels), neighbours, entry)


def _restore(index: Any, graph: HNSWGraph) -> None:
    """Put a graph into an index that is to grow: faiss has to own its links."""
    hnsw = index.hnsw
    faiss.copy_array_to_vector(graph.levels, hnsw.levels)
    faiss.copy_array_to_vector(graph._offsets(hnsw), hnsw.offsets)
    owned = faiss.MaybeOwnedVectorInt32()
    owned.resize(graph.neighbours.size)
    neighbours = np.ascontiguousarray(graph.neighbours)
    faiss.memcpy(owned.data(), faiss.swig_ptr(neighbours), neighbours.nbytes)
    hnsw.neighbors = owned
    hnsw.entry_point, hnsw.max_level = graph.entry.tolist()
    index.ntotal = len(graph.levels)
