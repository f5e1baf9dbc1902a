"""What all vectors have in common must not cost recall: embeddings of real models lie in a narrow cone."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from nestling.cut import RAW, CutRule
from nestling.search.engine import build
from nestling.search.exact import Metric
from nestling.search.walk import GraphScan

ROWS, DIM, K = 3000, 48, 10
COSINE = CutRule()
SPACES = [(COSINE, "dot"), (COSINE, "euclidean"), (RAW, "dot"), (RAW, "euclidean")]
OFFSETS = [3.0, 30.0, 300.0]
PLANS = ["graph32@full > rerank@full", "graph32@full > rerank:int8@full"]


@cache
def clustered() -> np.ndarray:
    """Vectors around 40 centres, of a standard deviation of about one an entry."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, DIM))
    return centres[rng.integers(40, size=ROWS + 60)] + 0.6 * rng.standard_normal((ROWS + 60, DIM))


@cache
def true_rows(rule: CutRule, metric: Metric, offset: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors and queries, and the nearest rows by differences in double precision."""
    moved = (clustered() + offset).astype(np.float32)
    exact = moved.astype(np.float64)
    if rule == COSINE:
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    rows, queries = exact[:ROWS], exact[ROWS:]
    if (rule, metric) == (RAW, "dot"):
        keys = -queries @ rows.T
    else:
        keys = np.array([np.square(rows - query).sum(axis=1) for query in queries])
    return moved[:ROWS], moved[ROWS:], np.argsort(keys, axis=1, kind="stable")[:, :K]


def recall(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)]))


@cache
def recall_of(plan: str, rule: CutRule, metric: Metric, offset: float) -> float:
    vectors, queries, true = true_rows(rule, metric, offset)
    return recall(build(plan, vectors, rule=rule, metric=metric, seed=1).search(queries, K).indices, true)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("offset", OFFSETS)
def test_an_offset_costs_no_recall(plan: str, space: tuple[CutRule, Metric], offset: float) -> None:
    """By a hundredth at most: other codes make other mistakes, and of 600 neighbours a few are six."""
    assert recall_of(plan, *space, offset) >= recall_of(plan, *space, 0.0) - 0.01


def test_queries_that_point_elsewhere_are_answered() -> None:
    """Away from the mean, at right angles to it, very short and very long, by inner product and cosine."""
    vectors, near, _ = true_rows(RAW, "dot", 3.0)
    wide = near.astype(np.float64)
    across = wide - wide.mean(axis=1, keepdims=True)
    for rule in (RAW, COSINE):
        scan = GraphScan.build(vectors, rule=rule, links=32, seed=1)
        exact = vectors.astype(np.float64)
        exact /= np.linalg.norm(exact, axis=1, keepdims=True) if rule == COSINE else 1
        for queries in (wide, across, 1e-9 * wide, 1e9 * wide, -wide):
            true = np.argsort(-queries @ exact.T, axis=1, kind="stable")[:, :K]
            found = scan.search(queries, K, ef=400).indices
            assert recall(found, true) >= 0.98
    nowhere = GraphScan.build(vectors, rule=RAW, links=32).search(np.zeros((1, DIM)), K)
    np.testing.assert_array_equal(nowhere.scores, 0)
