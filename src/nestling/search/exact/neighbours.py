"""Exact nearest neighbours at one or many prefix sizes, in one pass over the coordinates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Whole, check
from nestling.cut import RAW, CutRule, check_vectors, cut, prefix_blocks
from nestling.errors import DataError
from nestling.process.blocks import even_blocks
from nestling.process.progress import watched
from nestling.search.exact.scores import Doubles, in_single, read_prefixes
from nestling.search.exact.threads import count_workers, worker_pool
from nestling.search.exact.tiles import METRIC, Floats, Metric, Terms, Tile
from nestling.search.exact.top_k import Best
from nestling.vectors.prefix import check_dims, finite_squares, prefix_norms, unrounded
from nestling.vectors.stored import StoredVectors
from nestling.vectors.vectors_like import VectorsLike, values_of

__all__ = ["Metric", "Neighbours", "nearest", "nearest_each"]

Ints = NDArray[np.int64]
Block = TypeVar("Block")
Found = TypeVar("Found")

_K = Whole(1)

# Products computed at a time: few enough for a core's cache, enough to hide the cost of each call. No
# powers of two, with which all rows of a tile would compete for the same few places of the cache.
_QUERIES_AT_A_TIME = 500
_FEWEST_QUERIES = 32
_PRODUCTS_AT_A_TIME = 400_000
_WIDEST_TILE = 16_000
_FLOATS_READ_AT_A_TIME = 1 << 23
# Documents kept beside the k best, so that rounding seldom asks for a second look.
_FEWEST_MORE, _SHARE_MORE = 4, 16
_DOUBTS_HELD = 1 << 22


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The ``k`` best documents of every query, best first.

    Args:
        indices: ``Int[queries, k]``, rows of the documents.
        scores: ``Float[queries, k]``: similarities, falling; with ``metric="euclidean"`` distances, rising.
    """

    indices: Ints
    scores: Floats


def check_k(k: Any, most: int | None = None, what: str = "rows") -> int:
    """A number of neighbours that can be found.

    Args:
        k: a whole number.
        most: number of rows, where no more may be asked for.
        what: their name in errors.

    Raises:
        DataError: for another type, less than 1, or more than ``most``.
    """
    if not _K.admits(k) or (most is not None and k > most):
        among, wanted = "", "a whole number of at least 1"
        if most is not None:
            among, wanted = f" among {most} {what}", f"k from 1 to {most}"
        raise DataError(f"k={k} neighbours cannot be found{among}; choose {wanted}")
    return int(k)


def nearest(
    queries: Any,
    documents: VectorsLike,
    k: int,
    *,
    dim: int | None = None,
    rule: CutRule | None = None,
    metric: Metric = "dot",
    workers: int | None = None,
) -> Neighbours:
    """The ``k`` nearest documents of every query at one size (all entries by default).

    Documents may be stored vectors in codes (``stored.extract("dim=64,bits=2")``); whole queries are then cut
    to their size. Arguments, errors and order are those of :func:`nearest_each`.

    Args:
        queries: as wide as the documents, or as the vectors that codes were made from.
        documents: rows, or stored vectors.
        k: 1 to the number of documents.
        dim: entries to compare.
        rule: by default that of stored vectors, and cosines for others. Extracted vectors have their
            ``layer_norm`` behind them; give the rule of the whole vectors to prepare queries alike.
        metric: ``"dot"`` or ``"euclidean"``.
        workers: threads; as many as there are cores by default.

    >>> nearest([[1.0, 0.1]], [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], k=2).indices
    array([[1, 2]])
    """
    queries = check_vectors(queries, "queries")
    if isinstance(documents, StoredVectors):
        queries, rule = _as_stored(queries, documents, rule)
    rule = rule or CutRule()
    size = queries.shape[1] if dim is None else dim
    return nearest_each(queries, documents, [size], k, rule=rule, metric=metric, workers=workers)[size]


def _as_stored(
    queries: NDArray[Any], documents: StoredVectors, rule: CutRule | None
) -> tuple[NDArray[Any], CutRule]:
    """Queries cut to the size of codes, and the rule by which both are compared."""
    held = documents.rule
    rule = (rule or held).without_code
    if held.code is None or held.code.full != queries.shape[1] or held.before != "none":
        return queries, rule
    return cut(queries, documents.values.shape[1], CutRule(rule.before, "none")), rule.again


def nearest_each(
    queries: Any,
    documents: VectorsLike,
    dims: Iterable[int],
    k: int,
    *,
    rule: CutRule = CutRule(),
    metric: Metric = "dot",
    workers: int | None = None,
) -> dict[int, Neighbours]:
    """The ``k`` nearest documents of every query at every size, exactly, from one pass over the coordinates.

    Products of a size are added to those of the next smaller one. After the first documents, a size costs
    one comparison of every product with the k-th best so far. These products are float32. Documents that
    may be among the best, given the rounding errors, are compared again in double precision, distances by
    differences, so that equal rows are at 0. So results are those of a search in double precision, whatever
    offset the vectors share and however near they are to each other. Of equal scores the first document
    wins. Scores are rounded to float32 in the end, in which cosines distinguish near duplicates down to 1e-4
    between unit vectors; ``metric="euclidean"`` distinguishes much nearer ones.

    Args:
        queries: ``Float[queries, dim]``.
        documents: ``Float[documents, dim]``, or stored vectors; a memory map is read block by block.
        dims: increasing sizes, 1 to ``dim``.
        k: 1 to the number of documents.
        rule: steps around a cut; ``l2`` after it makes ``"dot"`` the cosine.
        metric: ``"dot"`` (largest first) or ``"euclidean"`` (smallest distance first).
        workers: threads; as many as there are cores by default.

    Raises:
        DataError: for vectors that cannot be used, rows beyond float32 or of length zero under ``l2``
            (named), sizes that do not fit, ``k`` below 1 or above the number of documents.
        ConfigError: for an unknown metric or less than one worker.
    """
    queries = check_vectors(queries, "queries")
    documents = values_of(documents, "documents", dim=queries.shape[1])
    sizes = check_dims(dims, queries.shape[1])
    check("metric", metric, METRIC)
    check_k(k, len(documents), "documents")
    workers = count_workers(workers)
    terms = Terms.of(documents, sizes, rule, metric)
    rows_at_a_time = min(_QUERIES_AT_A_TIME, max(_FEWEST_QUERIES, -(-len(queries) // workers)))
    spans = even_blocks(len(queries), rows_at_a_time)
    blocks = [_QueryBlock(queries, rows, documents, terms, k) for rows in spans]
    read = partial(_read, documents, terms, rows_at_a_time)
    _scan(blocks, read, workers)
    doubts = [each for found in _each(_QueryBlock.settle, blocks, workers) for each in found]
    _scan(doubts, read, workers)
    _each(_Doubts.settle, doubts, workers)
    found = [block.answers() for block in blocks]
    return {
        dim: Neighbours(*(np.concatenate(part) for part in zip(*(each[i] for each in found), strict=True)))
        for i, dim in enumerate(sizes)
    }


def _read(documents: NDArray[Any], terms: Terms, queries_at_a_time: int) -> Iterator[list[Tile]]:
    """The documents, read once, some tiles at a time."""
    width = min(max(64, _PRODUCTS_AT_A_TIME // queries_at_a_time), _WIDEST_TILE)
    spans = even_blocks(len(documents), max(width, _FLOATS_READ_AT_A_TIME // documents.shape[1]))
    for span in watched(spans, "searching", "blocks") if len(spans) > 1 else spans:
        whole = Tile.read(documents, span, terms)
        yield [whole.part(rows) for rows in even_blocks(len(whole.values), width)]


class _Visitor(Protocol):
    """Looks at all documents in turn."""

    values: Floats

    def visit(self, tile: Tile, scratch: _Scratch) -> None: ...


class _QueryBlock:
    """Some queries and the best documents found for them so far, at every size."""

    def __init__(
        self, queries: NDArray[Any], rows: slice, documents: NDArray[Any], terms: Terms, k: int
    ) -> None:
        self.terms, self.k, self._documents, self._first = terms, k, documents, rows.start
        self.asked = unrounded(np.asarray(queries[rows]), terms.sizes[-1], terms.rule)
        self.values, self.factor = terms.aim(self.asked, rows.start)
        if terms.is_cosine:
            self.lengths = prefix_norms(self.values, terms.sizes, "queries", rows.start)
        else:
            self.lengths = np.sqrt(finite_squares(self.values, terms.sizes, "queries", rows.start))
        kept = min(len(documents), k + max(_FEWEST_MORE, k // _SHARE_MORE))
        self.best = [Best(len(self.values), kept) for _ in terms.sizes]
        self.longest = np.zeros(len(terms.sizes), np.float32)
        self.found: list[tuple[Ints, Doubles]] = []

    def visit(self, tile: Tile, scratch: _Scratch) -> None:
        """Look for better documents in ``tile``."""
        product, other, flags = scratch.shaped(len(self.values), len(tile.values))
        if self.terms.metric == "dot":
            np.maximum(self.longest, tile.lengths.max(axis=1), out=self.longest)
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

    def settle(self) -> list[_Doubts]:
        """Compare what was found in double precision; what has to be looked for again, by rounding."""
        doubts = []
        for size, best in enumerate(self.best):
            indices, scores = best.ranked()
            self.found.append(self.compare(size, slice(None), indices))
            if best.k == len(self._documents):
                continue
            kth = self.found[size][1][:, -1]
            reach = self._reach(size, kth)
            floors = self._as_scanned(size, kth)
            room = self.terms.uncertainty(size, self.lengths[size].astype(np.float64), reach)
            rows = np.flatnonzero(floors < scores[:, -1] + room)
            if len(rows):
                doubts.append(_Doubts(self, size, rows, floors[rows]))
        return doubts

    def compare(self, size: int, rows: Any, candidates: Ints) -> tuple[Ints, Doubles]:
        """The ``k`` best candidates of some queries, in double precision."""
        dim = self.terms.sizes[size]
        source = read_prefixes(self._documents, dim, self.terms.rule)
        return self.terms.comparison.best_of(cut(self.asked[rows], dim, RAW), source, candidates, self.k)

    def answers(self) -> list[tuple[Ints, Floats]]:
        """Per size the documents, best first, and their similarities or distances.

        Raises:
            DataError: for scores that float32 does not hold; queries are named.
        """
        return [(indices, in_single(scores, self._first)) for indices, scores in self.found]

    def _reach(self, size: int, kth: Doubles) -> Any:
        """Bound on the length of documents that can be among the best."""
        if self.terms.metric == "euclidean":  # as its distance from the origin is at most that by the query
            return self.lengths[size] + 1.001 * self.factor * kth
        return float(self.longest[size])

    def _as_scanned(self, size: int, scores: Doubles) -> Doubles:
        """Scores as tiles give them."""
        terms, dim = self.terms, self.terms.sizes[size]
        if terms.is_cosine:
            cosines = 1 - scores**2 / 2 if terms.metric == "euclidean" else scores
            return np.asarray(cosines * self.lengths[size])
        given = self.values if terms.metric == "euclidean" else self.asked
        asked = cut(given, dim, RAW).astype(np.float64)
        if terms.metric == "euclidean":
            return np.asarray((np.einsum("ij,ij->i", asked, asked) - (scores * self.factor) ** 2) / 2)
        offset = 0.0 if terms.centre is None else asked @ terms.centre[:dim].astype(np.float64)
        return np.asarray((scores - offset) * self.factor * terms.factor)


class _Doubts:
    """Queries at one size that rounding may have cost a document: all that reach a floor are compared."""

    def __init__(self, block: _QueryBlock, size: int, rows: Ints, floors: Doubles) -> None:
        self._block, self._size, self._rows, self._floors = block, size, rows, floors[:, None]
        self.values = block.values[rows, : block.terms.sizes[size]]
        self._lengths = block.lengths[size][rows, None].astype(np.float64)
        self._waiting: list[tuple[Ints, Ints]] = []
        self._waiting_count = 0

    def visit(self, tile: Tile, _: _Scratch) -> None:
        """Keep what may reach the floors."""
        size, terms = self._size, self._block.terms
        products = self.values @ tile.values[:, : self.values.shape[1]].T
        scores = products * tile.scale[size] - tile.shift[size]
        room = terms.uncertainty(size, self._lengths, tile.lengths[size].astype(np.float64))
        rows, columns = np.nonzero(scores + room >= self._floors)
        self._waiting.append((rows, columns + tile.start))
        self._waiting_count += len(rows)
        if self._waiting_count > _DOUBTS_HELD:
            self.settle()

    def settle(self) -> None:
        """Put the best of what waits and what was found before into the results of the block."""
        places, documents = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_count = [], 0
        order = np.argsort(places, kind="stable")
        edges = np.searchsorted(places[order], np.arange(len(self._rows) + 1))
        indices, scores = self._block.found[self._size]
        for row, (start, end) in zip(self._rows.tolist(), pairwise(edges.tolist()), strict=True):
            candidates = np.union1d(indices[row], documents[order[start:end]])
            better = self._block.compare(self._size, slice(row, row + 1), candidates[None])
            indices[row], scores[row] = better[0][0], better[1][0]


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
        """Positions of the flags set among the first ``size``; read eight at a time, as few are set."""
        padded = -(-size // 8) * 8
        self._flags[size:padded] = False
        eights = self._flags[:padded].view(np.uint64)
        set_eights = np.flatnonzero(eights != 0)
        found = np.flatnonzero(eights[set_eights].view(np.bool_))
        return np.asarray(set_eights[found >> 3] * 8 + (found & 7))


def _each(act: Callable[[Block], Found], blocks: Sequence[Block], workers: int) -> list[Found]:
    """Let every block do something, as many at a time as there are workers."""
    if len(blocks) < 2 or workers == 1:
        return [act(block) for block in blocks]
    with ThreadPoolExecutor(min(workers, len(blocks))) as pool:
        return list(pool.map(act, blocks))


def _scan(blocks: Sequence[_Visitor], read: Callable[[], Iterable[list[Tile]]], workers: int) -> None:
    """Let every query block visit every tile, in the order of the documents."""
    if not blocks:
        return
    most_queries = max(len(block.values) for block in blocks)
    size = max(64 * most_queries, min(_PRODUCTS_AT_A_TIME, _WIDEST_TILE * most_queries))
    free: SimpleQueue[_Scratch] = SimpleQueue()
    for _ in range(min(workers, len(blocks))):
        free.put(_Scratch(size))

    def visit(block: _Visitor, tiles: list[Tile]) -> None:
        scratch = free.get()
        try:
            for tile in tiles:
                block.visit(tile, scratch)
        finally:
            free.put(scratch)

    if len(blocks) == 1:  # its products are shared out by the linear algebra library
        for tiles in read():
            visit(blocks[0], tiles)
        return
    with worker_pool(min(workers, len(blocks))) as pool:
        for tiles in read():
            list(pool.map(visit, blocks, [tiles] * len(blocks)))
