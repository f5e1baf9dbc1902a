"""Ward's clusters of the vectors of one item, at several numbers of clusters from one hierarchy."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import check_vectors
from nestling.errors import require


def ward_clusters(vectors: NDArray[np.floating[Any]], sizes: Collection[int]) -> dict[int, NDArray[np.int64]]:
    """The cluster of each vector, at several numbers of clusters.

    The vectors are scaled to unit length first. Clusters of one number are unions of those of a larger one,
    and are numbered by their first vector.

    Args:
        vectors: ``Float[n, width]``.
        sizes: numbers of clusters, 1 to ``n`` each.

    Returns:
        ``Int[n]`` from 0 to the number of clusters, by that number.

    Raises:
        DataError: for vectors that are not finite.
        MissingExtraError: if scipy is not installed.

    Source: Clavié, Chaffin and Adams 2024, arXiv 2409.14683, hierarchical pooling.

    >>> ward_clusters(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]]), [2])[2]
    array([0, 1, 0])
    """
    n = len(vectors)
    labels, found = np.arange(n), {n: np.arange(n)}
    if min(sizes, default=n) < n:
        hierarchy = require("scipy.cluster.hierarchy", "sklearn")
        vectors = check_vectors(vectors, "the tokens of an item")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / np.where(lengths > 0, lengths, 1)
        for merged, (first, second, *_) in enumerate(hierarchy.linkage(unit, "ward"), start=1):
            labels[(labels == first) | (labels == second)] = n - 1 + merged
            if n - merged in sizes:
                found[n - merged] = _by_first(labels)
    return {size: found[size] for size in sizes}


def _by_first(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same clusters, numbered in the order of their first vectors."""
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place]
