"""Late interaction: exact search of items of several vectors by MaxSim."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule, cut
from nestling.errors import DataError
from nestling.process.progress import watched
from nestling.search.exact.neighbours import Neighbours, check_k
from nestling.vectors.prefix import check_dims
from nestling.vectors.token_vectors import TokenVectors

Floats = NDArray[np.float32]

# Few enough products for a core's cache, in which their maxima are found.
_QUERY_VECTORS_AT_A_TIME = 500
_DOCUMENT_VECTORS_AT_A_TIME = 2000
_MANY_BLOCKS = 1000


def max_sim(queries: TokenVectors, documents: TokenVectors) -> Floats:
    """The MaxSim of every query and document, ``Float[queries, documents]``.

    Each vector of a query is compared with the most similar vector of the document, by their dot product, and
    these similarities are summed. The query and the document need no vectors of length 1, but usually have.

    Args:
        queries: vectors of the queries.
        documents: vectors of the documents.

    Raises:
        DataError: for vectors of different sizes.

    Source: Khattab and Zaharia 2020, arXiv 2004.12832, equation 3.

    >>> ones = TokenVectors.of([np.eye(2)])
    >>> max_sim(ones, TokenVectors.of([np.eye(2), np.eye(2)[:1]]))
    array([[2., 1.]], dtype=float32)
    """
    if queries.shape[1] != documents.shape[1]:
        raise DataError(
            f"queries of {queries.shape[1]} entries a vector cannot be compared with documents of "
            f"{documents.shape[1]}"
        )
    found = np.empty((len(queries), len(documents)), np.float32)
    # Documents of one length are compared together: their maxima are those of one axis.
    order = np.argsort(documents.counts, kind="stable")
    asked = [(part, queries[part]) for part in _query_blocks(queries.counts)]
    blocks = _document_blocks(documents.counts[order])
    for block in watched(blocks, "searching", "blocks") if len(blocks) > _MANY_BLOCKS else blocks:
        rows, length = order[block], int(documents.counts[order[block.start]])
        places = documents.starts[rows][:, None] + np.arange(length)
        vectors = _single(documents.values[places.ravel()])
        for part, query in asked:
            products = vectors @ _single(query.values).T
            best = products.reshape(len(rows), length, -1).max(axis=1)
            found[part, rows] = np.add.reduceat(best, query.starts[:-1], axis=1).T
    return found


def nearest_by_max_sim(
    queries: TokenVectors,
    documents: TokenVectors,
    dims: Iterable[int],
    k: int,
    *,
    rule: CutRule = CutRule(),
) -> dict[int, Neighbours]:
    """The ``k`` documents of highest MaxSim for every query, at every size of the vectors.

    Products are float32. Of equal scores the first document wins.

    Args:
        queries: vectors of the queries.
        documents: vectors of the documents.
        dims: increasing sizes, 1 to the entries of a vector.
        k: 1 to the number of documents.
        rule: steps around a cut.

    Raises:
        DataError: for sizes that do not fit, vectors of length zero under ``l2``, or ``k`` above the number
            of documents.
    """
    sizes = check_dims(dims, queries.shape[1])
    check_k(k, len(documents), "documents")
    found = {}
    for dim in sizes:
        scores = max_sim(*(_cut(x, dim, rule) for x in (queries, documents)))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found[dim] = Neighbours(best, np.take_along_axis(scores, best, axis=1))
    return found


def _cut(x: TokenVectors, dim: int, rule: CutRule) -> TokenVectors:
    return TokenVectors(cut(_single(x.values), dim, rule), x.starts)


def _single(x: NDArray[Any]) -> Floats:
    return x.astype(np.float32, copy=False)


def _query_blocks(counts: NDArray[np.int64]) -> list[slice]:
    """Queries of about as many vectors as are compared at a time."""
    block = (counts.cumsum() - counts) // _QUERY_VECTORS_AT_A_TIME
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(counts)]
    return [slice(*ends) for ends in pairwise(edges)]


def _document_blocks(counts: NDArray[np.int64]) -> list[slice]:
    """Documents of one length each, of about as many vectors as are compared at a time; ``counts`` rise."""
    edges = [0, *(np.flatnonzero(np.diff(counts)) + 1).tolist(), len(counts)]
    found = []
    for start, end in pairwise(edges):
        step = max(1, _DOCUMENT_VECTORS_AT_A_TIME // int(counts[start]))
        found += [slice(first, min(first + step, end)) for first in range(start, end, step)]
    return found
