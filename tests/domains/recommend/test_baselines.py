"""Untrained baselines: against plain Python, and the figures on the real purchases."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nestling.data import leave_one_out
from nestling.data.interactions import Interactions, NextItems
from nestling.data.sets.amazon import read_purchases
from nestling.domains.recommend import Items, TextAndCounts, rank_next_items, untrained
from nestling.errors import ConfigError

HISTORIES = [[1, 2, 3], [2, 3], [3, 1, 1], [4, 2]]
ITEMS = Items([4, 3, 2, 1], features={"text": np.random.default_rng(0).normal(size=(4, 5))})
KNOWN = Interactions.from_sequences(HISTORIES)


def cosine(a: int, b: int) -> float:
    x, y = (ITEMS.features["text"][ITEMS.ids.tolist().index(each)] for each in (a, b))
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def together(a: int, b: int) -> float:
    both = sum(a in history and b in history for history in HISTORIES)
    one, other = (sum(each in history for history in HISTORIES) for each in (a, b))
    return both / math.sqrt(one * other) if a != b else 0.0


def expected(name: str, history: list[int], item: int) -> float:
    """The score of an item, from its definition."""
    last = history[-1]
    if name == "popularity":
        return sum(history.count(item) for history in HISTORIES)
    if name == "next counts":
        return sum(pair == (last, item) for history in HISTORIES for pair in pairwise(history))
    if name == "text cosine":
        return cosine(last, item)
    weights = [0.8**age for age in range(len(history) - 1, -1, -1)]
    return sum(w * (together(h, item) + 0.3 * cosine(h, item)) for w, h in zip(weights, history, strict=True))


@pytest.mark.parametrize("name", untrained(ITEMS, KNOWN))
def test_scores_are_as_defined(name: str) -> None:
    asked = Interactions.from_sequences([[1, 2], [3], [1, 3, 1, 2]])
    scorer = untrained(ITEMS, KNOWN)[name]
    for rows in (slice(0, 3), slice(1, 3)):
        found = scorer.scores(asked, rows)
        wanted = [
            [expected(name, asked.history(user).tolist(), item) for item in ITEMS.ids.tolist()]
            for user in range(rows.start, rows.stop)
        ]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)  # float32


def test_without_features_there_are_no_baselines_of_text() -> None:
    assert list(untrained(ITEMS, KNOWN, feature=None)) == ["popularity", "next counts"]
    with pytest.raises(ConfigError, match="decay=0 must be"):
        TextAndCounts(ITEMS, KNOWN, decay=0)


def test_figures_on_real_purchases(shared_data: Path) -> None:
    """On every twentieth user; all users give .0536 without histories."""
    folder = shared_data / "amazon-beauty"
    if not folder.is_dir():
        pytest.skip(f"no purchases at {folder}")
    shop = read_purchases(folder)
    split = leave_one_out(shop.interactions)
    assert (len(split.train), len(split.test), len(split.test.histories)) == (153_776, 22_363, 176_139)
    items, known = Items(shop.item_ids, features={"text": shop.vectors}), split.test.histories
    chosen = np.arange(known.users) % 20 == 0
    asked = NextItems(known.first(np.where(chosen, known.lengths, 0)), split.test.targets[chosen])
    ranks = rank_next_items(untrained(items, known)["text and co-occurrence"], asked, items, split.train)
    assert ranks["history"].mean("NDCG@10") == pytest.approx(0.0431, abs=1e-4)
    assert ranks["history"].unreachable == 0  # nobody buys a product twice
