"""OPQ has no larger error than faiss's."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from nestling.cut import CutRule, cut
from nestling.search.exact.space import Space
from nestling.search.plan.plan import Plan
from nestling.search.stages.faiss_codes import Code

DIM, ROWS = 32, 3000


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    draw = np.random.default_rng(0)
    mixed = draw.normal(size=(ROWS, DIM)) / np.sqrt(1 + np.arange(DIM)) @ draw.normal(size=(DIM, DIM))
    return cut(mixed.astype(np.float32), DIM)


def error_of(trained: faiss.Index, rows: np.ndarray) -> float:
    return float(((trained.sa_decode(trained.sa_encode(rows)) - rows) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize(("parts", "bits"), [(8, 4), (4, 8)])
def test_its_errors_are_no_larger_than_those_of_faiss(sample: np.ndarray, parts: int, bits: int) -> None:
    scan = Plan.parse(f"opq{parts}x{bits}@full").resolve(DIM).scan
    code = Code.train(scan, Space.of(CutRule(), "dot"), sample, seed=0)
    np.testing.assert_allclose(code.rotation @ code.rotation.T, np.eye(DIM), atol=1e-4)
    ours = error_of(code.trained, code.rotate(sample))
    # As faiss does it: four steps of k-means for each rotation, then 25 from new centroids.
    rotation = faiss.OPQMatrix(DIM, parts)
    rotation.pq = quantiser = faiss.ProductQuantizer(DIM, parts, bits)
    rotation.niter = 20
    rotation.train(sample)
    theirs = faiss.IndexPQ(DIM, parts, bits)
    turned = rotation.apply(sample)
    theirs.train(turned)
    assert quantiser.d == DIM  # named, so that it outlives the training
    assert ours <= 1.02 * error_of(theirs, turned)
    plain = faiss.IndexPQ(DIM, parts, bits)
    plain.train(sample)
    assert ours < 0.97 * error_of(plain, sample)
    again = Code.train(scan, Space.of(CutRule(), "dot"), sample, seed=0)
    np.testing.assert_array_equal(again.encode(sample), code.encode(sample))
