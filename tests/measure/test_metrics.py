"""Metrics agree with plain loops, scikit-learn and scipy, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score, v_measure_score

from nestling.errors import DataError
from nestling.measure.tasks import metrics

hits = arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 12)))


def plain_average_precision(row: np.ndarray, divisor: int) -> float:
    total = 0.0
    for rank in range(1, len(row) + 1):
        if row[rank - 1]:
            total += sum(row[:rank]) / rank
    return total / divisor


@given(hits)
def test_metrics_of_hits_agree_with_plain_loops(table: np.ndarray) -> None:
    k = table.shape[1]
    relevant = table.sum(1) + 2  # two relevant documents were not found
    assert metrics.average_precision(table) == pytest.approx([plain_average_precision(r, k) for r in table])
    assert metrics.average_precision(table, relevant=relevant) == pytest.approx(
        [plain_average_precision(r, n) for r, n in zip(table, relevant, strict=True)]
    )
    assert metrics.precision(table) == pytest.approx([sum(r) / k for r in table])
    assert metrics.recall(table, relevant) == pytest.approx(
        [sum(r) / n for r, n in zip(table, relevant, strict=True)]
    )
    first = [next((1 / (i + 1) for i, hit in enumerate(r) if hit), 0.0) for r in table]
    assert metrics.reciprocal_rank(table) == pytest.approx(first)
    assert metrics.success(table).tolist() == [float(any(r)) for r in table]


@given(hits, st.integers(1, 12))
def test_k_is_the_same_as_a_narrower_table(table: np.ndarray, k: int) -> None:
    k = min(k, table.shape[1])
    for metric in (metrics.average_precision, metrics.precision, metrics.reciprocal_rank, metrics.success):
        np.testing.assert_array_equal(metric(table, k), metric(table[:, :k]))


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 30))
def test_ndcg_agrees_with_sklearn(seed: int, documents: int, k: int) -> None:
    k = min(k, documents)
    rng = np.random.default_rng(seed)
    grades = rng.integers(0, 4, (5, documents))
    grades[:, 0] = 1
    scores = rng.permuted(np.tile(np.arange(documents), (5, 1)), axis=1)
    order = np.argsort(-scores, axis=1)
    ranked = np.take_along_axis(grades, order, 1)
    ours = metrics.ndcg(ranked, ideal=-np.sort(-grades, axis=1), k=k)
    assert ours.mean() == pytest.approx(ndcg_score(grades, scores, k=k))


@given(st.lists(st.integers(-5, 5), min_size=3, max_size=30), st.randoms(use_true_random=False))
def test_spearman_agrees_with_scipy_with_ties(values: list[int], random: object) -> None:
    other = [random.randint(-3, 3) for _ in values]  # type: ignore[attr-defined]
    if len(set(values)) == 1 or len(set(other)) == 1:
        with pytest.raises(DataError, match="vary"):
            metrics.spearman(values, other)
        return
    assert metrics.spearman(values, other) == pytest.approx(spearmanr(values, other).statistic, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_v_measure_agrees_with_sklearn(rows: list[tuple[int, int]]) -> None:
    labels, clusters = zip(*rows, strict=True)
    assert metrics.v_measure(labels, clusters) == pytest.approx(v_measure_score(labels, clusters), abs=1e-9)


def test_label_hits_count_missing_neighbours_as_misses() -> None:
    found = metrics.label_hits([[0, 1, -1], [2, -1, -1]], labels=["a", "b", "a"], query_labels=["a", "a"])
    assert found.tolist() == [[True, False, False], [True, False, False]]


def test_sixteen_bit_labels_are_refused() -> None:
    """4,214 classes stored as float16 collapse to 3,102, which inflates every measure made of them."""
    labels = np.arange(4214)
    assert len(np.unique(labels.astype(np.float16))) < 4214
    with pytest.raises(DataError, match="not float16; convert them to int64"):
        metrics.label_hits([[0]], labels.astype(np.float16), [0])
    with pytest.raises(DataError, match="labels of the queries"):
        metrics.label_hits([[0]], labels, np.array([0.0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.label_hits([[5]], [1, 2], [1]), "rows from 5 to 5, but the database has 2"),
        (lambda: metrics.label_hits([[0.5]], [1, 2], [1]), "whole numbers"),
        (lambda: metrics.label_hits([[0], [1]], [1, 2], [1]), "one row per query"),
        (lambda: metrics.label_hits([[0]], [], [1]), "at least one"),
        (lambda: metrics.precision([[1, 0]], 3), "choose 1 to 2"),
        (lambda: metrics.precision([[1, 0]], 0), "choose 1 to 2"),
        (lambda: metrics.precision([1, 0]), "one row per query"),
        (lambda: metrics.precision([[np.nan]]), "NaN"),
        (lambda: metrics.recall([[1], [0]], [1, 0]), "row 1"),
        (lambda: metrics.ndcg([[0]], [[0]]), "row 0"),
        (lambda: metrics.average_precision([[0]], relevant=[0]), "row 0"),
        (lambda: metrics.spearman([1], [1]), "at least 2"),
        (lambda: metrics.spearman([1, 2], [1, np.nan]), "row 1"),
        (lambda: metrics.spearman(["a", "b"], [1, 2]), "numbers"),
        (lambda: metrics.v_measure([1, 2], [1]), "2 labels"),
    ],
)
def test_bad_input_is_named(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]


@given(hits, st.integers(1, 20))
def test_map_is_that_of_the_field(table: np.ndarray, more: int) -> None:
    """By plain loops: over min(k, relevant) as sentence-transformers, over all of them as trec_eval."""
    from nestling.measure.tasks.retrieval import Retrieval

    k = table.shape[1]
    documents = k + more
    relevant = [np.flatnonzero(row).tolist() + list(range(k, documents)) for row in table]
    measures = ("map", "trec_map", "mrl_map")
    task = Retrieval(np.zeros((len(table), 1)), np.zeros((documents, 1)), relevant, k, measures)
    found = task._judge(np.tile(np.arange(k), (len(table), 1)))
    for place, divisor in enumerate((lambda n: min(k, n), lambda n: n, lambda n: k)):
        slow = [plain_average_precision(r, divisor(len(n))) for r, n in zip(table, relevant, strict=True)]
        assert found[:, place] == pytest.approx(slow)


@given(st.integers(1, 12), st.integers(1, 30))
def test_a_perfect_search_has_map_1_whatever_is_relevant(k: int, relevant: int) -> None:
    from nestling.measure.tasks.retrieval import Retrieval

    documents = max(k, relevant) + 3
    task = Retrieval(np.zeros((1, 1)), np.zeros((documents, 1)), [list(range(relevant))], k, ("map", "ndcg"))
    assert task._judge(np.arange(k)[None]) == pytest.approx(np.ones((1, 2)))
