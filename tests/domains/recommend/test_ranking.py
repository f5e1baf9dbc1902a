"""Full ranking: ranks against sorting by hand, metrics against their definitions, histories, cold items."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nestling.data.interactions import Interactions, NextItems
from nestling.domains.recommend import Items, Ranks, rank_among_sampled, rank_next_items, ranking
from nestling.errors import ConfigError, DataError


class Table:
    """Scores of a table, a row for each user."""

    def __init__(self, values: NDArray[np.floating]) -> None:
        self.values = values

    def scores(self, histories: Interactions, rows: slice) -> NDArray[np.floating]:
        return self.values[rows]


def expected_rank(scores: list[float], target: int, without: set[int]) -> float:
    """The mean of the best and the worst place among equal scores."""
    if target in without:
        return math.inf
    left = [score for item, score in enumerate(scores) if item not in without]
    better, equal = sum(s > scores[target] for s in left), sum(s == scores[target] for s in left)
    return ((better + 1) + (better + equal)) / 2


@given(data=st.data())
def test_ranks_are_those_of_sorting(data: st.DataObject) -> None:
    items = data.draw(st.integers(2, 8))
    item = st.integers(0, items - 1)
    histories = data.draw(st.lists(st.lists(item, min_size=1, max_size=6), min_size=1, max_size=5))
    targets = data.draw(st.lists(item, min_size=len(histories), max_size=len(histories)))
    row = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=items, max_size=items)
    scores = data.draw(st.lists(row, min_size=len(histories), max_size=len(histories)))
    catalogue = Items(np.arange(items))
    whole = Interactions.from_sequences([*histories, list(range(items))])
    known = whole.first([*map(len, histories), 0])
    places = {int(name): place for place, name in enumerate(known.item_ids)}
    asked = NextItems(known, np.array([places[target] for target in targets]))
    found = rank_next_items(Table(np.array(scores)), asked, catalogue)
    for exclude, kept in (("history", False), (None, True)):
        expected = [
            expected_rank(own, target, set() if kept else set(history))
            for own, target, history in zip(scores, targets, histories, strict=True)
        ]
        assert found[exclude].ranks.tolist() == expected  # type: ignore[index]
    assert found["history"].unreachable == sum(t in h for t, h in zip(targets, histories, strict=True))


def test_chunks_of_users_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    histories = Interactions.from_sequences([*random.integers(0, 9, (20, 4)).tolist(), list(range(9))])
    asked = NextItems(histories, random.integers(0, 9, 21))
    scorer, items = Table(random.normal(size=(21, 9))), Items(np.arange(9))
    whole = rank_next_items(scorer, asked, items)
    monkeypatch.setattr(ranking, "_SCORES_AT_A_TIME", 30)
    parts = rank_next_items(scorer, asked, items)
    assert whole["history"].ranks.tolist() == parts["history"].ranks.tolist()


def test_metrics() -> None:
    ranks = Ranks(
        np.array([1.0, 2.5, 10.0, 11.0, np.inf]), "history", np.array([False, True, False, True, True])
    )
    assert ranks.values("NDCG@10").tolist() == pytest.approx([1, 1 / math.log2(3.5), 1 / math.log2(11), 0, 0])
    assert ranks.values("MRR@10").tolist() == pytest.approx([1, 0.4, 0.1, 0, 0])
    assert ranks.values("Recall@10").tolist() == ranks.values("Hit@10").tolist() == [1, 1, 1, 0, 0]
    assert ranks.mean("Recall@2") == 0.2
    assert ranks.mean("Recall@10", cold=True) == pytest.approx(1 / 3)
    assert ranks.mean("Recall@10", cold=False) == 1
    assert math.isnan(Ranks(np.ones(1), None, np.zeros(1, bool)).mean("Hit@1", cold=True))
    low, high = ranks.interval("Recall@10", seed=1)
    assert 0 <= low < 0.6 < high <= 1
    for metric in ("ndcg@10", "NDCG", "NDCG@0", "NDCG@x"):
        with pytest.raises(ConfigError, match="unknown metric"):
            ranks.values(metric)


def test_sampled_metrics_have_a_name_of_their_own() -> None:
    """The expected rank among sampled items is that of the full ranking, scaled."""
    random = np.random.default_rng(0)
    histories = Interactions.from_sequences([*random.integers(0, 40, (300, 3)).tolist(), list(range(39))])
    known = histories.first([3] * 300 + [0])
    asked = NextItems(known, np.full(300, known.item_ids.tolist().index(7)))
    items, scores = Items(np.arange(40)), random.normal(size=(300, 40))
    full = rank_next_items(Table(scores), asked, items)["history"].ranks
    found = rank_among_sampled(Table(scores), asked, items, 200, seed=1)
    reachable = np.isfinite(full)
    assert found.ranks[reachable].mean() == pytest.approx(
        1 + 200 * (full[reachable] - 1).mean() / 36, rel=0.03
    )
    assert found.mean("NDCG@10 among 200 sampled") > 0
    for metric in ("NDCG@10", "NDCG@10 among 99 sampled"):
        with pytest.raises(ConfigError, match="'NDCG@10 among 200 sampled', not"):
            found.mean(metric)
    with pytest.raises(ConfigError, match="such as 'NDCG@10', not"):
        Ranks(np.ones(1), None, np.zeros(1, bool)).mean("NDCG@10 among 99 sampled")
    with pytest.raises(DataError, match="holds all items"):
        rank_among_sampled(
            Table(np.zeros((1, 2))),
            NextItems(Interactions.from_sequences([[0, 1]]), np.zeros(1, int)),
            Items([0, 1]),
        )


def test_cold_items_are_told_apart() -> None:
    whole = Interactions.from_sequences([["a", "b"], ["a", "c"]])
    asked = NextItems(whole.first([1, 1]), np.array([1, 2]))
    train = Interactions.from_sequences([["a", "b"]])
    found = rank_next_items(Table(np.zeros((2, 3))), asked, Items(["a", "b", "c"]), train)
    assert found[None].cold.tolist() == [False, True]
    with pytest.raises(DataError, match="no item 'c'"):
        rank_next_items(Table(np.zeros((2, 2))), asked, Items(["a", "b"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": []}, "has no items"),
        ({"ids": [1, 1]}, "more than once"),
        ({"ids": [1, 2], "texts": ["a"]}, "1 texts are given for 2 items"),
        ({"ids": [1, 2], "features": {"x": np.ones((3, 2))}}, "there are 2 items"),
        (
            {"ids": [1, 2], "features": {"x": np.array([[1.0, np.nan], [1, 1]])}},
            "NaN or infinite entries in row 0",
        ),
        ({"ids": [1, 2], "features": {"x": np.array([[1.0, 0], [0, 0]])}}, "zeros alone in row 1"),
    ],
)
def test_bad_catalogues_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Items(**arguments)  # type: ignore[arg-type]


def test_unknown_items_and_features_are_named() -> None:
    items = Items(["tea", "cup"], features={"text": np.eye(2)})
    with pytest.raises(DataError, match=r"no item 'pot'; add them, or skip"):
        items.rows(["tea", "pot"])
    with pytest.raises(DataError, match="did you mean 'text'"):
        items.feature("texts")
