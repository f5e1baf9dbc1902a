"""Exact search where single precision alone is not: offsets, duplicates, outliers, extremes."""

from __future__ import annotations

from itertools import product
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.cut import RAW, CutRule, cut
from nestling.errors import DataError
from nestling.search.certified.scan import CertifiedScan
from nestling.search.engine.engine import build as build_engine
from nestling.search.exact import neighbours as exact
from nestling.search.exact.funnel import Funnel
from nestling.search.exact.neighbours import Metric, nearest, nearest_each
from nestling.search.plan.plan import Point
from samples import examples

K = 10
L2 = CutRule()


def normal(rows: int, dim: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dim))


def true_scores(queries: Any, documents: Any, dim: int, rule: CutRule, metric: str) -> np.ndarray:
    """In double precision, distances by differences."""
    q, d = (cut(np.asarray(x, np.float64), dim, rule) for x in (queries, documents))
    if metric == "dot":
        return np.asarray(q @ d.T)
    return np.stack([np.linalg.norm(d - row, axis=1) for row in q])


def assert_exact(
    found: Any, queries: Any, documents: Any, rule: CutRule, metric: str, dim: int | None = None
) -> None:
    """All of the k best scores are found, exact within float32."""
    dim = queries.shape[1] if dim is None else dim
    truth = true_scores(queries, documents, dim, rule, metric)
    sign = 1 if metric == "euclidean" else -1
    best = sign * np.sort(sign * truth, axis=1)[:, : found.indices.shape[1]]
    mine = np.take_along_axis(truth, found.indices, 1)
    # Double precision, of numbers as large as the products that are summed.
    q, d = (np.linalg.norm(cut(x.astype(np.float64), dim, rule), axis=1).max() for x in (queries, documents))
    rounding = 1e-14 * q * d if metric == "dot" else 1e-7 * 1e-8 * max(q, d)
    np.testing.assert_allclose(mine, best, rtol=1e-12, atol=rounding)
    np.testing.assert_allclose(found.scores, best, rtol=2e-7, atol=rounding)
    assert all(len(set(row)) == len(row) for row in found.indices.tolist())


HARD = {
    "ordinary": lambda x: x,
    **{f"mean {offset:,}": (lambda x, offset=offset: x + offset) for offset in (10, 100, 1_000, 10_000)},
    "one coordinate near 5,000": lambda x: x + 5_000 * (np.arange(x.shape[1]) == 3),
    "one coordinate of two values": lambda x: (
        x + np.where(x[:, :1] > 0, 5_000, -5_000) * (np.arange(x.shape[1]) == 3)
    ),
    "near duplicates": lambda x: normal(1, x.shape[1], 9) + 1e-4 * x,
    "nearer duplicates": lambda x: normal(1, x.shape[1], 9) + 1e-6 * x,
    "few values": lambda x: np.sign(np.round(x)),
    "clusters far apart": lambda x: x * 1e-3 + normal(5, x.shape[1], 8)[np.arange(len(x)) % 5] * 100,
    "outliers": lambda x: np.where(np.arange(len(x))[:, None] % 500 == 7, 1e6 * x, x),
    "tiny": lambda x: x * 1e-10,
    "tinier": lambda x: x * 1e-25,
    "huge": lambda x: x * 1e19,
}


@pytest.mark.parametrize("kernels", ["", "off"])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("case", HARD)
def test_hard_vectors_are_searched_exactly(
    case: str, kind: Any, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NESTLING_KERNELS", kernels)
    rules_and_metrics: Any = list(product((RAW, L2), ("dot", "euclidean")))
    if kind == np.float16 and case in ("tiny", "tinier", "huge", "outliers", "mean 10,000"):
        pytest.skip("not in half precision")
    queries, documents = (HARD[case](normal(n, seed=n)).astype(kind) for n in (20, 1_500))
    for rule, metric in rules_and_metrics:
        if rule == L2 and case in ("tinier", "huge") and kind != np.float64:
            with pytest.raises(DataError, match="rows"):
                nearest(queries, documents, K, rule=rule, metric=metric)
            continue
        if case in ("tinier", "huge") and (rule == L2 or metric == "dot"):
            continue  # no length that float32 could divide by, no product that it could hold
        found = nearest(queries, documents, K, rule=rule, metric=metric)
        assert_exact(found, queries, documents, rule, metric)


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
@pytest.mark.parametrize("rule", [RAW, L2], ids=str)
@pytest.mark.parametrize("case", ["mean 1,000", "near duplicates", "few values", "clusters far apart"])
def test_hard_vectors_are_searched_exactly_at_every_size(case: str, rule: CutRule, metric: Metric) -> None:
    queries, documents = ((HARD[case](normal(n, seed=n)) + 0.01).astype(np.float32) for n in (60, 2_000))
    for dim, found in nearest_each(queries, documents, [3, 16, 48], 25, rule=rule, metric=metric).items():
        assert_exact(found, queries, documents, rule, metric, dim)


@pytest.mark.parametrize("rule", [RAW, L2, CutRule("layer_norm", "none")], ids=str)
def test_equal_rows_are_at_no_distance_and_in_their_order(rule: CutRule) -> None:
    """Three hundred rows that equal each query, more than are looked at a second time at once."""
    groups = (normal(12) + 300).astype(np.float32)
    documents = np.random.default_rng(3).permutation(np.repeat(groups, 300, axis=0))
    found = nearest(groups, documents, 40, rule=rule, metric="euclidean")
    assert (found.scores == 0).all()
    for query, row in zip(groups, found.indices, strict=True):
        np.testing.assert_array_equal(row, np.flatnonzero((documents == query).all(axis=1))[:40])


@given(st.data())
@settings(max_examples=examples(40))
def test_any_offset_and_scale_leave_the_order(data: st.DataObject) -> None:
    """Whole numbers moved and scaled exactly: neighbours, ties included, are those of the plain numbers."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dim, rows = data.draw(st.integers(1, 8)), data.draw(st.integers(20, 300))
    queries, documents = (rng.integers(-3, 4, (count, dim)) for count in (9, rows))
    offset = data.draw(st.integers(-(2**18), 2**18))
    scale = 2.0 ** data.draw(st.integers(-40, 40))
    k = data.draw(st.integers(1, 20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_PRODUCTS_AT_A_TIME", data.draw(st.sampled_from([1, 1 << 18])))
        patch.setattr(exact, "_FEWEST_MORE", data.draw(st.integers(0, 4)))
        moved = [((x + offset) * scale).astype(np.float32) for x in (queries, documents)]
        found = nearest(*moved, k, rule=RAW, metric="euclidean")
    truth = ((queries[:, None] - documents[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(found.indices, np.argsort(truth, axis=1, kind="stable")[:, :k])


def test_ordinary_vectors_are_not_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    doubts: list[int] = []
    begin = exact._Doubts.__init__

    def counted(self: Any, block: Any, size: int, rows: Any, floors: Any) -> None:
        doubts.append(len(rows))
        begin(self, block, size, rows, floors)

    monkeypatch.setattr(exact._Doubts, "__init__", counted)
    for rule, metric, offset in product((RAW, L2), ("dot", "euclidean"), (0, 1_000)):
        queries, documents = ((normal(n, 128, n) + offset).astype(np.float32) for n in (300, 5_000))
        if rule == RAW or not offset:
            nearest(queries, documents, K, rule=rule, metric=metric)  # type: ignore[arg-type]
    assert sum(doubts) <= 0.02 * 300 * 6


@pytest.mark.parametrize("bad", ["queries", "documents"])
@pytest.mark.parametrize("value", [1e30, 1e200])
@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_rows_too_large_to_be_compared_are_named(metric: Metric, value: float, bad: str) -> None:
    given_ = {"queries": normal(30), "documents": normal(400)}
    given_[bad][17] *= value
    if (metric, value, bad) == ("dot", 1e30, "queries"):
        return  # its products are large, and each fits
    with pytest.raises(
        DataError, match=rf"(row 17 of {bad} .* too large|{bad} hold .* row 17|row 17 of {bad})"
    ):
        nearest(**given_, k=3, rule=RAW, metric=metric)


def test_products_that_do_not_fit_are_told() -> None:
    vectors = (normal(40) * 1e19).astype(np.float32)
    with pytest.raises(DataError, match=r"the scores of row 0 of queries do not fit float32"):
        nearest(vectors[:1], vectors, 3, rule=RAW)


@pytest.mark.parametrize(
    ("value", "message"),
    [(0, "are all zero"), (1e-25, "are shorter than 1e-12, as good as zero"), (1e25, "are so large that")],
)
def test_rows_without_direction_are_told_why(value: float, message: str) -> None:
    documents = normal(400).astype(np.float32)
    documents[17] *= np.float32(value)
    with pytest.raises(DataError, match=f"row 17 of documents {message}"):
        nearest(normal(3), documents, 3)
    with pytest.raises(DataError, match=f"row 17 of queries {message}"):
        nearest(documents, normal(30), 3)


@pytest.mark.parametrize("case", ["mean 10,000", "near duplicates", "few values"])
@pytest.mark.parametrize("rule", [RAW, L2], ids=str)
def test_a_funnel_ends_in_exact_order(case: str, rule: CutRule) -> None:
    queries, documents = (HARD[case](normal(n, seed=n)).astype(np.float32) for n in (20, 600))
    whole = Funnel.adaptive(16, 48, shortlist=600).search(
        queries, documents, K, rule=rule, metric="euclidean"
    )
    assert_exact(whole, queries, documents, rule, "euclidean")


def test_agrees_with_faiss_where_vectors_lie_far_from_zero() -> None:
    queries, documents = ((normal(n, seed=n) + 1_000).astype(np.float32) for n in (100, 4_000))
    index = faiss.IndexFlatL2(48)
    index.add(documents)
    squares, rows = index.search(queries, K)
    found = nearest(queries, documents, K, rule=RAW, metric="euclidean")
    assert (found.indices == rows).mean() > 0.999
    np.testing.assert_allclose(found.scores, np.sqrt(squares), rtol=1e-5)


def test_a_certified_scan_speaks_of_the_vectors_that_were_given() -> None:
    vectors = normal(300)
    vectors[7] *= 1e200
    with pytest.raises(DataError, match=r"vectors hold .* row 7"):
        CertifiedScan.build(vectors, rule=RAW, metric="euclidean")


@pytest.mark.parametrize("kernels", ["", "off"])
@pytest.mark.parametrize("plan", ["flat@full", "ivf4@full > flat@full", "int8@full > rerank@full"])
@pytest.mark.parametrize("case", ["ordinary", "mean 1,000", "near duplicates"])
@pytest.mark.parametrize("rule", [RAW, L2], ids=str)
def test_engines_tell_distances_as_exactly(
    rule: CutRule, case: str, plan: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NESTLING_KERNELS", kernels)
    queries, documents = (HARD[case](normal(n, seed=n)).astype(np.float32) for n in (30, 800))
    documents[7] = documents[3]
    engine = build_engine(plan, documents, rule=rule, metric="euclidean", workers=1)
    place = Point(4 if "ivf" in plan else None, shortlists=(200,) if "rerank" in plan else ())
    found = engine.search(queries, K, place)
    truth = true_scores(queries, documents, 48, rule, "euclidean")
    mine = np.take_along_axis(truth, found.indices, 1)
    # faiss sums squared differences in single precision.
    np.testing.assert_allclose(mine, np.sort(truth, axis=1)[:, :K], rtol=1e-5)
    np.testing.assert_allclose(found.scores, mine, rtol=1e-5)
    own = engine.search(documents[3:4], 2, place)
    assert own.indices.tolist() == [[3, 7]]
    np.testing.assert_allclose(own.scores, 0, atol=1e-7)
