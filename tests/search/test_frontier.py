"""The front of measured trials and the choice on it."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from nestling.errors import ConfigError, DataError
from nestling.search.plan.frontier import Frontier, Trial
from nestling.search.plan.plan import Plan, Point

PLANS = [
    Plan.parse(text) for text in ("flat@full", "int4@full > rerank@full", "ivf8@16 > int8@32 > rerank@full")
]


def trial(recall: float, ms: float, row_bytes: float, plan: Plan = PLANS[0], spread: float = 0.01) -> Trial:
    low, high = max(0.0, recall - spread), min(1.0, recall + spread)
    return Trial(
        plan, Point(nprobe=4, shortlists=(20,)), 1000, recall, low, high, ms, 1e3 / ms, row_bytes, 1.5
    )


def front(*trials: Trial) -> Frontier:
    return Frontier(trials, 10, 500, True, 2.0)


# Few values, so that many trials are equal in something.
trials = st.lists(
    st.builds(
        trial,
        st.sampled_from([0.5, 0.9, 1.0]),
        st.sampled_from([1.0, 2.0, 4.0]),
        st.sampled_from([8.0, 64.0]),
        st.sampled_from(PLANS),
    ),
    min_size=1,
    max_size=12,
)


@given(trials)
def test_nothing_beats_the_front_and_all_else_is_beaten(found: list[Trial]) -> None:
    def key(each: Trial) -> tuple[float, float, float]:
        return -each.recall, each.latency_ms, each.row_bytes

    kept = front(*found).pareto()
    for a, b in combinations(kept, 2):
        assert key(a) == key(b) or (
            any(x < y for x, y in zip(key(a), key(b), strict=True))
            and any(x > y for x, y in zip(key(a), key(b), strict=True))
        )
    for each in found:
        assert any(all(x <= y for x, y in zip(key(other), key(each), strict=True)) for other in kept)


@given(trials)
def test_what_is_saved_is_read_back(found: list[Trial]) -> None:
    assert Frontier.from_json(front(*found).to_json()) == front(*found)


@given(trials, st.none() | st.sampled_from([0.4, 0.85, 0.99]), st.none() | st.sampled_from([8.0, 64.0]))
def test_the_choice_is_the_fastest_that_fits(
    found: list[Trial], recall: float | None, most: float | None
) -> None:
    fits = [t for t in found if (most is None or t.row_bytes <= most) and (recall is None or t.low >= recall)]
    if not fits:
        with pytest.raises(ConfigError):
            front(*found).choose(recall, max_bytes=most)
        return
    chosen = front(*found).choose(recall, max_bytes=most)
    assert chosen in fits
    if recall is None:
        assert chosen.recall == max(t.recall for t in fits)
    else:
        assert chosen.latency_ms == min(t.latency_ms for t in fits)


def test_refusals_name_the_nearest() -> None:
    found = front(trial(0.9, 2, 8), trial(0.8, 1, 64, PLANS[1]))
    with pytest.raises(ConfigError, match=r"flat@full comes nearest.*0\.9000 \[0\.8900, 0\.9100\]"):
        found.choose(0.95)
    with pytest.raises(ConfigError, match="the smallest takes 8 bytes a vector, the fastest 1 ms"):
        found.choose(0.5, max_bytes=4)
    with pytest.raises(ConfigError, match=r"0\.95 is usual"):
        found.choose(95)


def test_table_picture_and_files(tmp_path: Path) -> None:
    found = front(trial(0.9, 2, 8), trial(1.0, 4, 64, PLANS[2]), trial(0.8, 3, 8))
    table = found.table()
    assert "ivf8@16 > int8@32 > rerank@full" in table
    assert table.index("0.9000") < table.index("1.0000")
    assert "0.8000" not in table
    assert "3 trials on 500 rows of the data" in table
    found.plot(tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    axes = Figure().add_subplot()
    found.plot(axes)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [str(PLANS[0]), str(PLANS[2])]
    assert axes.get_xlabel() == "recall@10\n(axis starts at 0.90)"
    front().plot(tmp_path / "empty.svg")
    with pytest.raises(ConfigError, match="no picture file"):
        found.plot(tmp_path / "front.json")
    found.save(tmp_path / "front.json")
    assert Frontier.from_json((tmp_path / "front.json").read_text()) == found


@pytest.mark.parametrize("text", ["", "[]", '{"trials": [{}]}', '{"trials": 3}', '{"trials": [], "more": 1}'])
def test_files_that_are_no_table(text: str) -> None:
    with pytest.raises(DataError, match="nestling index tune"):
        Frontier.from_json(text)
