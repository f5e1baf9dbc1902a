"""Threshold grids and regions are the paper's; samples stay in their region."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.compare.transforms.thresholds import (
    REGIONS,
    check_thresholds,
    region_of,
    sample_thresholds,
    threshold_grid,
)
from nestling.errors import ConfigError


def test_the_grid_of_the_paper_has_210_pairs() -> None:
    grid = threshold_grid()
    assert grid.shape == (210, 2)
    assert (grid[:, 0] < grid[:, 1]).all()
    assert set(grid.ravel().tolist()) == {number / 20 for number in range(21)}
    assert len({tuple(pair) for pair in grid.tolist()}) == 210


def test_equal_thresholds_are_added_but_for_the_corners() -> None:
    both = {tuple(pair) for pair in threshold_grid(0.25, equal=True).tolist()}
    assert both - {tuple(pair) for pair in threshold_grid(0.25).tolist()} == {
        (x, x) for x in (0.25, 0.5, 0.75)
    }


@pytest.mark.parametrize("step", [0, -0.1, 0.3, 1.5, float("nan")])
def test_a_step_that_does_not_divide_one_is_refused(step: float) -> None:
    with pytest.raises(ConfigError, match="must divide 1"):
        threshold_grid(step)


@pytest.mark.parametrize(
    ("pair", "region"),
    [
        ((0.0, 0.4), "local"),
        ((0.0, 0.402), "local"),
        ((0.0, 0.403), "intermediate"),
        ((0.6, 1.0), "global"),
        ((0.0, 1.0), "geometry"),
        ((0.1, 0.9), "geometry"),
        ((0.4, 0.6), "topology"),
        ((0.5, 0.5), "topology"),
        ((0.4, 0.61), "intermediate"),
        ((0.2, 0.8), "intermediate"),
        ((0.0, 0.0), "corner"),
        ((1.0, 1.0), "corner"),
    ],
)
def test_regions_have_the_papers_borders(pair: tuple[float, float], region: str) -> None:
    assert region_of(*pair) == region


@given(st.floats(0, 1), st.floats(0, 1))
def test_at_most_one_condition_holds_of_a_pair(first: float, second: float) -> None:
    """So the order in which they are asked does not matter."""
    lower, upper = sorted((first, second))
    mean, slack = (lower + upper) / 2, 1e-3
    holds = {
        "local": mean <= 0.2 + slack,
        "global": mean >= 0.8 - slack,
        "geometry": upper - lower >= 0.8 - slack,
        "topology": lower >= 0.4 - slack and upper <= 0.6 + slack,
    }
    named = [name for name, is_so in holds.items() if is_so]
    assert len(named) <= 1
    assert region_of(lower, upper) in (*named, *(["intermediate"] * (not named)), "corner")


@pytest.mark.parametrize("region", REGIONS)
def test_samples_lie_in_their_region_and_follow_the_seed(region: str) -> None:
    pairs = sample_thresholds(region, 50, seed=3)
    assert {region_of(*pair) for pair in pairs} == {region}
    assert np.array_equal(pairs, sample_thresholds(region, 50, seed=3))
    assert not np.array_equal(pairs, sample_thresholds(region, 50, seed=4))


def test_samples_fill_their_region_evenly() -> None:
    lower, upper = sample_thresholds("topology", 4000, seed=0).T
    # The mean of an even triangle with corners (.399, .399), (.399, .601), (.601, .601) is its centroid.
    assert lower.mean() == pytest.approx(0.399 + 0.202 / 3, abs=0.003)
    assert upper.mean() == pytest.approx(0.601 - 0.202 / 3, abs=0.003)


def test_samples_keep_away_from_the_corners_where_nothing_is_left() -> None:
    """Of 20,000 even draws about 12 would lie there."""
    assert sample_thresholds("local", 20_000).sum(axis=1).min() > 0.01
    assert sample_thresholds("global", 20_000).sum(axis=1).max() < 1.99


def test_drawing_leaves_the_global_random_state() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    sample_thresholds("local")
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize(
    ("thresholds", "says"),
    [
        ([(0.8, 0.2)], "swap"),
        ([(0.2, 1.2)], "0 to 1"),
        ([(-0.1, 0.5)], "0 to 1"),
        ([(float("nan"), 0.5)], "0 to 1"),
        ([0.2, 0.8], "pairs"),
        ([], "pairs"),
        ([(0.1, 0.2, 0.3)], "pairs"),
    ],
)
def test_what_is_no_pair_of_thresholds_is_refused(thresholds: list[object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_thresholds(thresholds)


def test_unknown_regions_and_counts_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'topology'"):
        sample_thresholds("topologic")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        sample_thresholds("local", 0)
