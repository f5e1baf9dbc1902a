"""Kills, power cuts, damaged files and failing writes of an index; the figures go to results/faults.csv.

Run: python benchmarks/faults/run.py [--kills 200] [--mutants 1000] [--histories 4] [--seed 0]
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from crashes import kill_many
from failing_writes import OPERATIONS, fail_everywhere
from mutants import mutate, states
from power_cuts import cut_everywhere

from record import Results, arguments, parsed

DAMAGED_PLANS = (
    "flat@full",
    "ivf4@8 > pq4x4@16 > rerank@full",
    "hnsw8@8 > int8@16",
    "graph8@16 > rerank:int8@16 > rerank@full",
)
OPERATIONS_PER_HISTORY = 12
Row = dict[str, object]


def row(fault: str, place: str, tried: int, right: int, remark: str = "") -> Row:
    return {"fault": fault, "place": place, "tried": tried, "right": right, "remark": remark}


def killed(base: Path, kills: int, seed: int) -> Iterator[Row]:
    """Kills by the operation they interrupted; right if exactly the acknowledged rows are found."""
    results = list(tqdm(kill_many(base, kills, seed), total=kills, desc="kills", disable=None))
    for result in results:
        if result.problems:
            print(result)
    for place, tried in sorted(Counter(result.during for result in results).items()):
        met = [result for result in results if result.during == place]
        whole = sum(result.found == result.acknowledged + 1 for result in met)
        right = sum(not result.problems for result in met)
        yield row("kill -9", place, tried, right, f"{whole} in flight were whole on the disk")


def damaged(base: Path, mutants: int, seed: int) -> Iterator[Row]:
    """Mutants of each kind of file; right where refused before a reader saw it, or nothing changed."""
    for number, plan in enumerate(DAMAGED_PLANS):
        folder, elsewhere = states(base / str(number), plan)
        found = list(tqdm(mutate(folder, elsewhere, mutants, seed), desc=plan, disable=None))
        for kind in dict.fromkeys(mutant.kind for mutant in found):
            met = [mutant for mutant in found if mutant.kind == kind]
            for mutant in met:
                if not mutant.is_right:
                    print(plan, mutant)
            refused = sum(mutant.outcome == "refused" for mutant in met)
            right = sum(mutant.is_right for mutant in met)
            slowest_ms = 1000 * max(mutant.seconds for mutant in met)
            remark = f"{refused} refused, {right - refused} unharmed; slowest {slowest_ms:.0f} ms"
            yield row("damage", f"{kind} of {plan}", len(met), right, remark)


def cut(base: Path, histories: int, seed: int) -> Iterator[Row]:
    """Power cuts after every flush of some histories; right where all that was acknowledged is there."""
    found = []
    for number in tqdm(range(histories), desc="power cuts", disable=None):
        found += list(cut_everywhere(base / str(number), OPERATIONS_PER_HISTORY, seed + number))
    for result in found:
        if result.problems:
            print(result)
    for place in sorted({result.during for result in found}):
        met = [result for result in found if result.during == place]
        yield row("power cut", place, len(met), sum(not result.problems for result in met))


def failed(base: Path, most: int | None) -> Iterator[Row]:
    """Every write, flush, rename, ... of every operation (``most`` of a kind), failing once or for good."""
    found = list(tqdm(fail_everywhere(base, most=most), desc="failing writes", disable=None))
    for failure in found:
        if failure.problems:
            print(failure)
    for operation in OPERATIONS:
        met = [failure for failure in found if failure.operation == operation]
        yield row("failing write", operation, len(met), sum(not failure.problems for failure in met))


def show(rows: Iterable[Row]) -> list[Row]:
    """Collect the rows, each printed as soon as it is known."""
    shown = []
    for each in rows:
        print("{fault:>13} | {place:<60} | {right}/{tried} right | {remark}".format(**each), flush=True)
        shown.append(each)
    return shown


def show_failed(base: Path, most: int | None) -> list[Row]:
    return show(failed(base, most))


def show_damaged(base: Path, mutants: int, seed: int) -> list[Row]:
    return show(damaged(base, mutants, seed))


def show_cut(base: Path, histories: int, seed: int) -> list[Row]:
    return show(cut(base, histories, seed))


def show_killed(base: Path, kills: int, seed: int) -> list[Row]:
    return show(killed(base, kills, seed))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--histories", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    given = parsed(parser)
    if given.quick:
        given.kills, given.mutants, given.histories = 2, 2, 1
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool,
    ):
        base = Path(folder)
        parts = [
            pool.submit(show_failed, base / "failing", 1 if given.quick else None),
            pool.submit(show_damaged, base / "damaged", given.mutants, given.seed),
            pool.submit(show_cut, base / "cut", given.histories, given.seed),
            pool.submit(show_killed, base / "killed", given.kills, given.seed),
        ]
        rows = [row for part in parts for row in part.result()]
    Results("faults", given.output).add(*rows)


if __name__ == "__main__":
    main()
