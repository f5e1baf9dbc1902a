"""Classification tasks agree with scikit-learn: neighbours, probes, class means."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import normalize

from nestling.cut import RAW, CutRule
from nestling.errors import ConfigError, DataError
from nestling.measure.tasks.tasks import (
    HeadClassification,
    LinearProbe,
    NearestClassMean,
    NeighbourClassification,
)

DIMS = [12, 40, 64]
PIXELS, DIGITS = load_digits(return_X_y=True)
RNG = np.random.default_rng(0)
# Whole pixel values would tie, which everybody decides in another way.
X = (PIXELS + RNG.uniform(0.01, 0.5, PIXELS.shape))[:, RNG.permutation(64)].astype(np.float32)
Y = DIGITS.astype(np.int64)
PARTS = (X[:900], Y[:900], X[900:], Y[900:])


def accuracy(task: object, rule: CutRule = CutRule()) -> np.ndarray:
    return task.score(task.inputs, DIMS, rule).values.mean(axis=1)[:, 0]  # type: ignore[attr-defined]


def prepared(x: np.ndarray, dim: int, rule: CutRule) -> np.ndarray:
    return normalize(x[:, :dim]) if rule.after == "l2" else x[:, :dim]


@pytest.mark.parametrize("rule", [CutRule(), RAW], ids=str)
def test_nearest_neighbour_agrees_with_sklearn(rule: CutRule) -> None:
    train, train_labels, test, test_labels = PARTS
    expected = [
        KNeighborsClassifier(1)
        .fit(prepared(train, dim, rule), train_labels)
        .score(prepared(test, dim, rule), test_labels)
        for dim in DIMS
    ]
    assert accuracy(NeighbourClassification(*PARTS), rule) == pytest.approx(expected, abs=2e-3)


def test_of_equally_many_votes_the_nearest_wins() -> None:
    train = np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3], [0, 1]])
    labels = ["b", "a", "a", "b", "c"]
    task = NeighbourClassification(train, labels, np.array([[1.0, 0.0]] * 2), ["b", "a"], k=4)
    assert task.score(task.inputs, [2], CutRule()).values[0, :, 0].tolist() == [1.0, 0.0]
    task = NeighbourClassification(train, labels, np.array([[1.0, 0.0]] * 2), ["b", "a"], k=3)
    assert task.score(task.inputs, [2], CutRule()).values[0, :, 0].tolist() == [0.0, 1.0]


def test_linear_probe_is_a_logistic_regression() -> None:
    train, train_labels, test, test_labels = PARTS
    expected = [
        LogisticRegression(max_iter=1000)
        .fit(normalize(train[:, :dim]), train_labels)
        .score(normalize(test[:, :dim]), test_labels)
        for dim in DIMS
    ]
    assert accuracy(LinearProbe(*PARTS)) == pytest.approx(expected, abs=2e-3)


def test_nearest_class_mean_agrees_with_sklearn() -> None:
    train, train_labels, test, test_labels = PARTS
    expected = [
        NearestCentroid().fit(train[:, :dim], train_labels).score(test[:, :dim], test_labels) for dim in DIMS
    ]
    assert accuracy(NearestClassMean(*PARTS), RAW) == pytest.approx(expected)


def test_nearest_class_mean_compares_unit_means_by_cosine() -> None:
    train, train_labels, test, test_labels = PARTS
    unit = normalize(train[:, :40])
    means = np.stack([unit[train_labels == c].mean(0) for c in range(10)])
    named = pairwise_distances(normalize(test[:, :40]), means, metric="cosine").argmin(1)
    assert accuracy(NearestClassMean(*PARTS))[1] == pytest.approx((named == test_labels).mean())


def test_few_shots_are_drawn_from_every_class() -> None:
    one, same, other, all_rows = (
        accuracy(NearestClassMean(*PARTS, shots=shots, seed=seed))
        for shots, seed in ((1, 0), (1, 0), (1, 1), (None, 0))
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert (one < all_rows).all()
    rows = NearestClassMean(*PARTS, shots=5)._shots(PARTS[1])
    assert np.bincount(PARTS[1][rows]).tolist() == [5] * 10


def test_the_tail_is_measured_by_itself() -> None:
    counts = [200, 150, 50, 10, 5]
    train_labels = np.repeat(np.arange(5), counts)
    train = np.eye(5)[train_labels]
    test = np.eye(5)[[0, 1, 2, 3, 3, 3]]
    task = NearestClassMean(train, train_labels, test, [0, 1, 2, 3, 3, 4], tail=(20, 100))
    assert task.metrics == ("accuracy", "head accuracy", "medium accuracy", "tail accuracy")
    found = task.score(task.inputs, [5], RAW).statistic(np.ones((1, 6)))[0, 0]
    np.testing.assert_allclose(found, [5 / 6, 1, 1, 2 / 3])


def test_head_classification_reads_logits() -> None:
    logits = np.array([[[2, 1, 0], [0, 1, 0]], [[0, 0, 1], [0, 3, 1]]], np.float32)
    task = HeadClassification(["a", "b"], [0, 1])
    assert task.score({"x": logits}, [1, 2], RAW).values[:, :, 0].tolist() == [[1, 1], [0, 1]]
    with pytest.raises(DataError, match="label 3 is none of the 3 classes"):
        HeadClassification(["a", "b"], [0, 3]).score({"x": logits}, [1, 2], RAW)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HeadClassification(["a"], ["x"]), "whole numbers from 0"),
        (lambda: HeadClassification(["a"], [-1]), "whole numbers from 0"),
        (lambda: HeadClassification(["a"], [0, 1]), "2 labels were given for 1"),
        (lambda: NeighbourClassification(X[:3], [0, 1, 2], X[:1], [3]), "test labels of row 0"),
        (lambda: NeighbourClassification(X[:3], [0, 1, 2], X[:1], [0.0]), "not float64"),
        (lambda: NeighbourClassification(X[:3], [0, 1], X[:1], [0]), "2 labels were given for 3 train"),
        (lambda: NeighbourClassification(X[:3], [0, 1, 2], X[:1], [0], k=4), "k=4"),
        (lambda: NearestClassMean(X[:3], [0, 0, 1], X[:1], [0], shots=2), "class 1 has 1 training rows"),
    ],
)
def test_bad_tasks_are_named(make: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()  # type: ignore[operator]


def test_borders_of_the_tail_must_increase() -> None:
    with pytest.raises(ConfigError, match="two increasing counts"):
        NearestClassMean(X[:3], [0, 0, 1], X[:1], [0], tail=(100, 20))
