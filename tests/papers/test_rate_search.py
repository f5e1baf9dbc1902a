"""The climb over learning rates finds the peak of whatever has one, and stands at no edge."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from nestling.papers.claims.rate_search import climb


@given(peak=st.floats(-12, 12), start=st.floats(1e-5, 1e-3))
def test_the_peak_is_found_between_two_rates_that_are_worse(peak: float, start: float) -> None:
    def worth(rate: float) -> float:
        return -abs(math.log2(rate / start) - peak)

    tried = climb(worth, start)
    best = max(tried, key=lambda rate: tried[rate])
    assert abs(math.log2(best / start) - peak) <= 0.5 + 1e-9
    assert {best / 2, best * 2} <= set(tried)


def test_each_rate_is_tried_once_and_a_flat_or_undefined_worth_ends_the_climb() -> None:
    for value in (0.0, math.nan):
        tried: list[float] = []

        def worth(rate: float, value: float = value, tried: list[float] = tried) -> float:
            tried.append(rate)
            return value

        climb(worth, 1.0)
        assert sorted(tried) == [0.5, 1.0, 2.0]


def test_what_counts_first_decides_before_what_counts_next() -> None:
    tried = climb(lambda rate: (min(0.0, 3.0 - rate), rate), 2.0)
    assert max(tried, key=lambda rate: tried[rate]) == 2.0
    assert set(tried) == {1.0, 2.0, 4.0}
