"""Kills the writer of an index at random moments: every acknowledged operation must survive, whole.

The worker changes an index by a history that follows from a seed, and says on its output when an operation
begins and when it was acknowledged. The parent kills it, goes through the same history by itself, opens
the folder on the disk, and compares.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from nestling.cut import cut
from nestling.search.exact.neighbours import nearest
from nestling.search.index.index import AdaptiveIndex
from nestling.storage.artifact import MANIFEST

DIM = 32
LOG_BYTES = 200 * DIM * 4
FIRST_ROWS = 3000
_MOST_SECONDS = 0.7
FORMS: tuple[dict[str, str], ...] = (
    {"plan": "flat@full"},
    {"plan": "int8@16 > rerank@full"},
    {"plan": "ivf16@16 > flat@full"},
    {"at": "bits=4"},
)
LAST = 10_000


@dataclass
class Operation:
    """One change of an index.

    Args:
        name: of the method; ``create`` makes it.
        ids: it is about.
        seed: of the vectors, if it has any.
    """

    name: str
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    seed: int = 0

    @property
    def vectors(self) -> np.ndarray:
        return np.random.default_rng(self.seed).normal(size=(len(self.ids), DIM)).astype(np.float32)

    def apply(self, index: AdaptiveIndex) -> None:
        if self.name in ("add", "update"):
            getattr(index, self.name)(self.vectors, self.ids)
        elif self.name == "delete":
            index.delete(self.ids)
        else:
            getattr(index, self.name)()


def history(seed: int) -> Iterator[tuple[Operation, dict[int, tuple[int, int]]]]:
    """Operations, and after each what rows there are: the seed and the row of the vector of each id."""
    draw = np.random.default_rng(seed)
    rows: dict[int, tuple[int, int]] = {}
    next_id = FIRST_ROWS
    for number in range(LAST):
        if number == 0:
            operation = Operation("create", np.arange(FIRST_ROWS), seed * LAST)
        else:
            name = draw.choice(["add", "update", "delete", "compact", "flush"], p=[0.4, 0.2, 0.2, 0.15, 0.05])
            operation = Operation(str(name), seed=seed * LAST + number)
            size = int(draw.choice([1, 7, 60, 900], p=[0.3, 0.3, 0.2, 0.2]))
            there = np.array(sorted(rows))
            if name == "add":
                operation.ids = np.arange(next_id, next_id + size)
            elif name == "update":
                old = draw.choice(there, min(len(there), size), replace=False)
                operation.ids = np.concatenate([old, np.arange(next_id, next_id + size // 3)])
            elif name == "delete":
                operation.ids = np.sort(draw.choice(there, min(len(there) // 2, size), replace=False))
            next_id = max(next_id, int(operation.ids.max(initial=-1)) + 1)
        if operation.name == "delete":
            rows = {name: row for name, row in rows.items() if name not in set(operation.ids.tolist())}
        else:
            rows = rows | {name: (operation.seed, row) for row, name in enumerate(operation.ids.tolist())}
        yield operation, rows


def form_of(seed: int) -> dict[str, Any]:
    """Arguments of ``create``: a plan, or codes in place of floats."""
    return FORMS[seed % len(FORMS)]


def work(folder: Path, seed: int, start: int) -> None:
    """Go through the history from the operation ``start`` on; runs in a process of its own."""
    steps = history(seed)
    list(islice(steps, start))
    print("ready", flush=True)
    index = None if start == 0 else AdaptiveIndex.open(folder, log_bytes=LOG_BYTES)
    for number, (operation, _) in enumerate(steps, start):
        print(f"begin {number} {operation.name}", flush=True)
        if index is None:
            index = AdaptiveIndex.create(
                folder, operation.vectors, operation.ids, log_bytes=LOG_BYTES, **form_of(seed)
            )
        else:
            operation.apply(index)
        print(f"done {number}", flush=True)


@dataclass
class Kill:
    """The state after one kill.

    Args:
        during: the operation that was in flight; ``open`` where none was.
        acknowledged: operations that had been.
        found: operations whose effect lay on the disk.
        problems: differences from the expected index.
    """

    during: str
    acknowledged: int
    found: int
    problems: list[str]


def kill_once(folder: Path, seed: int, start: int, seconds: float) -> Kill:
    """Run a worker from operation ``start`` for some time, kill it, and examine what it left."""
    command = [sys.executable, __file__, "work", str(folder), str(seed), str(start)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        first = worker.stdout.readline()
        time.sleep(seconds)
        worker.kill()
        lines = [line.split() for line in worker.stdout.read().splitlines()]
    if first != "ready\n":
        return Kill("start", start, start, ["the worker did not start"])
    done = [int(line[1]) for line in lines if line[0] == "done"]
    begun = [line for line in lines if line[0] == "begin"]
    acknowledged = start + len(done)
    if worker.returncode != -9:
        return Kill("none", acknowledged, acknowledged, [f"the worker ended with {worker.returncode}"])
    in_flight = bool(begun) and int(begun[-1][1]) == acknowledged
    return examine(folder, seed, acknowledged, begun[-1][2] if in_flight else "open")


def examine(folder: Path, seed: int, acknowledged: int, during: str) -> Kill:
    """Compare the index with the history up to what was acknowledged, or one operation more."""
    if acknowledged == 0 and not (folder / MANIFEST).exists():
        return Kill(during, 0, 0, [])
    steps = history(seed)
    states: list[dict[int, tuple[int, int]]] = [{}]
    states += [rows for _, rows in islice(steps, acknowledged + 1)]
    try:
        with AdaptiveIndex.open(folder, log_bytes=LOG_BYTES) as index:
            names = sorted(index.ids().tolist())
            problems = []
            for found in (acknowledged, acknowledged + 1):
                if found and names == sorted(states[found]):
                    problems = differences(index, states[found])
                    if not problems:
                        return Kill(during, acknowledged, found, [])
            return Kill(during, acknowledged, -1, problems or ["other rows than were acknowledged"])
    except Exception as error:  # noqa: BLE001 - any error is what is looked for
        return Kill(during, acknowledged, -1, [f"{type(error).__name__}: {error}"])


def differences(index: AdaptiveIndex, rows: dict[int, tuple[int, int]]) -> list[str]:
    """Wrong results of an index that should hold those rows."""
    sources: dict[int, Any] = {}
    for seed, _ in rows.values():
        if seed not in sources:
            count = 1 + max(row for other, row in rows.values() if other == seed)
            sources[seed] = Operation("add", np.arange(max(count, FIRST_ROWS)), seed).vectors
    names, data = np.array(list(rows)), np.stack([sources[seed][row] for seed, row in rows.values()])
    newest = np.argsort([seed for seed, _ in rows.values()])[-40:]
    queries = data[np.concatenate([newest, np.linspace(0, len(data) - 1, 40).astype(int)])]
    held = cut(data, DIM, index.rule, bits=index.nesting.full.get("bits", 32))
    truth = nearest(queries, held, 1)
    problems = []
    hits = index.search(queries, 1, point=complete_point(index))
    if not (hits.ids == names[truth.indices]).all():
        problems.append(f"{int((hits.ids != names[truth.indices]).sum())} wrong answers")
    if not np.allclose(hits.scores, truth.scores, atol=1e-5):
        problems.append("wrong scores")
    return problems


def complete_point(index: AdaptiveIndex) -> str | None:
    """Parameters with which the plan reads everything, so that its answers are exact."""
    if index.plan.coarse is not None:
        return f"nprobe={index.plan.coarse.lists}"
    return "shortlist=500" if index.plan.reranks else None


def kill_many(base: Path, kills: int, seed: int, *, per_folder: int = 10) -> Iterator[Kill]:
    """Kill a worker repeatedly, resuming from what the last kill left, or in a new folder."""
    draw = np.random.default_rng(seed)
    start, number, most_s = 0, 0, _MOST_SECONDS
    for kill in range(kills):
        if kill % per_folder == 0:
            start, number = 0, number + 1
        folder = base / f"index-{number}"
        result = kill_once(folder, seed + number, start, float(draw.uniform(0, most_s)))
        yield result
        # A busy machine may not come to the end of one operation in that time.
        most_s = _MOST_SECONDS if result.acknowledged > start else 2 * most_s
        start = max(result.found, 0)


if __name__ == "__main__":
    _, command, folder, seed, start = sys.argv
    assert command == "work"
    work(Path(folder), int(seed), int(start))
