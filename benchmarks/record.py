"""Shared parts of the benchmarks: arguments, timings taken in turn, and rows of results."""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from nestling.measure.machine import machine, today, versions

RESULTS = Path(__file__).parent / "results"
Row = dict[str, object]
T = TypeVar("T")


def in_turn(
    methods: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each method in each round; methods take turns, so that all share a drift of the machine."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(warmup + rounds):
        for name, method in methods.items():
            start = clock()
            method()
            if number >= warmup:
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, over: str) -> tuple[float, float, float]:
    """Ratio of the fastest rounds of two methods, and the smallest and largest ratio within one round.

    Other work of the machine can only slow a round down, so the fastest says most about the code.
    """
    ratios = [a / b for a, b in zip(seconds[name], seconds[over], strict=True)]
    return min(seconds[name]) / min(seconds[over]), min(ratios), max(ratios)


def apart(function: Callable[..., T], *given: object) -> T:
    """Result of a call in a separate process; a killed process, such as by lack of memory, is an error."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


def grown_megabytes(act: Callable[[], object]) -> float:
    """Rise of the peak memory of this process by a call (Linux); measure one call per process."""
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


def arguments(doc: str, *, rounds: int | None = None) -> argparse.ArgumentParser:
    """The arguments that all benchmarks have; a script may add its own.

    Args:
        doc: of the script.
        rounds: repetitions of each measurement, if they can be chosen; ``--quick`` makes it 1.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder of the results (default: benchmarks/results)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="little of everything, to see that it runs; results to a new folder",
    )
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="of each measurement (%(default)s)")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; a quick run has one round and does not touch the committed results."""
    given = parser.parse_args()
    if given.quick and "rounds" in given:
        given.rounds = 1
    if given.output is None:
        given.output = Path(tempfile.mkdtemp(prefix="benchmark-")) if given.quick else RESULTS
    return given


class Results:
    """The rows of one benchmark, written to ``<output>/<name>.csv`` as soon as they are known.

    Every row carries a stamp of the machine.

    Args:
        name: of the file.
        output: its folder.
        keys: columns that say what a row is about. Rows of an earlier run stay unless they are about the
            same as a row of this run; without keys, every run replaces all rows.
        order: sorts rows of several runs.
        remark: added to the stamp.
    """

    def __init__(
        self,
        name: str,
        output: Path,
        *,
        keys: Sequence[str] = (),
        order: Callable[[Row], object] | None = None,
        remark: str = "",
    ) -> None:
        self.path, self.keys, self.order = output / f"{name}.csv", keys, order
        self.rows: list[Row] = []
        self._stamp = stamp() + (f", {remark}" if remark else "")
        self._earlier: list[Row] = []
        if keys and self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as stream:
                self._earlier = [dict(row) for row in csv.DictReader(stream)]
        missing = [key for key in keys if self._earlier and key not in self._earlier[0]]
        if missing:
            raise SystemExit(f"{self.path} has no column {missing[0]!r}; choose another folder with --output")

    def add(self, *rows: Row) -> None:
        """Add rows, and write the file."""
        self.rows += [{**row, "machine": self._stamp} for row in rows]
        mine = {self._about(row) for row in self.rows}
        every = [row for row in self._earlier if self._about(row) not in mine] + self.rows
        if self.order is not None:
            every.sort(key=self.order)  # type: ignore[arg-type]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(every)

    def _about(self, row: Row) -> tuple[str, ...]:
        return tuple(str(row[key]) for key in self.keys)


class Ratios:
    """Ratios of one benchmark, each printed and written when it is known.

    Args:
        name: of the file.
        output: its folder.
        digits: after the point.
    """

    def __init__(self, name: str, output: Path, *, digits: int = 2) -> None:
        self._results, self.digits = Results(name, output), digits

    def add(
        self,
        what: str,
        figures: tuple[float, float, float],
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        **more: str,
    ) -> None:
        """Add a ratio with the smallest and largest of one round, its target, and other columns."""
        shown = [f"{figure:.{self.digits}f}" for figure in figures]
        row = dict(zip(("what", "ratio", "low", "high"), (what, *shown), strict=True))
        target, said = "", ""
        for limit, sign in ((at_most, "<="), (at_least, ">=")):
            if limit is not None:
                target, said = f"{sign} {limit:g}", verdict(figures[0], limit, at_most=sign == "<=")
        self._results.add({**row, "target": target, "verdict": said, **more})
        print(f"{what:64} {shown[0]:>6} ({shown[1]} to {shown[2]})  {target} {said}".rstrip(), flush=True)


def verdict(value: float, target: float, *, at_most: bool) -> str:
    """Whether a figure reaches its target."""
    return "reached" if (value <= target if at_most else value >= target) else "NOT reached"
