"""Exact nearest neighbours at one or many prefix sizes, in one pass over the coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from queue import SimpleQueue
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule, check_vectors
from nestling.errors import ConfigError, DataError, unknown
from nestling.progress import watched
from nestling.search.best import SLACK, Best
from nestling.search.prefix import check_dims, prefix_blocks, prefix_norms, prefix_square_norms, prepare
from nestling.search.threads import count_workers, worker_pool

Metric = Literal["dot", "euclidean"]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Products computed at a time: few enough for a core's cache, enough to hide the cost of each call. No
# powers of two, with which all rows of a tile would compete for the same few places of the cache.
_QUERIES_AT_A_TIME = 500
_FEWEST_QUERIES = 32
_PRODUCTS_AT_A_TIME = 400_000
_WIDEST_TILE = 16_000
_FLOATS_READ_AT_A_TIME = 1 << 23


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The ``k`` best documents of every query, best first.

    Args:
        indices: ``Int[queries, k]``, rows of the documents.
        scores: ``Float[queries, k]``: similarities, falling; with ``metric="euclidean"`` distances, rising.
    """

    indices: Ints
    scores: Floats


def nearest(
    queries: Any,
    documents: Any,
    k: int,
    *,
    dim: int | None = None,
    rule: CutRule = CutRule(),
    metric: Metric = "dot",
    workers: int | None = None,
) -> Neighbours:
    """The ``k`` nearest documents of every query at one size (all entries by default).

    Arguments, errors and order are those of :func:`nearest_each`.

    >>> nearest([[1.0, 0.1]], [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], k=2).indices
    array([[1, 2]])
    """
    queries = check_vectors(queries, "queries")
    size = queries.shape[1] if dim is None else dim
    return nearest_each(queries, documents, [size], k, rule=rule, metric=metric, workers=workers)[size]


def nearest_each(
    queries: Any,
    documents: Any,
    dims: Iterable[int],
    k: int,
    *,
    rule: CutRule = CutRule(),
    metric: Metric = "dot",
    workers: int | None = None,
) -> dict[int, Neighbours]:
    """The ``k`` nearest documents of every query at every size, exactly, from one pass over the coordinates.

    Products of a size go on from those of the next smaller one; once the first documents were seen, a
    size costs one comparison of every product with the k-th best so far. Of equal scores the document
    that stands first wins. Sums are float32; distances come from inner products, as in faiss.

    Args:
        queries: ``Float[queries, dim]``.
        documents: ``Float[documents, dim]``; a memory map is read block by block, never whole.
        dims: increasing sizes, 1 to ``dim``.
        k: 1 to the number of documents.
        rule: what happens before and after the cut; ``l2`` after it makes ``"dot"`` the cosine.
        metric: ``"dot"`` (largest first) or ``"euclidean"`` (smallest distance first).
        workers: threads; as many as there are cores by default.

    Raises:
        DataError: for vectors that cannot be used, rows of length zero under ``l2`` (named), sizes that
            do not fit, ``k`` below 1 or above the number of documents.
        ConfigError: for an unknown metric or less than one worker.
    """
    queries = check_vectors(queries, "queries")
    documents = check_vectors(documents, "documents", dim=queries.shape[1])
    sizes = check_dims(dims, queries.shape[1])
    if metric not in get_args(Metric):
        raise ConfigError(unknown("metric", metric, get_args(Metric)))
    if not 1 <= k <= len(documents):
        raise DataError(
            f"k={k} neighbours cannot be found among {len(documents)} documents; "
            f"choose k from 1 to {len(documents)}"
        )
    workers = count_workers(workers)
    terms = _Terms(sizes, rule, metric)
    rows_at_a_time = min(_QUERIES_AT_A_TIME, max(_FEWEST_QUERIES, -(-len(queries) // workers)))
    blocks = [_QueryBlock(queries, rows, terms, k) for rows in _spans(len(queries), rows_at_a_time)]
    _scan(blocks, _read(documents, terms, rows_at_a_time), workers)
    found = [block.ranked() for block in blocks]
    return {
        dim: Neighbours(*(np.concatenate(part) for part in zip(*(each[i] for each in found), strict=True)))
        for i, dim in enumerate(sizes)
    }


def _spans(count: int, most: int) -> list[slice]:
    """``count`` rows in as few spans of at most ``most`` as possible, alike in length.

    Alike, because a short last span would take another path through the linear algebra library, where
    the same rows could get products that differ in the last bit.
    """
    parts = -(-count // most)
    edges = [count * part // parts for part in range(parts + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]


@dataclass(frozen=True)
class _Terms:
    """What a search is about."""

    sizes: tuple[int, ...]
    rule: CutRule
    metric: Metric

    @property
    def is_cosine(self) -> bool:
        return self.rule.after == "l2"


@dataclass(frozen=True)
class _Tile:
    """Some documents, and per size what turns inner products into scores that can be compared.

    The score is ``product * scale - shift``, higher for better documents and the same for all but a
    factor or term of the query. It reaches ``bound`` where the product reaches
    ``bound / scale + shift / scale``, which is the product of ``[bound, 1]`` with ``limits``.
    """

    start: int
    values: Floats
    scale: Floats
    shift: Floats
    limits: Floats

    @classmethod
    def read(cls, documents: NDArray[Any], rows: slice, terms: _Terms) -> _Tile:
        """The tile of those rows, with its norms."""
        values = prepare(np.asarray(documents[rows]), terms.sizes[-1], terms.rule)
        scale: Floats = np.ones((len(terms.sizes), len(values)), np.float32)
        shift: Floats = np.zeros_like(scale)
        if terms.is_cosine:
            scale /= prefix_norms(values, terms.sizes, "documents", rows.start)
        elif terms.metric == "euclidean":
            shift = prefix_square_norms(values, terms.sizes) * np.float32(0.5)
        limits = np.stack([1 / scale, shift / scale * (1 - SLACK)], axis=1)
        return cls(rows.start, values, scale, shift, limits)

    def part(self, rows: slice) -> _Tile:
        """The tile of some of its documents."""
        columns = (self.scale[:, rows], self.shift[:, rows], self.limits[:, :, rows].copy())
        return _Tile(self.start + rows.start, self.values[rows], *columns)


def _read(documents: NDArray[Any], terms: _Terms, queries_at_a_time: int) -> Iterator[list[_Tile]]:
    """The documents, read once, some tiles at a time."""
    width = min(max(64, _PRODUCTS_AT_A_TIME // queries_at_a_time), _WIDEST_TILE)
    spans = _spans(len(documents), max(width, _FLOATS_READ_AT_A_TIME // documents.shape[1]))
    for span in watched(spans, "searching", "blocks") if len(spans) > 1 else spans:
        whole = _Tile.read(documents, span, terms)
        yield [whole.part(rows) for rows in _spans(len(whole.values), width)]


class _QueryBlock:
    """Some queries and the best documents found for them so far, at every size."""

    def __init__(self, queries: NDArray[Any], rows: slice, terms: _Terms, k: int) -> None:
        self.values, self.terms = prepare(np.asarray(queries[rows]), terms.sizes[-1], terms.rule), terms
        self.norms = (
            prefix_norms(self.values, terms.sizes, "queries", rows.start) if terms.is_cosine else None
        )
        self.best = [Best(len(self.values), k) for _ in terms.sizes]

    def visit(self, tile: _Tile, scratch: _Scratch) -> None:
        """Look for better documents in ``tile``."""
        product, other, flags = scratch.shaped(len(self.values), len(tile.values))
        for size, block in enumerate(prefix_blocks(self.terms.sizes)):
            target = other if size else product
            np.matmul(self.values[:, block], tile.values[:, block].T, out=target)
            if size:
                product += other
            best = self.best[size]
            if best.is_open:
                best.start(product * tile.scale[size] - tile.shift[size], tile.start)
                continue
            np.matmul(best.bound, tile.limits[size], out=other)
            np.greater_equal(product, other, out=flags)
            hits = scratch.positions(flags.size)
            if len(hits):
                rows, columns = np.divmod(hits, len(tile.values))
                scores = product.ravel()[hits] * tile.scale[size][columns] - tile.shift[size][columns]
                best.offer(rows, columns + tile.start, scores)

    def ranked(self) -> list[tuple[Ints, Floats]]:
        """Per size the documents, best first, and their similarities or distances."""
        answers = [best.ranked() for best in self.best]
        return [(indices, self._finish(scores, size)) for size, (indices, scores) in enumerate(answers)]

    def _finish(self, scores: Floats, size: int) -> Floats:
        if self.norms is not None:
            scores = scores / self.norms[size][:, None]
        if self.terms.metric == "dot":
            return scores
        squares: Any = 2.0
        if self.norms is None:
            squares = prefix_square_norms(self.values, self.terms.sizes)[size][:, None]
        return np.asarray(np.sqrt(np.maximum(squares - 2 * scores, 0)), np.float32)


class _Scratch:
    """Memory that all tiles of a thread share: fresh pages would cost more than the arithmetic on them."""

    def __init__(self, size: int) -> None:
        self._floats = np.empty((2, size), np.float32)
        self._flags = np.zeros(-(-size // 8) * 8, np.bool_)

    def shaped(self, rows: int, columns: int) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Two matrices of numbers and one of flags."""
        size, shape = rows * columns, (rows, columns)
        first, second = (floats[:size].reshape(shape) for floats in self._floats)
        return first, second, self._flags[:size].reshape(shape)

    def positions(self, size: int) -> Ints:
        """Where the first ``size`` flags are set; they are looked at eight at a time, as few are."""
        padded = -(-size // 8) * 8
        self._flags[size:padded] = False
        eights = self._flags[:padded].view(np.uint64)
        set_eights = np.flatnonzero(eights != 0)
        found = np.flatnonzero(eights[set_eights].view(np.bool_))
        return np.asarray(set_eights[found >> 3] * 8 + (found & 7))


def _scan(blocks: list[_QueryBlock], reads: Iterable[list[_Tile]], workers: int) -> None:
    """Let every query block visit every tile, in the order of the documents."""
    most_queries = max(len(block.values) for block in blocks)
    size = max(64 * most_queries, min(_PRODUCTS_AT_A_TIME, _WIDEST_TILE * most_queries))
    workers = min(workers, len(blocks))
    free: SimpleQueue[_Scratch] = SimpleQueue()
    for _ in range(workers):
        free.put(_Scratch(size))

    def visit(block: _QueryBlock, tiles: list[_Tile]) -> None:
        scratch = free.get()
        try:
            for tile in tiles:
                block.visit(tile, scratch)
        finally:
            free.put(scratch)

    if len(blocks) == 1:  # its products are shared out by the linear algebra library
        for tiles in reads:
            visit(blocks[0], tiles)
        return
    with worker_pool(workers) as pool:
        for tiles in reads:
            list(pool.map(visit, blocks, [tiles] * len(blocks)))
