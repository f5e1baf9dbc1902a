"""Exact search agrees with a plain search and with faiss, ties and half precision included."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.cut import RAW, CutRule, cut
from nestling.errors import ConfigError, DataError
from nestling.search.exact import neighbours as exact
from nestling.search.exact.neighbours import Neighbours, nearest, nearest_each
from samples import examples

DIMS = [3, 8, 16, 48]


def normal(n: int, dim: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)


def plain(
    queries: np.ndarray, documents: np.ndarray, k: int, dim: int, rule: CutRule, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """The same in float64, one size at a time, sorting everything."""
    q, d = (cut(x.astype(np.float64), dim, rule) for x in (queries, documents))
    if metric == "dot":
        scores = q @ d.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    else:
        scores = np.sqrt(((q[:, None] - d[None]) ** 2).sum(-1))
        order = np.argsort(scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, 1)


@pytest.fixture
def tiny_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that a few hundred documents are many tiles, several reads and several query blocks."""
    monkeypatch.setattr(exact, "_QUERIES_AT_A_TIME", 7)
    monkeypatch.setattr(exact, "_PRODUCTS_AT_A_TIME", 1)
    monkeypatch.setattr(exact, "_FLOATS_READ_AT_A_TIME", 150 * 48)


@pytest.mark.usefixtures("tiny_tiles")
@pytest.mark.parametrize("metric", ["dot", "euclidean"])
@pytest.mark.parametrize("rule", [CutRule(), RAW, CutRule(before="layer_norm")], ids=str)
@pytest.mark.parametrize("k", [1, 10, 100, 500])
def test_agrees_with_the_plain_search_at_every_size(k: int, rule: CutRule, metric: str) -> None:
    queries, documents = normal(23), normal(500, seed=1)
    found = nearest_each(queries, documents, DIMS, k, rule=rule, metric=metric)
    assert list(found) == DIMS
    for dim, each in found.items():
        order, scores = plain(queries, documents, k, dim, rule, metric)
        # Distances are roots of differences of float32 products.
        np.testing.assert_allclose(each.scores, scores, rtol=1e-4, atol=1e-5 if metric == "dot" else 2e-3)
        # A neighbour may differ where two scores differ by less than rounding.
        assert (each.indices == order).mean() > 0.999
        assert each.indices.dtype == np.int64
        assert each.scores.dtype == np.float32


@given(st.data())
@settings(max_examples=examples(60))
def test_of_equal_scores_the_first_document_wins(data: st.DataObject) -> None:
    """Small whole numbers: float32 is exact, so even ties must come out as in the plain search."""
    dim = data.draw(st.integers(1, 6))
    n = data.draw(st.integers(1, 300))
    k = data.draw(st.integers(1, n))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    queries = rng.integers(-2, 3, (data.draw(st.integers(1, 20)), dim)).astype(np.float32)
    documents = rng.integers(-2, 3, (n, dim)).astype(np.float32)
    dims = sorted(data.draw(st.sets(st.integers(1, dim), min_size=1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_PRODUCTS_AT_A_TIME", data.draw(st.sampled_from([1, 1 << 18])))
        for size, each in nearest_each(queries, documents, dims, k, rule=RAW).items():
            order, scores = plain(queries, documents, k, size, RAW, "dot")
            np.testing.assert_array_equal(each.indices, order)
            np.testing.assert_array_equal(each.scores, scores)


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_agrees_with_faiss(metric: str) -> None:
    queries, documents = normal(300), normal(5_000, seed=1)
    for dim, each in nearest_each(queries, documents, DIMS, 20, rule=RAW, metric=metric).items():
        index = faiss.IndexFlatIP(dim) if metric == "dot" else faiss.IndexFlatL2(dim)
        index.add(cut(documents, dim, RAW).copy())
        scores, indices = index.search(cut(queries, dim, RAW).copy(), 20)
        assert (each.indices == indices).mean() > 0.9999
        scores = np.sqrt(scores) if metric == "euclidean" else scores
        np.testing.assert_allclose(each.scores, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("tiny_tiles")
@pytest.mark.parametrize("order", [1, -1], ids=["best last", "best first"])
def test_documents_in_the_order_of_their_scores(order: int) -> None:
    """The worst order makes every document a candidate, the best one none after the first."""
    documents = np.linspace(1, 2, 700, dtype=np.float32)[::order, None] * np.ones((1, 4), np.float32)
    found = nearest(np.ones((9, 4), np.float32), documents, 5, rule=RAW)
    expected = np.arange(699, 694, -1) if order == 1 else np.arange(5)
    np.testing.assert_array_equal(found.indices, np.tile(expected, (9, 1)))


@pytest.mark.usefixtures("tiny_tiles")
def test_many_equal_documents_take_no_more_memory_than_k() -> None:
    found = nearest(normal(5, 4), np.ones((1_000, 4), np.float32), 7)
    np.testing.assert_array_equal(found.indices, np.tile(np.arange(7), (5, 1)))


def test_any_number_of_workers_finds_the_same() -> None:
    queries, documents = normal(70), normal(3_000, seed=1)
    one, many = (nearest_each(queries, documents, DIMS, 10, workers=workers) for workers in (1, 5))
    for dim in DIMS:
        np.testing.assert_array_equal(one[dim].indices, many[dim].indices)
        np.testing.assert_allclose(one[dim].scores, many[dim].scores, rtol=1e-5)


@pytest.mark.usefixtures("tiny_tiles")
def test_reads_memory_maps_of_half_precision(tmp_path: Path) -> None:
    queries, documents = normal(10), normal(400, seed=1).astype(np.float16)
    np.save(tmp_path / "vectors.npy", documents)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    found, expected = (nearest(queries, each, 10) for each in (mapped, documents.astype(np.float32)))
    np.testing.assert_array_equal(found.indices, expected.indices)


def test_changes_neither_queries_nor_documents() -> None:
    queries, documents = normal(5), normal(50, seed=1)
    kept = queries.copy(), documents.copy()
    nearest_each(queries, documents, DIMS, 3, rule=CutRule("layer_norm"))
    np.testing.assert_array_equal(queries, kept[0])
    np.testing.assert_array_equal(documents, kept[1])


def test_one_query_one_document_one_dim() -> None:
    found = nearest(np.ones((1, 1)), np.full((1, 1), -3.0), 1)
    assert isinstance(found, Neighbours)
    assert (found.indices.tolist(), found.scores.tolist()) == ([[0]], [[-1.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "choose k from 1 to 6"),
        ({"k": 7}, "k=7 neighbours cannot be found among 6 documents"),
        ({"dims": []}, "at least one"),
        ({"dims": [2, 2]}, "increase"),
        ({"dims": [3, 2]}, r"write \[2, 3\]"),
        ({"dims": [0, 2]}, "choose 1 to 4"),
        ({"dims": [5]}, "choose 1 to 4"),
        ({"dims": [2.0]}, "whole numbers"),
        ({"queries": np.ones((0, 4))}, "queries are empty"),
        ({"queries": np.ones((2, 3))}, "documents have 4 entries a row, but 3"),
        ({"documents": [["a"] * 4]}, "documents must be floats"),
        ({"documents": np.full((6, 4), np.nan)}, "documents hold NaN"),
    ],
)
def test_bad_input_is_named(arguments: dict, message: str) -> None:
    given_ = {"queries": np.ones((2, 4)), "documents": np.ones((6, 4)), "dims": [2, 4], "k": 1} | arguments
    with pytest.raises(DataError, match=message):
        nearest_each(**given_)


def test_unknown_metric_and_no_workers_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'euclidean'"):
        nearest(np.ones((1, 2)), np.ones((1, 2)), 1, metric="euclidian")
    with pytest.raises(ConfigError, match="at least 1"):
        nearest(np.ones((1, 2)), np.ones((1, 2)), 1, workers=0)


@pytest.mark.usefixtures("tiny_tiles")
@pytest.mark.parametrize("bad", [0.0, 1e30])
def test_rows_without_a_length_are_named_with_their_size(bad: float) -> None:
    documents = normal(400)
    documents[321, :3] = bad
    with pytest.raises(DataError, match=r"first 3 entries of row 321 of documents"):
        nearest_each(normal(4), documents, DIMS, 2)
    with pytest.raises(DataError, match=r"first 3 entries of row 321 of queries"):
        nearest_each(documents, normal(40), DIMS, 2)
    if bad == 0:
        assert nearest_each(normal(4), documents, [8, 16], 2)
        assert nearest_each(normal(4), documents, DIMS, 2, rule=RAW)
