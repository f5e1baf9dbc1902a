"""The oracle of sizes, and its control by luck."""

from __future__ import annotations

import numpy as np
import pytest

from nestling.errors import DataError
from nestling.measure.oracle import oracle


def test_counts_by_hand() -> None:
    truth = [0, 1, 2, 3]
    found = oracle({1: [0, 0, 0, 0], 4: [9, 1, 9, 9], 16: [0, 9, 2, 9]}, truth)
    assert found.accuracy == 0.75
    assert found.best == 0.5
    assert found.size == (1 + 4 + 16 + 16) / 4  # the last item is right at no size
    assert found.gap == 0.25


def test_guesses_gain_nothing_over_luck() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(3, size=20_000)
    full = np.where(draw.random(20_000) < 0.6, truth, draw.integers(3, size=20_000))
    guesses = {1: draw.integers(3, size=20_000), 4: draw.integers(3, size=20_000)}
    found = oracle({**guesses, 16: full}, truth, permutations=20)
    assert found.gap > 0.1
    assert found.gap == pytest.approx(found.gap_by_luck, abs=0.01)  # 5,000 items are wrong: 0.7 points


def test_sizes_that_know_more_gain_more_than_luck() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(5, size=4_000)
    knows = draw.random(4_000) < 0.5
    found = oracle({1: np.where(knows, truth, 9), 4: np.where(knows, 9, truth)}, truth)
    assert found.accuracy == 1
    assert found.gap_by_luck < 0.3 < found.gap


def test_luck_stays_within_groups() -> None:
    """Answers that fit another kind of question are no lucky guesses of this one."""
    groups = np.repeat([0, 1], 500)
    truth = groups.copy()
    answers = {1: 1 - groups, 4: np.where(np.arange(1000) == 0, truth, 9)}
    assert oracle(answers, truth, groups=groups).gap_by_luck == 0
    assert oracle(answers, truth).gap_by_luck == pytest.approx(0.5, abs=0.02)


def test_refusals() -> None:
    with pytest.raises(DataError, match="at least two sizes"):
        oracle({1: [0]}, [0])
    with pytest.raises(DataError, match=r"size 4 has \(1,\) answers for 2 items"):
        oracle({1: [0, 1], 4: [0]}, [0, 1])
    for truth in ([[0, 1]], []):
        with pytest.raises(DataError, match="truth must hold one answer an item"):
            oracle({1: [0, 1], 4: [0, 1]}, truth)
    with pytest.raises(DataError, match=r"groups has the shape \(1,\) for 2 items"):
        oracle({1: [0, 1], 4: [0, 1]}, [0, 1], groups=[0])
    with pytest.raises(DataError, match="the answers of size 1 must be whole numbers or texts, not float64"):
        oracle({1: [0, np.nan], 4: [0, 1]}, [0, 1])
    for answers in ([[0, 1], [0, 1]], {"small": [0, 1], "large": [0, 1]}):
        with pytest.raises(DataError, match="answers must be a mapping from sizes"):
            oracle(answers, [0, 1])
