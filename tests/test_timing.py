"""The time of one use is the median of calls, each timed by itself."""

from __future__ import annotations

from functools import partial

import pytest

from nestling.process import timing


def test_the_median_of_calls_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    assert timing.median_ms(partial(wait, seconds) for seconds in (1.0, 16.0, 2.0)) == 2000
    assert timing.median_ms(partial(wait, seconds) for seconds in (1.0, 2.0)) == 1500
