"""Numbers, targets, nestings and tasks are accepted in every form and refused in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nestling.errors import ConfigError
from nestling.granularity import Nesting
from nestling.measure import Clustering, Fidelity, NearestClassMean, NeighbourClassification, Retrieval, sweep
from nestling.measure.baselines import pca, random_dims, truncation

X = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
LABELS = np.arange(40) % 4
TASK = Retrieval(X, X, range(40), k=3)
CURVE = sweep(lambda x: x, TASK, "dim=2,8", resamples=20)

WRONG = ["3", 2.5, True, None, [3], np.nan]


COUNTS: list[Callable[[Any], Any]] = [
    lambda k: Retrieval(X, X, range(40), k=k),
    lambda k: Retrieval.from_vectors(X, X, k=k),
    lambda k: NeighbourClassification(X, LABELS, X, LABELS, k=k),
    lambda k: NearestClassMean(X, LABELS, X, LABELS, shots=k if k is not None else "1"),
    lambda k: Clustering(X, LABELS, num_clusters=k if k is not None else "1"),
    lambda k: Fidelity(X, k=k if k is not None else "1"),
    lambda k: Fidelity(X, limit=k),
    lambda k: sweep(lambda x: x, TASK, "dim=2,8", resamples=k),
    lambda k: sweep(lambda x: x, TASK, "dim=2,8", batch_size=k),
    lambda k: sweep(lambda x: x, TASK, "dim=2,8", seed=k),
    lambda k: CURVE.chart(width=k),
]


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("call", COUNTS)
def test_every_count_of_a_measurement_is_checked(call: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(ConfigError, match="must be a whole number"):
        call(value)


@pytest.mark.parametrize("name", ["keep", "at_least", "max_bytes", "max_ms", "max_flops", "max_model_bytes"])
@pytest.mark.parametrize("value", ["0.9", True, [1], (0.5, 0.9)])
def test_every_target_of_a_choice_is_checked(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}=.* must be a number"):
        CURVE.choose(**{name: value})


@pytest.mark.parametrize("given", ["dim=2,8", [2, 8], (2, 8), Nesting.parse("dim=2,8")])
def test_a_nesting_is_taken_in_every_form(given: Any) -> None:
    expected = Nesting.parse("dim=2,8")
    assert Nesting.of(given) == expected
    assert sweep(lambda x: x, TASK, given, resamples=5).nesting == expected
    for curve in (truncation(TASK, given), random_dims(TASK, given), pca(TASK, given, X)):
        assert curve.nesting == expected


def test_trained_things_take_a_nesting_in_every_form() -> None:
    from nestling.encoders.text.encoder import TextEncoder
    from nestling.losses import InfoNCE, Nested
    from nestling.nn.adapter import Adapter
    from nestling.nn.heads import NestedClassifier

    expected = Nesting.parse("dim=8,16")
    for given in ("dim=8,16", [8, 16], expected):
        assert Nested(InfoNCE(), given).nesting == expected
        assert NestedClassifier(given, 3).nesting == expected
        assert Adapter(given, 16).nesting == expected
        assert TextEncoder.open("wordllama", given).nesting == expected


@pytest.mark.parametrize("given", [8, 2.5, b"dim=8", {"dim": 8}])
def test_what_is_no_nesting_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="is no nesting; give text such as"):
        Nesting.of(given)


def test_what_is_no_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="a task is needed"):
        sweep(lambda x: x, X, "dim=2,8")  # type: ignore[arg-type]
