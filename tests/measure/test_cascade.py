"""A cascade exits at the first confident head, at the thresholds of a plain search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from nestling.errors import ConfigError, DataError
from nestling.granularity import Nesting
from nestling.measure.cascade import AdaptiveClassifier
from nestling.nn.heads import NestedClassifier

DIMS = (2, 8, 64)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of heads over the leading principal axes, ``[heads, n, 10]``, and labels."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order] - x.mean(0), y[order]
    x = x @ np.linalg.svd(x[:600], full_matrices=False)[2].T / 10
    heads = [LogisticRegression(max_iter=2000).fit(x[:600, :dim], y[:600]) for dim in DIMS]
    return np.stack([head.predict_proba(x[600:, :dim]) for head, dim in zip(heads, DIMS, strict=True)]), y[
        600:
    ]


def slow_threshold(sure: np.ndarray, right: np.ndarray, next_right: np.ndarray) -> float:
    best, threshold = -1.0, 0.0
    for t in np.linspace(0.1, 1, 100):
        accuracy = np.mean([r if s > t else n for s, r, n in zip(sure, right, next_right, strict=True)])
        if accuracy > best:
            best, threshold = accuracy, t
    return threshold


def test_thresholds_are_those_of_the_plain_search(digits: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = digits[0][:, :400], digits[1][:400]
    cascade = AdaptiveClassifier(DIMS).fit(probabilities, labels)
    sure, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    expected = [slow_threshold(sure[j], right[j], right[j + 1]) for j in range(2)]
    np.testing.assert_allclose(cascade.thresholds_, expected)


def test_it_answers_with_the_first_head_that_is_sure(digits: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = digits
    cascade = AdaptiveClassifier(DIMS).fit(probabilities[:, :400], labels[:400])
    rest = probabilities[:, 400:]
    heads, named = cascade.route(rest), cascade.predict(rest)
    for i in range(rest.shape[1]):
        sure = [j for j in range(2) if rest[j, i].max() > cascade.thresholds_[j]]
        head = sure[0] if sure else 2
        assert (heads[i], named[i]) == (head, rest[head, i].argmax())
    capped = cascade.route(rest, cap=8)
    np.testing.assert_array_equal(capped, np.minimum(heads, 1))


def test_it_is_as_right_as_the_full_head_with_fewer_dims(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Claim C10 in the small: thresholds from one half, the report from the other."""
    probabilities, labels = digits
    cascade = AdaptiveClassifier(DIMS).fit(probabilities[:, :600], labels[:600])
    rest, truth = probabilities[:, 600:], labels[600:]
    accuracy = (cascade.predict(rest) == truth).mean()
    full = (rest[-1].argmax(-1) == truth).mean()
    cost = cascade.cost(cascade.route(rest), num_classes=10)
    assert accuracy >= full - 0.01
    assert cost.answering_dim < cost.cumulative_dim < 48


def test_cost_counts_the_answering_head_and_all_that_were_tried() -> None:
    cost = AdaptiveClassifier(DIMS).cost(np.array([0, 1, 2, 2]), num_classes=1000)
    assert cost.answering_dim == (2 + 8 + 64 + 64) / 4
    assert cost.cumulative_dim == (2 + 10 + 74 + 74) / 4
    assert cost.answering_mflops == pytest.approx(0.0345)
    assert cost.cumulative_mflops == pytest.approx(0.04)


def test_an_unsure_head_that_never_helps_is_passed_over() -> None:
    """The threshold 1 is never exceeded, the smallest always where there are two classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    right, wrong = np.eye(2)[labels] * 0.98 + 0.01, np.eye(2)[1 - labels] * 0.98 + 0.01
    good = AdaptiveClassifier((1, 2)).fit(np.stack([right, wrong]), labels)
    bad = AdaptiveClassifier((1, 2)).fit(np.stack([wrong, right]), labels)
    assert good.thresholds_[0] == pytest.approx(0.1)
    assert (good.route(np.stack([right, wrong])) == 0).all()
    assert bad.thresholds_[0] > 0.98
    assert (bad.predict(np.stack([wrong, right])) == labels).all()


def test_calibration_finds_the_temperature() -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(4000, 5))
    labels = np.array([rng.choice(5, p=p) for p in softmax(logits)])
    heads = np.stack([softmax(3 * logits), softmax(logits), softmax(logits / 2)])
    cascade = AdaptiveClassifier(DIMS, calibrate=True).fit(heads, labels)
    np.testing.assert_allclose(cascade.temperatures_, [3, 1, 0.5], rtol=0.1)


@pytest.mark.parametrize("calibrate", [False, True])
def test_heads_are_computed_only_where_they_are_needed(calibrate: bool) -> None:
    torch.manual_seed(0)
    head = NestedClassifier(Nesting.chain(dim=DIMS), num_classes=4).eval()
    features = 3 * torch.randn(300, 64)
    logits = np.stack([each.detach().numpy() for each in head.forward_each(features).values()])
    cascade = AdaptiveClassifier(DIMS, calibrate=calibrate)
    cascade.fit(softmax(logits), logits[-1].argmax(-1))
    tempered = softmax(np.log(softmax(logits)) / cascade.temperatures_[:, None, None])
    cascade.thresholds_ = np.median(tempered.max(-1), axis=1)[:2]
    rows = []
    head.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    classes, heads = cascade.answer(head, features)
    np.testing.assert_array_equal(heads, cascade.route(softmax(logits)))
    np.testing.assert_array_equal(classes, cascade.predict(softmax(logits)))
    assert rows == [300, (heads > 0).sum(), (heads > 1).sum()]
    assert rows[2] < rows[1] < 300


GOOD = np.full((3, 100, 4), 0.25)
LABELS = np.zeros(100, np.int64)


@pytest.mark.parametrize(
    ("confidences", "labels", "message"),
    [
        (GOOD * 20 - 3, LABELS, "not between 0 and 1; give the softmax"),
        (np.full((3, 100, 4), np.nan), LABELS, "not between 0 and 1"),
        (GOOD[:2], LABELS, "3 heads"),
        (GOOD[0], LABELS, "3 heads"),
        (GOOD[:, :99], LABELS[:99], "99 held-out examples are too few"),
        (GOOD, LABELS[:99], "100 whole numbers from 0 to 3"),
        (GOOD, LABELS + 4, "from 0 to 3"),
        (GOOD, LABELS - 1, "from 0 to 3"),
        (GOOD, LABELS.astype(float), "not float64"),
    ],
)
def test_bad_data_are_named(confidences: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        AdaptiveClassifier(DIMS).fit(confidences, labels)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least two sizes"):
        AdaptiveClassifier([8])
    with pytest.raises(DataError, match="increase"):
        AdaptiveClassifier([8, 4])
    with pytest.raises(ConfigError, match="call fit"):
        AdaptiveClassifier(DIMS).predict(GOOD)
    with pytest.raises(ConfigError, match="choose from 2, 8, 64"):
        AdaptiveClassifier(DIMS).fit(GOOD, LABELS).route(GOOD, cap=1)
