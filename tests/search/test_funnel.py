"""A funnel agrees with a plain one; schedules and costs are as stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.cut import RAW, CutRule, cut
from nestling.errors import ConfigError, DataError
from nestling.search.exact import scores
from nestling.search.exact.funnel import Funnel
from nestling.search.exact.neighbours import nearest


def normal(n: int, dim: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)) * np.linspace(2, 0.5, dim)


def plain(
    funnel: Funnel, query: np.ndarray, documents: np.ndarray, k: int, rule: CutRule, metric: str
) -> list[int]:
    """One query, Python lists, float64."""

    def ordered(rows: list[int], dim: int) -> list[int]:
        q, d = cut(query[None], dim, rule)[0], cut(documents, dim, rule)
        distance = {row: -q @ d[row] if metric == "dot" else ((q - d[row]) ** 2).sum() for row in rows}
        return sorted(rows, key=lambda row: (distance[row], row))

    rows = ordered(list(range(len(documents))), funnel.shortlist_dim)
    for dim, length in zip(funnel.rerank_dims, funnel.shortlists, strict=True):
        rows = ordered(rows[:length], dim)
    return rows[:k]


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
@pytest.mark.parametrize("rule", [CutRule(), RAW, CutRule("layer_norm")], ids=str)
@pytest.mark.parametrize(
    "funnel", [Funnel.adaptive(4, 32, shortlist=50), Funnel(4, (8, 16, 32), (60, 30, 12))], ids=str
)
def test_agrees_with_the_plain_funnel(
    funnel: Funnel, rule: CutRule, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NESTLING_KERNELS", "off")  # kernels read rows where they stand
    monkeypatch.setattr(scores, "_FLOATS_GATHERED_AT_A_TIME", 5_000)
    queries, documents = normal(20), normal(400, seed=1)
    found = funnel.search(queries, documents, 10, rule=rule, metric=metric)
    for row, query in enumerate(queries):
        assert found.indices[row].tolist() == plain(funnel, query, documents, 10, rule, metric)
    rising = np.sort(found.scores, axis=1)
    np.testing.assert_array_equal(found.scores, rising if metric == "euclidean" else -np.sort(-found.scores))


def test_a_shortlist_of_everything_is_the_exact_search() -> None:
    queries, documents = normal(9), normal(80, seed=1)
    found = Funnel.adaptive(2, 32, shortlist=80).search(queries, documents, 10)
    exact = nearest(queries, documents, 10)
    np.testing.assert_array_equal(found.indices, exact.indices)
    np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-5)


def test_running_it_again_gives_the_same_and_changes_nothing() -> None:
    """The reference code re-ordered the stored neighbours in place, so that a second run began from them."""
    queries, documents = normal(9), normal(80, seed=1)
    kept = queries.copy(), documents.copy()
    funnel = Funnel(2, (8, 32), (40, 20))
    first = funnel.search(queries, documents)
    np.testing.assert_array_equal(first.indices, funnel.search(queries, documents).indices)
    np.testing.assert_array_equal(queries, kept[0])
    np.testing.assert_array_equal(documents, kept[1])


def test_of_equal_scores_the_first_document_wins() -> None:
    documents = np.ones((30, 4))
    found = Funnel.adaptive(2, 4, shortlist=20).search(np.ones((1, 4)), documents, 10)
    assert found.indices.tolist() == [list(range(10))]


@given(st.integers(1, 64), st.integers(0, 2000), st.integers(1, 50), st.integers(0, 500))
def test_the_geometric_schedule_keeps_its_promises(small: int, more: int, k: int, longer: int) -> None:
    full, shortlist = small + more, k + longer
    funnel = Funnel.geometric(small, full, shortlist=shortlist, k=k)
    assert funnel.rerank_dims[-1] == full
    assert funnel.shortlists[0] == shortlist
    assert funnel.shortlists[-1] >= k
    assert len(set(funnel.rerank_dims)) == len(funnel.rerank_dims)
    assert funnel.mflops(10_000) >= 10_000 * small / 1e6


def test_cost_counts_every_stage() -> None:
    assert Funnel(8, (16, 32), (200, 10)).mflops(1_000) == pytest.approx(0.01152)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, (), ()), "at least one"),
        ((8, (16, 32), (10,)), "1 for 2"),
        ((8, (32, 16), (20, 10)), "must not fall"),
        ((8, (4,), (10,)), "shortlist_dim=8 is followed"),
        ((8, (16, 32), (10, 20)), "must not grow"),
        ((0, (16,), (10,)), "at least 1"),
        ((8, (16,), (0,)), "at least 1"),
    ],
)
def test_bad_schedules_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Funnel(*arguments)


def test_bad_named_schedules_are_refused() -> None:
    with pytest.raises(ConfigError, match="shortlist_dim=8 is followed"):
        Funnel.adaptive(8, 4)
    with pytest.raises(ConfigError, match="cannot hold k=10"):
        Funnel.geometric(8, 64, shortlist=9)
    with pytest.raises(ConfigError, match="rerank_dim=4 must be at least"):
        Funnel.geometric(8, 4)


@pytest.mark.parametrize(
    ("funnel", "k", "message"),
    [
        (Funnel.adaptive(2, 4, shortlist=8), 9, "choose k from 1 to 8"),
        (Funnel.adaptive(2, 4, shortlist=8), 0, "choose k from 1 to 8"),
        (Funnel.adaptive(2, 4, shortlist=11), 3, "from 10 documents"),
        (Funnel.adaptive(2, 5, shortlist=8), 3, "choose 1 to 4"),
    ],
)
def test_schedules_that_do_not_fit_the_data_are_refused(funnel: Funnel, k: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        funnel.search(np.ones((2, 4)), np.ones((10, 4)), k)
