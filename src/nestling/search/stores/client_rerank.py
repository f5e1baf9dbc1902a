"""The re-ranking stage, for databases that leave it to the client."""

from __future__ import annotations

import numpy as np

from nestling.data.tables.fields.kinds import Value
from nestling.search.stores.layout import Layout
from nestling.search.stores.results import Floats, StoreHits

_SMALLEST = 1e-30  # rows of zeros, which only others can have written, stay zeros


def rerank(
    query: Floats,
    names: list[str],
    vectors: Floats,
    metadata: list[dict[str, Value]],
    k: int,
    layout: Layout,
) -> StoreHits:
    """The ``k`` best of a shortlist; of equal scores the one that stood first stays first.

    Under ``l2`` the vectors are normalised again: rows that others wrote may be of any length.

    Args:
        query: ``Float[dim]``, cut and normalised.
        names: ids of the rows of the shortlist.
        vectors: ``Float[shortlist, dim]``, cut as the query is.
        metadata: of these rows, or of none if they are not wanted.
        k: number of rows wanted.
        layout: metric and cut rule of the scores.
    """
    if layout.rule.after == "l2":
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _SMALLEST)
    if layout.metric == "dot":
        scores = vectors @ query
        order = np.argsort(-scores, kind="stable")[:k]
    else:
        scores = np.linalg.norm(vectors - query, axis=1)
        order = np.argsort(scores, kind="stable")[:k]
    kept = [metadata[row] for row in order] if metadata else []
    return StoreHits([names[row] for row in order], scores[order].astype(np.float32), kept)
