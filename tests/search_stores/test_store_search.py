"""Answers of the four engines against the library's own exact search and funnel, on more rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nestling.cut import RAW, CutRule
from nestling.granularity import Nesting
from nestling.search import Funnel, nearest

ROWS, K, SHORTLIST = 2000, 10, 60
NESTING = Nesting.chain(dim=(16, 32, 64))
SPACES = ((CutRule(), "dot"), (RAW, "euclidean"))


@pytest.fixture(autouse=True)
def indexed_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """LanceDB gets its index of prefixes at fewer rows than are worth it."""
    monkeypatch.setattr("nestling.search.stores.lance.table._FEWEST_ROWS_OF_AN_INDEX", 1000)


def nested_vectors(count: int, seed: int) -> np.ndarray:
    """Entries that matter less and less, as those of nested vectors do."""
    random = np.random.default_rng(seed)
    return (random.normal(size=(count, 64)) * np.linspace(2, 0.2, 64)).astype(np.float32)


DOCUMENTS, QUERIES = nested_vectors(ROWS, 0), nested_vectors(30, 1)


def recall(found: list[Any], expected: np.ndarray) -> float:
    pairs = zip(found, expected, strict=True)
    return float(np.mean([len(set(hits.ids) & set(rows.tolist())) / K for hits, rows in pairs]))


@pytest.mark.parametrize(("rule", "metric"), SPACES, ids=["cosine", "euclidean"])
def test_ids_are_those_of_exact_search_and_recall_is_that_of_the_funnel(
    engine: Any, rule: CutRule, metric: Any
) -> None:
    store = engine.make(
        f"against_{metric}", nesting=NESTING, shortlist_dim=16, rule=rule, metric=metric, ids="int"
    )
    store.add(np.arange(ROWS), DOCUMENTS)
    exact = nearest(QUERIES, DOCUMENTS, K, rule=rule, metric=metric)
    for shortlist in (None, ROWS):
        found = store.search(QUERIES, K, shortlist=shortlist)
        assert [hits.ids for hits in found] == exact.indices.tolist()
        np.testing.assert_allclose([hits.scores for hits in found], exact.scores, rtol=1e-4, atol=1e-4)
    funnel = Funnel.adaptive(16, 64, shortlist=SHORTLIST)
    expected = funnel.search(QUERIES, DOCUMENTS, K, rule=rule, metric=metric).indices
    store.optimize()
    found = store.search(QUERIES, K, shortlist=SHORTLIST)
    # Graphs are approximate: the share of the funnel's answers, and of the true ones, stays the same.
    assert recall(found, expected) >= 0.95
    lost = recall([*map(Answer, expected.tolist())], exact.indices) - recall(found, exact.indices)
    assert lost <= 0.02
    store.drop()


class Answer:
    """A list of ids as a store gives them."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids


def test_a_longer_shortlist_finds_no_less(engine: Any) -> None:
    store = engine.make("longer", nesting=NESTING, shortlist_dim=16, ids="int")
    store.add(np.arange(1000), DOCUMENTS[:1000])
    exact = nearest(QUERIES, DOCUMENTS[:1000], K).indices
    found = [recall(store.search(QUERIES[:9], K, shortlist=n), exact[:9]) for n in (10, 40, 160, None)]
    assert found == sorted(found)
    assert found[0] < found[-1] == 1.0
    store.drop()


def test_a_shortlist_may_be_longer_than_the_widest_graph_search(postgres: Any) -> None:
    """pgvector's ef_search ends at 1,000; the scan continues from there."""
    store = postgres.make("long", nesting=NESTING, shortlist_dim=16, ids="int")
    store.add(np.arange(ROWS), DOCUMENTS)
    store.optimize()
    expected = nearest(QUERIES, DOCUMENTS, K).indices
    assert recall(store.search(QUERIES, K, shortlist=1900), expected) >= 0.999
    assert all(len(hits) == 1800 for hits in store.search(QUERIES[:2], 1800, shortlist=1900))
    store.drop()


def test_a_memory_map_is_added_in_batches(
    engine: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nestling.search.stores.database._FLOATS_SENT_AT_A_TIME", 15_000)
    np.save(tmp_path / "vectors.npy", DOCUMENTS[:500].astype(np.float64))
    values = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    store = engine.make("mapped", nesting=NESTING, shortlist_dim=16, ids="int")
    store.add(np.arange(500), values)
    assert store.count() == 500
    assert [hits.ids for hits in store.search(values[[0, 374, 499]], 1)] == [[0], [374], [499]]
    store.drop()


def test_layer_norm_comes_before_the_cut_of_rows_and_queries(engine: Any) -> None:
    rule = CutRule("layer_norm", "l2")
    shifted = DOCUMENTS[:500] + 3  # without the layer norm the shift would decide
    store = engine.make("normed", nesting=NESTING, shortlist_dim=16, rule=rule, ids="int")
    store.add(np.arange(500), shifted)
    expected = nearest(QUERIES + 3, shifted, K, rule=rule).indices
    assert [hits.ids for hits in store.search(QUERIES + 3, K, shortlist=None)] == expected.tolist()
    store.drop()
