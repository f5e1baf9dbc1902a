"""A graph of neighbours (HNSW) built on one prefix and walked with the codes of another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.search.exact.faiss_arrays import faiss, view
from nestling.search.exact.space import Floats, Ints, Space

_VIEWED_WHILE_BUILDING = 80
Links = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Graph:
    """Links between rows, as plain arrays; nothing in it depends on what it is walked with.

    Attributes:
        links: of a node on level 0 (twice ``links`` of them) and above.
        levels: ``Int[rows]``, the number of levels that each row stands on; 0 of rows that are no nodes.
        neighbours: rows each row is linked with, level by level, -1 where there are fewer.
        entry: the row where a walk begins, and the highest level.
    """

    links: int
    levels: Links
    neighbours: Links
    entry: Links

    def walker(self, codes: Any) -> Any:
        """A faiss index that walks this graph by the codes of ``codes``; both are read in place."""
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

    def renumbered(self, nodes: Ints, rows: int) -> Graph:
        """The same graph, whose nodes are some of so many rows, in their order."""
        levels = np.zeros(rows, np.int32)
        levels[nodes] = self.levels
        neighbours = np.where(self.neighbours < 0, -1, nodes[self.neighbours]).astype(np.int32)
        return Graph(
            self.links, levels, neighbours, np.array([nodes[self.entry[0]], self.entry[1]], np.int32)
        )

    def to_parts(self) -> dict[str, NDArray[Any]]:
        """What has to be stored, by name."""
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
    begun: Graph | None = None,
) -> Iterator[Callable[[], Graph]]:
    """Link ``rows`` rows block by block, and give a way to copy the graph so far after each.

    Levels are drawn beforehand, so that a build that goes on from ``begun`` links as one that was not
    interrupted. With one thread the same seed gives the same graph; several race for links.

    Args:
        links: of a node, above level 0.
        space: how prefixes are compared.
        rows: how many there are in all.
        dim: the prefix.
        block: rows linked at a time.
        read: the prefixes of some rows.
        seed: of the levels.
        begun: the graph of the first blocks.
    """
    index = faiss.IndexHNSWFlat(dim, links, space.faiss_metric())
    index.hnsw.efConstruction = _VIEWED_WHILE_BUILDING
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


def _snapshot(index: Any, links: int) -> Graph:
    hnsw = index.hnsw
    neighbours = np.empty(hnsw.neighbors.size(), np.int32)
    faiss.memcpy(faiss.swig_ptr(neighbours), hnsw.neighbors.data(), neighbours.nbytes)
    entry = np.array([hnsw.entry_point, hnsw.max_level], np.int32)
    return Graph(links, faiss.vector_to_array(hnsw.levels), neighbours, entry)


def _restore(index: Any, graph: Graph) -> None:
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
