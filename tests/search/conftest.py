"""Vectors like those of nested encoders, made on the spot, and what is asked of answers about them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nestling.cut import CutRule, cut
from nestling.search.exact.neighbours import Metric, Neighbours


class Nested:
    """Clusters, with most of what tells rows apart in the early entries."""

    @staticmethod
    def vectors(rows: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
        generator = np.random.default_rng(seed)
        centres = np.random.default_rng(99).normal(size=(40, dim))
        values = centres[generator.integers(40, size=rows)] + generator.normal(size=(rows, dim))
        return (values / np.sqrt(np.arange(1, dim + 1))).astype(np.float32)

    @staticmethod
    def exact(
        queries: NDArray[Any], vectors: NDArray[Any], k: int, dim: int, rule: CutRule, metric: Metric
    ) -> Neighbours:
        """Every score in double precision, then sorted."""
        asked, rows = (cut(x.astype(np.float64), dim, rule) for x in (queries, vectors))
        keys = -(asked @ rows.T) if metric == "dot" else np.linalg.norm(asked[:, None] - rows[None], axis=2)
        order = np.argsort(keys, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(keys, order, 1)
        return Neighbours(order, (-best if metric == "dot" else best).astype(np.float32))

    @staticmethod
    def recall(found: Neighbours, truth: Neighbours) -> float:
        """Share of true neighbours that were found; -1 counts as a miss."""
        pairs = zip(found.indices, truth.indices, strict=True)
        return sum(len(set(a[a >= 0]) & set(b)) for a, b in pairs) / truth.indices.size

    @staticmethod
    def assert_same(found: Neighbours, wanted: Neighbours, tolerance: float = 2e-5) -> None:
        """The scores agree and, where no neighbour has nearly the same score, the rows too."""
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=tolerance, atol=tolerance)
        gaps = np.abs(np.diff(wanted.scores, axis=1)) > 20 * tolerance
        clear: Any = np.pad(gaps, ((0, 0), (1, 0)), constant_values=True) & np.pad(gaps, ((0, 0), (0, 1)))
        np.testing.assert_array_equal(found.indices[clear], wanted.indices[clear])


@pytest.fixture(scope="session")
def nested() -> Nested:
    return Nested()
