"""Exact search over a given subset of rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling import kernels
from nestling.cut import RAW, cut
from nestling.kernels import StoredRows
from nestling.kernels.graph import rank
from nestling.process.blocks import blocks
from nestling.search.exact.faiss_arrays import faiss
from nestling.search.exact.scores import Comparison
from nestling.search.exact.space import Floats, Ints, Space

Doubles = NDArray[np.float64]

_FLOATS_READ_AT_A_TIME = 1 << 23
# For more queries, gathering the rows for a product of matrices is faster.
_FEW_QUERIES = 8


class SubsetSearch:
    """Finds the best among given rows.

    Args:
        vectors: ``Float[rows, at least dim]``, which may be a memory map.
        dim: the prefix that is compared.
        space: metric of comparisons.
    """

    def __init__(self, vectors: NDArray[Any], dim: int, space: Space) -> None:
        self._source, self._dim, self._space = cut(vectors, dim, RAW), dim, space
        # Norms of the rows that were searched before; 0 for the others.
        self._norms = np.zeros(len(vectors) if space.is_normalised else 0)
        stored = stored_rows(self._source, space, self._norms)
        self._stored = replace(stored, scale=self._norms) if stored and space.is_normalised else stored

    def best(self, queries: Floats, k: int, rows: Ints) -> tuple[Ints, Floats]:
        """The ``k`` best of some rows, in rising order, for each query of full size, and their scores."""
        if self._stored is None or len(queries) > _FEW_QUERIES or kernels.level() == "off":
            return self._gathered(self._space.prefix(queries, self._dim, "queries"), k, rows)
        self._measure(rows)
        comparison = Comparison(self._space.is_normalised, self._space.is_rising)
        candidates = np.tile(rows, (len(queries), 1))
        kept = min(k, len(rows))
        found, scores = comparison.best_stored(cut(queries, self._dim, RAW), self._stored, candidates, kept)
        missing = ((0, 0), (0, k - kept))
        with np.errstate(over="ignore"):  # overflow gives infinity in float32; rows are in order
            return np.pad(found, missing, constant_values=-1), np.pad(scores.astype(np.float32), missing)

    def _measure(self, rows: Ints) -> None:
        """Compute the missing norms of these rows. Threads that do so at once write the same."""
        if not self._space.is_normalised:
            return
        unknown = rows[self._norms[rows] == 0]
        step = max(1, _FLOATS_READ_AT_A_TIME // self._dim)
        for block in blocks(len(unknown), step):
            some = unknown[block]
            self._norms[some] = inverse_norms(self._source[some])

    def _gathered(self, asked: Floats, k: int, rows: Ints) -> tuple[Ints, Floats]:
        space, metric = self._space, self._space.faiss_metric()
        best = faiss.ResultHeap(len(asked), k, keep_max=metric == faiss.METRIC_INNER_PRODUCT)
        step = max(1, _FLOATS_READ_AT_A_TIME // self._dim)
        for block in blocks(len(rows), step):
            some = rows[block]
            values = space.scaled(np.asarray(self._source[some], np.float32))
            distances, places = faiss.knn(asked, values, min(k, len(some)), metric=metric)
            best.add_result(distances, some[places])
        best.finalize()
        return best.I, space.scores(best.D)


def look_through(stored: StoredRows, queries: Doubles, rows: NDArray[Any], k: int) -> tuple[Ints, Doubles]:
    """The ``k`` best of some rows for each of one or more queries, as kernels score them."""
    candidates = rows.astype(np.int32)[None]
    found = [rank(stored, query[None], candidates, k) for query in queries]
    return np.concatenate([each[0] for each in found]), np.concatenate([each[1] for each in found])


def stored_rows(values: NDArray[Any], space: Space, inverse_norms: NDArray[Any] | None) -> StoredRows | None:
    """Prefixes for compiled kernels, which score them in place; None if they cannot.

    Args:
        values: ``Float[rows, dim]``.
        space: the metric.
        inverse_norms: ``Float64[rows]``, of these very prefixes; needed where the space scales.
    """
    if not isinstance(values, np.ndarray) or values.dtype not in (np.float32, np.float16):
        return None
    if values.strides[1] != values.itemsize:
        return None
    if space.is_normalised:
        return None if inverse_norms is None else StoredRows(values, np.array(inverse_norms))
    return StoredRows(values, None, space.is_rising)


def inverse_norms(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Factors that scale rows ``Float[rows, dim]`` to length one; 0 for rows of length zero."""
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    return np.asarray(np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0))
