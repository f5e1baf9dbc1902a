"""The time of one use: the median of several, each timed by itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable


def median_ms(uses: Iterable[Callable[[], object]]) -> float:
    """Median wall-clock time of calls that are made one after the other, in milliseconds.

    The first call is timed too: warm up before.
    """
    seconds = []
    for use in uses:
        start = time.perf_counter()
        use()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)
