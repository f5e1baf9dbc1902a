"""Metrics of rankings (one value per query), of correlated scores and of clusterings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.arrays import as_array
from nestling.cut import name_rows
from nestling.errors import DataError

Floats = NDArray[np.float64]


def label_hits(neighbours: ArrayLike, labels: ArrayLike, query_labels: ArrayLike) -> NDArray[np.bool_]:
    """Mask of the neighbours that have the label of the query, ``Bool[queries, k]``.

    Args:
        neighbours: ``Int[queries, k]``, rows of the database, best first; -1 (none found) is a miss.
        labels: ``Int[database]``.
        query_labels: ``Int[queries]``.

    Raises:
        DataError: for labels that are floats, or neighbours outside the database.

    >>> label_hits([[1, 0, -1]], labels=[7, 8], query_labels=[8])
    array([[ True, False, False]])
    """
    table, known = np.asarray(neighbours), check_labels(labels, "labels of the database")
    asked = check_labels(query_labels, "labels of the queries")
    if table.ndim != 2 or table.dtype.kind not in "iu" or len(table) != len(asked):
        raise DataError(
            f"neighbours must be whole numbers of shape [{len(asked)}, k], one row per query, not "
            f"{table.dtype} of shape {table.shape}"
        )
    if table.size and not -1 <= table.min() <= table.max() < len(known):
        raise DataError(
            f"neighbours name rows from {table.min()} to {table.max()}, but the database has {len(known)}; "
            "check that they belong together"
        )
    return np.asarray((known[table] == asked[:, None]) & (table >= 0))


def check_labels(labels: ArrayLike, what: str = "labels") -> NDArray[Any]:
    """``labels`` as one column of whole numbers or texts.

    Raises:
        DataError: for floats (16-bit ones silently merge classes), another shape or none at all.
    """
    column = as_array(labels, what)
    if column.ndim != 1 or not len(column):
        raise DataError(f"{what} must be one column of at least one label, not of shape {column.shape}")
    if column.dtype.kind not in "iuUb":
        raise DataError(f"{what} must be whole numbers or texts, not {column.dtype}; convert them to int64")
    return column


def ndcg(relevance: ArrayLike, ideal: ArrayLike, k: int | None = None) -> Floats:
    """Normalised discounted cumulative gain of the first ``k``, ``Float[queries]`` from 0 to 1.

    The gain of a document is its grade and the discount ``log2(rank + 1)``, as in trec_eval.

    Args:
        relevance: ``Float[queries, ranks]``, grade of each document found, best ranked first.
        ideal: ``Float[queries, any]``, the grades of all judged documents, highest first.
        k: ranks to look at, all by default.

    Raises:
        DataError: if ``k`` is larger than the table, or a query has no relevant document.

    Source: Järvelin and Kekäläinen 2002.

    >>> ndcg([[0, 1]], ideal=[[1]]).round(4)
    array([0.6309])
    """
    found, best = _top(relevance, k), np.asarray(ideal, np.float64)
    best = best[:, slice(found.shape[1])]
    reachable = best @ _discounts(best.shape[1])
    _refuse_hopeless(reachable)
    return np.asarray(found @ _discounts(found.shape[1]) / reachable)


def recall(relevance: ArrayLike, relevant: ArrayLike, k: int | None = None) -> Floats:
    """Share of the relevant documents of a query that are among the first ``k``, ``Float[queries]``.

    Args:
        relevance: ``Float[queries, ranks]``; a grade above 0 is relevant.
        relevant: ``Int[queries]``, the number of documents that are relevant to each query.
        k: ranks to look at, all by default.

    Raises:
        DataError: if ``k`` is larger than the table, or a query has no relevant document.
    """
    counts = np.asarray(relevant)
    _refuse_hopeless(counts)
    return np.asarray(_hits(relevance, k).sum(axis=1) / counts)


def precision(relevance: ArrayLike, k: int | None = None) -> Floats:
    """Share of the first ``k`` that is relevant, ``Float[queries]``; arguments as of :func:`recall`."""
    return np.asarray(_hits(relevance, k).mean(axis=1))


def success(relevance: ArrayLike, k: int | None = None) -> Floats:
    """1 where any of the first ``k`` is relevant, else 0, ``Float[queries]``; top-1 accuracy with ``k=1``."""
    return np.asarray(_hits(relevance, k).any(axis=1), np.float64)


def reciprocal_rank(relevance: ArrayLike, k: int | None = None) -> Floats:
    """1 / rank of the first relevant document, 0 where the first ``k`` hold none, ``Float[queries]``."""
    hits = _hits(relevance, k)
    return np.asarray(hits.any(axis=1) / (hits.argmax(axis=1) + 1))


def average_precision(
    relevance: ArrayLike, k: int | None = None, *, relevant: ArrayLike | None = None
) -> Floats:
    """Mean over the relevant documents of the precision at their ranks, ``Float[queries]`` from 0 to 1.

    Without ``relevant`` it is ``1/k * sum_{r <= k} P@r * rel_r``, as coded for MRL, which stays below 1
    for a query with fewer than ``k`` relevant documents; with it, ``k`` gives way to their number, as in
    trec_eval, where documents not found count 0.

    Args:
        relevance: ``Float[queries, ranks]``; a grade above 0 is relevant.
        k: ranks to look at, all by default.
        relevant: ``Int[queries]``, the number of documents that are relevant to each query.

    Raises:
        DataError: if ``k`` is larger than the table, or a query has no relevant document.

    Source: MRL, arXiv 2205.13147, its retrieval metrics (mAP@k).

    >>> average_precision([[1, 0, 1]]).round(4), average_precision([[1, 0, 1]], relevant=[2]).round(4)
    (array([0.5556]), array([0.8333]))
    """
    hits = _hits(relevance, k)
    precisions = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    total = (precisions * hits).sum(axis=1)
    if relevant is None:
        return np.asarray(total / hits.shape[1])
    counts = np.asarray(relevant)
    _refuse_hopeless(counts)
    return np.asarray(total / counts)


def _top(relevance: ArrayLike, k: int | None) -> Floats:
    table = np.asarray(relevance, np.float64)
    if table.ndim != 2 or not table.size:
        raise DataError(f"relevance must be a table of one row per query, not of shape {table.shape}")
    if not np.isfinite(table).all():
        raise DataError("relevance holds NaN or infinity; give finite grades, and 0 to unjudged documents")
    width = table.shape[1] if k is None else k
    if not 1 <= width <= table.shape[1]:
        raise DataError(
            f"k={k} cannot be measured on {table.shape[1]} ranked documents; choose 1 to {table.shape[1]}, "
            "or search for more neighbours"
        )
    return table[:, slice(width)]


def _hits(relevance: ArrayLike, k: int | None) -> NDArray[np.bool_]:
    return np.asarray(_top(relevance, k) > 0)


def _discounts(ranks: int) -> Floats:
    return np.asarray(1 / np.log2(np.arange(ranks) + 2))


def _refuse_hopeless(relevant: NDArray[Any]) -> None:
    hopeless = np.flatnonzero(~(relevant > 0))
    if len(hopeless):
        raise DataError(
            f"no document is relevant to the query in {name_rows(hopeless)}, so no search can be scored on "
            "it; remove such queries"
        )


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Rank correlation of two columns from -1 to 1; equal values share their mean rank.

    Raises:
        DataError: for columns of different length, fewer than two rows, or without any variation.

    >>> spearman([1, 2, 3, 4], [10, 30, 20, 40])
    0.8
    """
    columns = [check_scores(column) for column in (first, second)]
    if len(columns[0]) != len(columns[1]) or len(columns[0]) < 2:
        raise DataError(
            f"a correlation needs two columns of one length of at least 2, not {len(columns[0])} and "
            f"{len(columns[1])}"
        )
    weights = np.ones((1, len(columns[0])))
    ranks = [weighted_ranks(column, weights) for column in columns]
    found = float(weighted_correlation(ranks[0], ranks[1], weights)[0])
    if np.isnan(found):
        raise DataError("a correlation needs columns that vary; one of these is constant")
    return found


def check_scores(scores: ArrayLike, what: str = "scores") -> Floats:
    """``scores`` as one column of finite numbers.

    Raises:
        DataError: for another shape or type, NaN or infinity (named).
    """
    column = as_array(scores, what)
    if column.dtype.kind not in "iuf" or column.ndim != 1:
        raise DataError(f"{what} must be one column of numbers, not {column.dtype} of shape {column.shape}")
    bad = np.flatnonzero(~np.isfinite(column))
    if len(bad):
        raise DataError(f"{what} hold NaN or infinity in {name_rows(bad)}; remove or repair those rows")
    return column.astype(np.float64)


def weighted_ranks(column: NDArray[Any], weights: Floats) -> Floats:
    """Ranks of ``column``, ``Float[resamples, n]``, where row ``i`` occurs ``weights[:, i]`` times.

    Equal values share the mean of their ranks. Ranks are up to a constant, which no correlation sees.
    """
    order = np.argsort(column, kind="stable")
    _, starts, places = np.unique(column[order], return_index=True, return_inverse=True)
    totals = np.add.reduceat(weights[:, order], starts, axis=1)
    middles = totals.cumsum(axis=1) - totals / 2
    ranks = np.empty_like(weights)
    ranks[:, order] = middles[:, places]
    return ranks


def weighted_correlation(first: Floats, second: Floats, weights: Floats) -> Floats:
    """Pearson's correlation of the rows of two tables ``Float[resamples, n]``; NaN for a constant one."""
    total = weights.sum(axis=1, keepdims=True)
    a, b = (x - (weights * x).sum(axis=1, keepdims=True) / total for x in (first, second))
    products = [(weights * x * y).sum(axis=1) for x, y in ((a, b), (a, a), (b, b))]
    scale = np.sqrt(products[1] * products[2])
    # Variation below rounding counts as constant.
    small = scale <= 1e-12 * total[:, 0] ** 3
    return np.asarray(np.where(small, np.nan, products[0] / np.where(small, 1, scale)))


def v_measure(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Harmonic mean of homogeneity and completeness of a clustering, from 0 to 1.

    Source: Rosenberg and Hirschberg 2007.

    >>> v_measure([0, 0, 1, 1], [5, 5, 3, 3])
    1.0
    """
    columns = check_labels(labels), check_labels(clusters, "clusters")
    if len(columns[0]) != len(columns[1]):
        raise DataError(f"{len(columns[0])} labels were given for {len(columns[1])} clustered rows")
    return float(weighted_v_measure(*columns, np.ones((1, len(columns[0]))))[0])


def weighted_v_measure(labels: NDArray[Any], clusters: NDArray[Any], weights: Floats) -> Floats:
    """V-measure, ``Float[resamples]``, where row ``i`` occurs ``weights[:, i]`` times."""
    rows, columns = (np.unique(column, return_inverse=True)[1] for column in (labels, clusters))
    cells = rows * (columns.max() + 1) + columns
    of_labels, of_clusters, of_cells = (_entropy(kind, weights) for kind in (rows, columns, cells))
    shared = of_labels + of_clusters - of_cells
    # Without any entropy there is nothing to tell apart, and that was done.
    homogeneity, completeness = (
        np.where(own > 1e-12, shared / np.where(own > 1e-12, own, 1), 1.0) for own in (of_labels, of_clusters)
    )
    both = homogeneity + completeness
    return np.asarray(2 * homogeneity * completeness / np.where(both > 0, both, 1))


def _entropy(kinds: NDArray[Any], weights: Floats) -> Floats:
    order = np.argsort(kinds, kind="stable")
    starts = np.flatnonzero(np.diff(kinds[order], prepend=-1))
    shares = np.add.reduceat(weights[:, order], starts, axis=1) / weights.sum(axis=1, keepdims=True)
    return np.asarray(-(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1))
