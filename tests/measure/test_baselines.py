"""Baselines: truncation is the plain sweep, random dims follow the seed, principal axes do better."""

from __future__ import annotations

import numpy as np
import pytest

from nestling.errors import DataError
from nestling.granularity import Nesting
from nestling.measure.baselines import pca, random_dims, truncation
from nestling.measure.encode import encode_task
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import Retrieval

NESTING = Nesting.parse("dim=2..32")
RNG = np.random.default_rng(0)
# Four axes tell documents apart and the others are noise, in a basis that hides which is which.
BASIS = np.linalg.qr(RNG.normal(size=(32, 32)))[0]
ENERGY = np.where(np.arange(32) < 4, 3, 0.3)
DOCUMENTS = RNG.normal(size=(500, 32)) * ENERGY @ BASIS
QUERIES = DOCUMENTS[:100] + 0.6 * RNG.normal(size=(100, 32))
TASK = Retrieval(QUERIES, DOCUMENTS, range(100))


def values(curve: object) -> list[float]:
    return [row.value for row in curve.column()]  # type: ignore[attr-defined]


def test_truncation_is_the_plain_sweep() -> None:
    assert values(truncation(TASK, NESTING)) == values(sweep(lambda x: x, TASK, NESTING))


def test_random_dims_are_nested_and_drawn_by_the_seed() -> None:
    one, same, other = (random_dims(TASK, NESTING, seed=seed) for seed in (1, 1, 2))
    assert one.rows == same.rows
    assert values(one) != values(other)
    assert values(one)[-1] == pytest.approx(values(truncation(TASK, NESTING))[-1])
    order = np.random.default_rng(1).permutation(32)
    by_hand = Retrieval(QUERIES[:, order], DOCUMENTS[:, order], range(100))
    assert values(one) == values(truncation(by_hand, NESTING))


def test_principal_axes_beat_truncation_where_energy_is_hidden() -> None:
    curve = pca(TASK, NESTING, DOCUMENTS)
    assert values(curve)[1] > values(truncation(TASK, NESTING))[1] + 0.1
    axes = np.linalg.svd(DOCUMENTS)[2].T
    by_hand = Retrieval(QUERIES @ axes, DOCUMENTS @ axes, range(100))
    assert values(curve) == pytest.approx(values(truncation(by_hand, NESTING)), abs=0.01)


def test_texts_must_be_encoded_first() -> None:
    texts = Retrieval([f"q{i}" for i in range(20)], [f"d{i}" for i in range(20)], range(20))
    with pytest.raises(DataError, match="encode_task"):
        random_dims(texts, NESTING)
    encoded = encode_task(lambda rows: np.stack([DOCUMENTS[int(row[1:])] for row in rows]), texts)
    assert values(truncation(encoded, NESTING))[-1] == 1
