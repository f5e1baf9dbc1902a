"""Recall counts what is as near as the nearest, whatever its number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.cut import RAW, CutRule
from nestling.search.exact.neighbours import Metric, nearest
from nestling.search.exact.recall import Questions, share_as_near
from nestling.search.tuning.planner import build, compare_with_exact, retune, tune
from samples import examples


@given(st.data())
@settings(max_examples=examples(60))
def test_any_rows_of_the_best_distances_are_found(data: st.DataObject) -> None:
    """Whole numbers, so that ties are exact: any choice among equally near rows has recall 1, others less."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = rng.integers(0, 3, (data.draw(st.integers(20, 80)), 3)).astype(np.float32)
    queries = rng.integers(0, 3, (7, 3)).astype(np.float32)
    k = data.draw(st.integers(1, 19))
    questions = Questions.ask(queries, rows, k, rule=RAW, metric="euclidean")
    squares = ((queries[:, None] - rows[None]) ** 2).sum(axis=2)
    by_chance = np.lexsort((rng.random(squares.shape), squares), axis=1)[:, :k]
    np.testing.assert_array_equal(questions.recalls(by_chance), 1)
    worst = np.argsort(-squares, axis=1)[:, :k]
    kth = np.sort(squares, axis=1)[:, k - 1]
    expected = (np.take_along_axis(squares, worst, 1) <= kth[:, None]).mean(axis=1)
    np.testing.assert_allclose(questions.recalls(worst), expected)


def test_without_ties_it_is_the_share_of_the_same_rows() -> None:
    rng = np.random.default_rng(0)
    rows, queries = (rng.normal(size=(n, 24)).astype(np.float32) for n in (2_000, 60))
    for metric in ("dot", "euclidean"):
        questions = Questions.ask(queries, rows, 10, metric=metric)  # type: ignore[arg-type]
        found = nearest(queries, rows, 10, dim=12).indices
        same = (found[:, :, None] == questions.expected[:, None]).any(axis=1).mean(axis=1)
        np.testing.assert_array_equal(questions.recalls(found), same)


def test_rows_are_counted_once_and_what_is_missing_not_at_all() -> None:
    rows = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    questions = Questions.ask(rows[:1], rows, 3)
    assert questions.recalls(np.array([[0, 1, 2]])) == 1
    np.testing.assert_allclose(questions.recalls(np.array([[1, 1, 1]])), 1 / 3)
    np.testing.assert_allclose(questions.recalls(np.array([[2, -1, -1]])), 1 / 3)
    named = questions.named(np.array([f"r{i:02}" for i in range(12)]))
    np.testing.assert_allclose(named.recalls(np.array([["r02", "r00", "elsewhere"]])), 2 / 3)
    assert share_as_near([[np.nan, 0.0]], [1.0], 0, 2) == 0.5


def equal_groups(rows: int = 1_600, dim: int = 32) -> np.ndarray:
    """Half of the rows are different, half are eight groups of equal ones."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(rows // 2 + 8, dim)) / np.sqrt(np.arange(1, dim + 1))
    return rng.permutation(np.concatenate([values[8:], np.repeat(values[:8], rows // 16, axis=0)])).astype(
        "f4"
    )


HARD = {
    "equal groups": equal_groups,
    "all equal": lambda: np.ones((600, 8), np.float32) * np.arange(1, 9, dtype=np.float32),
    "near duplicates": lambda: (
        np.random.default_rng(2).normal(size=(1, 32))
        + 1e-6 * np.random.default_rng(3).normal(size=(1_500, 32))
    ).astype("f4"),
    "far from zero": lambda: (np.random.default_rng(4).normal(size=(1_500, 48)) + 1_000).astype("f4"),
}


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
@pytest.mark.parametrize("rule", [CutRule(), RAW], ids=str)
@pytest.mark.parametrize("case", HARD)
def test_the_exact_scan_reaches_any_target(case: str, rule: CutRule, metric: Metric) -> None:
    vectors = HARD[case]()
    options: Any = {"rule": rule, "metric": metric, "workers": 1}
    chosen, frontier = tune(vectors, plans=["flat@full"], recall=1.0, **options)
    assert (chosen.recall, chosen.low) == (1, 1)
    assert len(frontier) == 1


def test_an_index_of_equal_rows_is_planned_tuned_and_compared(tmp_path: Path) -> None:
    vectors = equal_groups()
    with build(tmp_path / "index", vectors, [f"r{i}" for i in range(len(vectors))], recall=0.99) as index:
        assert max(row["recall"] for row in index.table) >= 0.99
        chosen, _ = retune(index, recall=0.99, workers=1)
        assert chosen.low >= 0.99
        assert compare_with_exact(index, vectors[:80], target=0.99)[0] >= 0.99
