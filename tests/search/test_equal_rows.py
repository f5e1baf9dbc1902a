"""Groups of equal and nearly equal rows cost graphs no recall, and all their members are found."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nestling.cut import RAW, CutRule
from nestling.search.engine.engine import Engine, build
from nestling.search.exact.neighbours import Metric, nearest
from nestling.search.graph.equal_rows import Equal, find_equal
from nestling.search.graph.scan import GraphScan
from nestling.search.plan.plan import Point
from samples import examples

Floats = NDArray[np.float32]
SPACES: dict[str, tuple[CutRule, Metric]] = {
    "cosine": (CutRule(), "dot"),
    "angle": (CutRule(), "euclidean"),
    "dot": (RAW, "dot"),
    "distance": (RAW, "euclidean"),
}
PLANS = (
    "graph32@full > rerank:fp16@full",
    "graph32@full > rerank:int8@full",
    "graph32@32 > rerank@full",
    "graph32@32 > rerank:fp16@32 > rerank@full",
    "hnsw16@full > flat@full",
    "hnsw16@32 > int8@full > rerank@full",
)
GROUPS = {"100 of 40": (100, 40, 0.0), "3 of 2,000": (3, 2000, 0.0)}
GROUPS |= {f"3 of 1,000 at {gap}": (3, 1000, gap) for gap in (1e-6, 1e-3)}


def drawn(rows: int, seed: int, dim: int = 64) -> Floats:
    """Vectors whose later entries matter less."""
    values = np.random.default_rng(seed).normal(size=(rows, dim))
    return (values * 2.0 ** -np.linspace(0, 4, dim)).astype(np.float32)


def with_groups(groups: int, each: int, gap: float, rows: int = 2500) -> Floats:
    draw, base = np.random.default_rng(1), drawn(rows + groups, 0)
    copies = np.repeat(base[rows:], each, 0)
    copies += (gap * draw.normal(size=copies.shape) * np.abs(copies)).astype(np.float32)
    return draw.permutation(np.concatenate([base[:rows], copies]))


def exact_scores(queries: Any, rows: Any, rule: CutRule, metric: Metric) -> Any:
    """``Float64[queries, rows]`` of ``Float[queries, rows, dim]``; larger ones are better."""
    asked, given = queries[:, None].astype(np.float64), rows.astype(np.float64)
    if rule.after == "l2":
        asked, given = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (asked, given))
    return -np.linalg.norm(asked - given, axis=-1) if metric == "euclidean" else (asked * given).sum(axis=-1)


def recall_by_score(
    found: Any,
    queries: Any,
    vectors: Any,
    rule: CutRule = CutRule(),
    metric: Metric = "dot",
    rows: Any = None,
) -> float:
    """The share of answers as near as the k-th nearest of some rows; none stands twice.

    The slack is the rounding of what is searched: copies of 16 bits, and distances of unit vectors.
    """
    assert all(len(set(row)) == len(row) for row in found.indices)
    rows = np.arange(len(vectors)) if rows is None else rows
    k = found.indices.shape[1]
    true = rows[nearest(queries, vectors[rows], k, rule=rule, metric=metric).indices[:, -1:]]
    last = exact_scores(queries, vectors[true], rule, metric)
    slack = 1e-4 * np.abs(last).max()
    return float((exact_scores(queries, vectors[found.indices], rule, metric) >= last - slack).mean())


@cache
def recall_without(text: str) -> float:
    vectors, queries = drawn(2500, 0), drawn(100, 2)
    return recall_by_score(build(text, vectors).search(queries, 10), queries, vectors)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("text", PLANS)
def test_groups_cost_no_recall(text: str, groups: str) -> None:
    """Measured without groups: 0.98 to 1.0; before rows were grouped, down to 0.05 with them."""
    vectors, queries = with_groups(*GROUPS[groups]), drawn(100, 2)
    recall = recall_by_score(build(text, vectors).search(queries, 10), queries, vectors)
    assert recall >= max(0.96, recall_without(text) - 0.02)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("text", PLANS)
def test_members_are_filtered_and_all_are_found(text: str, space: str) -> None:
    rule, metric = SPACES[space]
    vectors = with_groups(20, 60, 0.0, rows=1500)
    engine = build(text, vectors, rule=rule, metric=metric)
    values, counts = np.unique(vectors, axis=0, return_counts=True)
    queries = values[counts > 1]
    found = engine.search(queries, 60)
    if metric == "euclidean" or rule.after == "l2":  # by inner product longer rows are nearer than copies
        assert np.mean(vectors[found.indices] == queries[:, None]) == 1
    draw, nodes = np.random.default_rng(3), Equal(engine._arrays["equal.first"]).nodes
    without_stand_ins = np.ones(len(vectors), np.bool_)
    without_stand_ins[nodes[::2]] = False
    for allowed in (draw.random(len(vectors)) < 0.5, without_stand_ins):
        found = engine.search(queries, 40, allowed=allowed)
        assert allowed[found.indices].all()
        assert recall_by_score(found, queries, vectors, rule, metric, np.flatnonzero(allowed)) >= 0.97


@pytest.mark.parametrize("text", PLANS)
def test_scores_are_those_of_exact_search(text: str) -> None:
    vectors, queries = with_groups(50, 30, 1e-6, rows=1500), drawn(30, 2)
    engine = build(text, vectors)
    found = engine.search(queries, 20)
    exact = exact_scores(queries, vectors[found.indices], CutRule(), "dot")
    tolerance = 2e-2 if "int8" in text else 1e-3 if "fp16" in text else 1e-5
    np.testing.assert_allclose(found.scores, exact, atol=tolerance)
    assert (np.diff(found.scores, axis=1) <= 0).all()


@pytest.mark.parametrize("text", PLANS)
def test_groups_are_saved_and_extracted(text: str, tmp_path: Path) -> None:
    vectors, queries = with_groups(20, 50, 0.0, rows=1500), drawn(20, 2)
    engine = build(text, vectors, folder=tmp_path / "built")
    wanted = engine.search(queries, 10)
    (tmp_path / "saved").mkdir()
    engine.save(tmp_path / "saved")
    again = Engine.load(tmp_path / "saved", vectors, engine.plan, CutRule())
    np.testing.assert_array_equal(again.search(queries, 10).indices, wanted.indices)
    in_memory = build(text, vectors, workers=1)
    assert recall_by_score(in_memory.search(queries, 10), queries, vectors) >= 0.95
    assert engine.cost().bytes_stored >= engine._arrays["equal.first"].nbytes
    if engine.plan.scan.name != "graph" or "@32" in text:
        small = engine.extract(48)
        part = engine.search(queries, 10, dim=48)
        np.testing.assert_array_equal(small.search(queries[:, :48], 10).indices, part.indices)
        assert recall_by_score(part, queries[:, :48], vectors[:, :48]) >= 0.93


def test_rows_that_differ_need_no_table() -> None:
    for text in ("graph16@full > rerank@full", "hnsw8@full > flat@full"):
        assert "equal.first" not in build(text, drawn(1500, 0))._arrays


@pytest.mark.parametrize("text", ["graph32@16 > rerank@full", "hnsw16@16 > flat@16 > rerank@full"])
def test_rows_equal_in_the_walked_prefix_alone_keep_their_own_scores(text: str) -> None:
    vectors, queries = drawn(3000, 0), drawn(40, 2)
    vectors[:1500, :16] = np.repeat(vectors[:50, :16], 30, 0)
    engine = build(text, vectors)
    found = engine.search(queries, 10, Point(ef=400, shortlists=(400,)))
    exact = exact_scores(queries, vectors[found.indices], CutRule(), "dot")
    np.testing.assert_allclose(found.scores, exact, atol=1e-5)
    wide = build("flat@16 > rerank@full", vectors).search(queries, 10, Point(shortlists=(400,)))
    assert recall_by_score(found, queries, vectors) >= recall_by_score(wide, queries, vectors) - 0.05


def test_a_graph_by_itself_knows_groups(tmp_path: Path) -> None:
    vectors, queries = with_groups(20, 300, 0.0), drawn(100, 2)
    for metric in ("dot", "euclidean"):
        scan = GraphScan.build(vectors, rule=RAW, metric=metric, links=32)
        found = scan.search(queries, 10, ef=200)
        assert recall_by_score(found, queries, vectors, RAW, metric) >= 0.95
        scan.save(tmp_path / metric)
        again = GraphScan.load(tmp_path / metric, vectors).search(queries, 10, ef=200)
        np.testing.assert_array_equal(again.indices, found.indices)
        allowed = np.arange(len(vectors)) % 2 == 0
        assert allowed[scan.search(queries, 10, allowed=allowed).indices].all()


@settings(max_examples=examples(50))
@given(st.integers(1, 60), st.integers(1, 6), st.integers(0, 9), st.sampled_from([0.0, 1e-7, 1e-5]))
def test_equal_rows_are_grouped_and_others_are_not(rows: int, dim: int, seed: int, gap: float) -> None:
    """Of values that are far apart or (nearly) equal, whatever else is there: outliers, offsets, one row."""
    draw = np.random.default_rng(seed)
    values = draw.integers(-3, 4, size=(rows, dim)).astype(np.float64)
    given_rows = values + gap * draw.uniform(-1, 1, size=values.shape)
    if seed % 3 == 1:
        given_rows += 1000
    if seed % 3 == 2 and rows > 20:
        given_rows[0] = values[0] = 1e30
    first = find_equal(lambda span: given_rows[span], rows, seed, block=7)
    assert Equal(first).fits(rows)
    assert (values[first] == values).all()
    if gap == 0:
        assert len(np.unique(first)) == len(np.unique(values, axis=0))


def test_members_come_without_repeats_and_up_to_what_is_asked() -> None:
    equal = Equal(np.array([0, 0, 2, 0, 4, 2], np.int32))
    every = equal.members()
    assert equal.nodes.tolist() == [0, 2, 4]
    assert every.is_needed(np.array([[4, 0]]))
    assert not every.is_needed(np.array([[4, -1]]))
    assert [sorted(row[row >= 0]) for row in every.expand(np.array([[0, 3, -1], [5, 4, 1]]), 2)] == [
        [0, 1, 3],
        [0, 1, 2, 3, 4, 5],
    ]
    some = equal.members(np.array([False, True, False, True, True, False]))
    assert some.reached.tolist() == [True, False, False, False, True, False]
    assert some.expand(np.array([[0, 2]]), 3).tolist() == [[1, 3, -1]]
    for first in ([0, 2, 2], [0, 0, 1], [1, 1], [-1, 1]):
        assert not Equal(np.array(first, np.int32)).fits(len(first))
