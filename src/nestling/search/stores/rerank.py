"""The second stage where the database leaves it to its client."""

from __future__ import annotations

import numpy as np

from nestling.search.exact import Metric
from nestling.search.stores.store import Floats, Hits


def rerank(query: Floats, names: list[str], vectors: Floats, k: int, metric: Metric) -> Hits:
    """The ``k`` best of a shortlist; of equal scores the one that stood first stays first.

    Args:
        query: ``Float[dim]``, cut and normalised.
        names: what the rows of the shortlist are called.
        vectors: ``Float[shortlist, dim]``, cut and normalised as the query is.
        k: how many are wanted.
        metric: what the scores are.
    """
    if metric == "dot":
        scores = vectors @ query
        order = np.argsort(-scores, kind="stable")[:k]
    else:
        scores = np.linalg.norm(vectors - query, axis=1)
        order = np.argsort(scores, kind="stable")[:k]
    return Hits([names[row] for row in order], scores[order].astype(np.float32))
