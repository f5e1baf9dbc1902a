"""STS, clustering and robustness follow their definitions; bad tasks are refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.metrics import v_measure_score
from sklearn.preprocessing import normalize

from nestling.cut import CutRule
from nestling.errors import ConfigError, DataError
from nestling.measure.tasks.tasks import (
    STS,
    Clustering,
    HeadClassification,
    NeighbourClassification,
    Robustness,
    Task,
)

DIMS = [2, 4, 8]
RNG = np.random.default_rng(0)


def test_sts_is_the_rank_correlation_of_cosines() -> None:
    first, gold = RNG.normal(size=(60, 8)), RNG.integers(0, 6, 60)
    second = first + RNG.normal(size=(60, 8)) * (6 - gold)[:, None]
    task = STS(first, second, gold)
    found = task.score(task.inputs, DIMS, CutRule()).statistic(np.ones((1, 60)))[0, :, 0]
    for dim, value in zip(DIMS, found, strict=True):
        cosines = (normalize(first[:, :dim]) * normalize(second[:, :dim])).sum(1)
        assert value == pytest.approx(spearmanr(cosines, gold).statistic, abs=1e-3)


def test_clustering_is_the_v_measure_of_k_means() -> None:
    labels = np.repeat(np.arange(4), 30)
    x = np.eye(8)[labels] + 0.2 * RNG.normal(size=(120, 8))
    task = Clustering(x, labels)
    found = task.score(task.inputs, DIMS, CutRule()).statistic(np.ones((1, 120)))[0, :, 0]
    for dim, value in zip(DIMS, found, strict=True):
        clusters = KMeans(4, n_init=3, random_state=0).fit_predict(normalize(x[:, :dim]))
        assert value == pytest.approx(v_measure_score(labels, clusters))
    assert found[2] > 0.9


def test_robustness_splits_its_inputs() -> None:
    train, labels = np.eye(8)[np.arange(40) % 8], np.arange(40) % 8
    clean = NeighbourClassification(train, labels, train[:20], labels[:20])
    shifted = NeighbourClassification(train, labels, np.roll(train[:20], 1, axis=0), labels[:20])
    task = Robustness(clean, shifted)
    assert task.name == "robustness of classification by neighbours"
    assert list(task.inputs) == ["clean train", "clean test", "shifted train", "shifted test"]
    found = task.score(task.inputs, [8], CutRule()).statistic(np.ones((1, 40)))[0, 0]
    np.testing.assert_allclose(found, [0, 0, 1])
    doubled = task.with_inputs({name: 2 * x for name, x in task.inputs.items()})
    np.testing.assert_array_equal(doubled.shifted.inputs["test"], 2 * shifted.test)
    with pytest.raises(ConfigError, match="two of one kind"):
        Robustness(clean, HeadClassification(train, labels))


def test_all_tasks_keep_the_protocol() -> None:
    x, labels = np.eye(4), np.arange(4)
    tasks = [STS(x, x, labels), Clustering(x, labels), HeadClassification(x, labels)]
    for task in [*tasks, Robustness(tasks[0], tasks[0])]:
        assert isinstance(task, Task)
        assert task.with_inputs(task.inputs).metrics == task.metrics


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: STS(["a"], ["b"], [1.0]), "at least 2; got 1, 1 and 1"),
        (lambda: STS(["a", "b"], ["c"], [1, 2]), "got 2, 1 and 2"),
        (lambda: STS(["a", "b"], ["c", "d"], [1, np.inf]), "row 1"),
        (lambda: STS(["a", "b"], ["c", "d"], [3, 3]), "all scores are 3.0"),
        (lambda: Clustering(["a"], [0, 1]), "2 labels"),
        (lambda: Clustering(["a"], [0.0]), "not float64"),
        (lambda: Clustering(["a", "b"], [0, 1], num_clusters=3), "from 1 to 2"),
    ],
)
def test_bad_tasks_are_named(make: object, message: str) -> None:
    with pytest.raises((DataError, ConfigError), match=message):
        make()  # type: ignore[operator]
