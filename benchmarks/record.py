"""Rounds of timings taken in turn, reported as ratios, with a stamp of the machine."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from nestling.measure.machine import machine, today, versions

RESULTS = Path(__file__).parent / "results"


def in_turn(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each way in each round; the ways take turns, so that a drift of the machine hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(warmup + rounds):
        for name, way in ways.items():
            start = clock()
            way()
            if number >= warmup:
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, over: str) -> tuple[float, float, float]:
    """Ratio of the fastest rounds of two ways, and the smallest and largest ratio within one round.

    What else a machine does can only slow a round down, so the fastest says most about the code.
    """
    ratios = [a / b for a, b in zip(seconds[name], seconds[over], strict=True)]
    return min(seconds[name]) / min(seconds[over]), min(ratios), max(ratios)


def grown_megabytes(act: Callable[[], object]) -> float:
    """How far a call raises the peak of this process's memory (Linux); one call a process says most."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the imports
    before = _peak_kilobytes()
    act()
    return (_peak_kilobytes() - before) / 1024


def _peak_kilobytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def stamp() -> str:
    """Processor, cores, versions and date, in one line."""
    return ", ".join([machine(), *(f"{name} {number}" for name, number in versions().items()), today()])


def write_csv(name: str, rows: list[dict[str, object]], measured_on: str) -> Path:
    """Write the rows under ``benchmarks/results``, each with the machine's stamp if it has none yet."""
    path = RESULTS / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys([*rows[0], "machine"])))
        writer.writeheader()
        writer.writerows({"machine": measured_on, **row} for row in rows)
    return path


class Ratios:
    """The figures of one benchmark: each is printed, and written to ``<name>.csv``, when it is known.

    Args:
        name: of the file.
        digits: after the point.
    """

    def __init__(self, name: str, digits: int = 2) -> None:
        self.name, self.digits = name, digits
        self.rows: list[dict[str, object]] = []

    def add(
        self,
        what: str,
        figures: tuple[float, float, float],
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        **more: str,
    ) -> None:
        """Add a ratio with the smallest and largest of one round, what it should reach, and other columns."""
        shown = [f"{figure:.{self.digits}f}" for figure in figures]
        row = dict(zip(("what", "ratio", "low", "high"), (what, *shown), strict=True))
        reach, said = "", ""
        for limit, sign in ((at_most, "<="), (at_least, ">=")):
            if limit is not None:
                reach, said = f"{sign} {limit:g}", verdict(figures[0], limit, at_most=sign == "<=")
        self.rows.append({**row, "reach": reach, "verdict": said, **more})
        print(f"{what:64} {shown[0]:>6} ({shown[1]} to {shown[2]})  {reach} {said}".rstrip(), flush=True)
        write_csv(self.name, self.rows, stamp())


def verdict(value: float, reach: float, *, at_most: bool) -> str:
    """Whether a figure reaches what was set for it."""
    return "reached" if (value <= reach if at_most else value >= reach) else "NOT reached"
