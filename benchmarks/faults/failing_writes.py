"""Writes that fail, one after the other: the error is ours, and what was there before is still there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from nestling.errors import StorageError
from nestling.search.exact.neighbours import nearest
from nestling.search.index.index import AdaptiveIndex

DIM = 16
ROWS = 1200
LOG_BYTES = 300 * DIM * 4
CALLS = ("write", "fsync", "replace", "rename", "ftruncate", "mkdir", "open")
Rows = dict[int, np.ndarray]


@dataclass(frozen=True)
class Failure:
    """The state after an operation whose call failed.

    Args:
        operation: on the index.
        call: of the operating system, and how many of its kind were made before it.
        stays: whether all calls of its kind failed from then on, as on a full disk.
        problems: differences from the expected state.
    """

    operation: str
    call: str
    stays: bool
    problems: tuple[str, ...]


def vectors(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)


OPERATIONS: dict[str, Callable[[AdaptiveIndex], object]] = {
    "add": lambda index: index.add(vectors(3, 7), [9000, 9001, 9002]),
    "add many": lambda index: index.add(vectors(400, 8), np.arange(9000, 9400)),
    "update": lambda index: index.update(vectors(3, 9), [0, 5, 9000]),
    "update many": lambda index: index.update(vectors(400, 10), np.arange(1000, 1400)),
    "delete": lambda index: index.delete([1, 2, 1205]),
    "flush": lambda index: index.flush(),
    "compact": lambda index: index.compact(),
    "write_table": lambda index: index.write_table([{"recall": 0.9}]),
    "save": lambda index: index.save(index.folder.with_name("copy")),
    "extract": lambda index: index.extract(8, index.folder.with_name("copy")).close(),
}


def make(folder: Path, plan: str) -> Rows:
    """An index with a segment, deleted rows, and rows in its log."""
    first, later = vectors(ROWS, 0), vectors(20, 1)
    with AdaptiveIndex.create(folder, first, plan=plan, nesting="dim=8,16", log_bytes=LOG_BYTES) as index:
        index.delete(np.arange(100, 200))
        index.flush()
        index.add(later)
    rows = {row: first[row] for row in range(ROWS) if not 100 <= row < 200}
    return rows | {ROWS + row: later[row] for row in range(20)}


def copy_of(template: Path, folder: Path) -> AdaptiveIndex:
    shutil.copytree(template, folder)
    return AdaptiveIndex.open(folder, log_bytes=LOG_BYTES)


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Counts of the calls of each kind in the block."""
    counts = dict.fromkeys(CALLS, 0)
    with _patched(lambda name: counts.update({name: counts[name] + 1})):
        yield counts


@contextmanager
def failing(call: str, number: int, *, stays: bool) -> Iterator[None]:
    """Let a call fail after ``number`` ones of its kind; those after it as well, if the failure ``stays``."""
    seen = 0

    def before(name: str) -> None:
        nonlocal seen
        if name != call:
            return
        seen += 1
        if seen == number + 1 or (stays and seen > number):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with _patched(before):
        yield


@contextmanager
def _patched(before: Callable[[str], None]) -> Iterator[None]:
    def patch(name: str, original: Callable[..., Any]) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            # A full disk can still be read.
            if name != "open" or args[1] & (os.O_WRONLY | os.O_RDWR):
                before(name)
            return original(*args, **kwargs)

        return mock.patch.object(os, name, call)

    patches = [patch(name, getattr(os, name)) for name in CALLS]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in reversed(patches):
            each.stop()


def fail_everywhere(base: Path, plan: str = "flat@full", most: int | None = None) -> Iterator[Failure]:
    """Every operation, with each of its calls failing in turn (at most ``most`` of a kind)."""
    # Flushing takes nearly all of the time, and matters only where the power fails.
    with mock.patch.object(os, "fsync", return_value=None):
        yield from _fail_everywhere(base, plan, most)


def _fail_everywhere(base: Path, plan: str, most: int | None) -> Iterator[Failure]:
    template = base / "template"
    rows = make(template, plan)
    for name, operation in OPERATIONS.items():
        with copy_of(template, base / f"count {name}" / "index") as index, counted() as counts:
            operation(index)
        for call, count in counts.items():
            chosen = range(count) if most is None else np.unique(np.linspace(0, count - 1, most).astype(int))
            for number in chosen if count else []:
                for stays in (False, True):
                    place = base / f"{name} {call} {number} {stays}"
                    index = copy_of(template, place / "index")
                    problems = tuple(fail_once(index, rows, operation, call, int(number), stays))
                    yield Failure(name, f"{call} {number}", stays, problems)
                    shutil.rmtree(place)


def fail_once(
    index: AdaptiveIndex,
    rows: Rows,
    operation: Callable[[AdaptiveIndex], object],
    call: str,
    number: int,
    stays: bool,
) -> Iterator[str]:
    """Problems after an operation whose call failed: with the error, the open index, and the disk."""
    folder = index.folder
    acknowledged = False
    try:
        with failing(call, number, stays=stays):
            operation(index)
        acknowledged = True  # the call was not needed, such as removing the files of an old generation
    except StorageError as error:
        if "full" not in str(error) and "undone" not in str(error):
            yield f"the error does not say why: {error}"
    except Exception as error:  # noqa: BLE001 - any other error is what is looked for
        yield f"{type(error).__name__}: {error}"
    if acknowledged:
        index.close()
        return
    before = rows
    yield from (f"open index: {problem}" for problem in differences(index, rows))
    try:
        index.add(vectors(1, 77), [123456])
        rows = rows | {123456: vectors(1, 77)[0]}
    except StorageError as error:
        if "open it again" not in str(error):
            yield f"the next write: {error}"
    index.close()
    with AdaptiveIndex.open(folder) as index:
        yield from (f"opened again: {problem}" for problem in differences(index, rows))
    copy = folder.with_name("copy")
    if copy.exists():  # whole: it was opening it that failed
        with AdaptiveIndex.open(copy, read_only=True) as index:
            yield from (f"copy: {problem}" for problem in differences(index, before))


def differences(index: AdaptiveIndex, rows: Rows) -> Iterator[str]:
    """Differences between the index and the rows it should have."""
    if sorted(index.ids().tolist()) != sorted(rows):
        yield f"{len(index)} rows, not {len(rows)}"
        return
    names = np.array(list(rows))
    data = np.ascontiguousarray(np.stack(list(rows.values()))[:, : index.nesting.full["dim"]])
    point = None if index.plan.coarse is None else f"nprobe={index.plan.coarse.lists}"
    hits = index.search(data[-60:], 1, point=point, workers=1)
    if not (hits.ids == names[nearest(data[-60:], data, 1, workers=1).indices]).all():
        yield "wrong answers"
