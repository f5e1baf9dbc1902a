"""Damaged files of an index: whatever happens to one, it is refused before another reader opens it."""

from __future__ import annotations

import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import faiss
import numpy as np

from nestling.errors import NestlingError
from nestling.search.index.index import AdaptiveIndex
from nestling.storage.lock import LOCK

DIM = 16
ROWS = 2000
READERS = [
    (np, "load"),
    (np, "fromfile"),
    (faiss, "read_index"),
    (faiss, "deserialize_index"),
    (faiss, "read_VectorTransform"),
]


@dataclass(frozen=True)
class Mutant:
    """The state of an index with one damaged file.

    Args:
        kind: of the file.
        damage: done to it.
        outcome: ``refused``; ``unharmed`` where every row and answer is still right; else what was wrong.
        seconds: that opening took.
    """

    kind: str
    damage: str
    outcome: str
    seconds: float

    @property
    def is_right(self) -> bool:
        return self.outcome in ("refused", "unharmed")


def vectors(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)


def make_index(folder: Path, plan: str, at: str | None, seed: int = 0) -> Path:
    """An index with every kind of file; beside it, as ``folder.old``, the same index some updates before."""
    with AdaptiveIndex.create(folder, vectors(ROWS, seed), plan=plan, at=at) as index:
        index.add(vectors(100, seed + 1))
        index.delete(np.arange(0, ROWS, 7))
        index.flush()
        index.add(vectors(30, seed + 2))
        index.delete(np.arange(1, ROWS, 7))
        shutil.copytree(folder, folder.with_suffix(".old"))
        index.update(vectors(20, seed + 3), np.arange(2, 22))
        index.delete([3])
    return folder


def make_older(folder: Path, plan: str, at: str | None, seed: int = 0) -> Path:
    """The same index a generation before, whose files have other names or other content."""
    with AdaptiveIndex.create(folder, vectors(ROWS, seed), plan=plan, at=at) as index:
        index.add(vectors(100, seed + 1))
        index.delete([5])
        index.flush()
    return folder


def kind_of(name: str) -> str:
    """The kind of a file by its name, without the numbers of segments and generations."""
    return re.sub(r"^segments/\d+/", "", re.sub(r"-\d{8}", "", name))


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LOCK)


def damages(
    path: Path, others: dict[str, list[bytes]], draw: np.random.Generator
) -> tuple[str, bytes | None]:
    """One kind of damage to a file: its name, and the bytes after it (None: the file is gone)."""
    data = bytearray(path.read_bytes())
    name = str(draw.choice(["flip", "flip", "truncate", "extend", "zeros", "shift", *others, "missing"]))
    if name in others:
        return name, others[name][int(draw.integers(len(others[name])))]
    place = int(draw.integers(max(1, len(data))))
    if name == "flip" and data:
        for spot in draw.integers(len(data), size=int(draw.integers(1, 9))):
            data[spot] ^= int(draw.integers(1, 256))
    elif name == "truncate":
        del data[place:]
    elif name == "extend":
        data += draw.bytes(int(draw.integers(1, 100)))
    elif name == "zeros":
        size = int(draw.integers(1, 600))
        data[place : place + size] = bytes(len(data[place : place + size]))
    elif name == "shift":
        data[place:place] = draw.bytes(int(draw.integers(1, 9)))
    elif name == "missing":
        return name, None
    return name, bytes(data)


def mutate(folder: Path, elsewhere: list[Path], per_kind: int, seed: int) -> Iterator[Mutant]:
    """Damage one file after the other, ``per_kind`` times for each kind, and open the index each time.

    Args:
        folder: an index.
        elsewhere: other indexes and other states of this one, files of which are put in place of its own.
        per_kind: mutants of each kind of file.
        seed: of what is drawn.
    """
    draw = np.random.default_rng(seed)
    truth = answers(folder)
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in files_of(folder):
        kinds[kind_of(path.relative_to(folder).as_posix())].append(path)
    for kind, paths in kinds.items():
        others = {
            "swapped": [path.read_bytes() for path in files_of(folder) if path not in paths[:1]],
            "stale": [
                path.read_bytes()
                for place in elsewhere
                for path in files_of(place)
                if kind_of(path.relative_to(place).as_posix()) == kind
            ],
        }
        others = {name: contents for name, contents in others.items() if contents}
        for _ in range(per_kind):
            path = paths[int(draw.integers(len(paths)))]
            original = path.read_bytes()
            damage, content = damages(path, others, draw)
            while content == original:
                damage, content = damages(path, others, draw)
            yield attempt(folder, path, original, content, kind, damage, truth)


def attempt(
    folder: Path, path: Path, original: bytes, content: bytes | None, kind: str, damage: str, truth: Any
) -> Mutant:
    """Open the index with one file changed, and put the file back."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    start = time.perf_counter()
    try:
        with watched_readers() as calls:
            try:
                AdaptiveIndex.open(folder, read_only=True)
                outcome = "opened"
            except NestlingError as error:
                outcome = "refused" if not calls and str(error) else f"refused after {calls[:3]}"
            except Exception as error:  # noqa: BLE001 - any other error is what is looked for
                outcome = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - start
        if outcome == "opened":
            outcome = "unharmed" if same(answers(folder), truth) else "WRONG ANSWERS"
    finally:
        path.write_bytes(original)
    return Mutant(kind, damage, outcome, seconds)


@contextmanager
def watched_readers() -> Iterator[list[str]]:
    """The calls of readers that are not ours while the block runs."""
    calls: list[str] = []

    def watching(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return original(*args, **kwargs)

        return call

    patches = [
        mock.patch.object(owner, name, watching(name, getattr(owner, name))) for owner, name in READERS
    ]
    for patch in patches:
        patch.start()
    try:
        yield calls
    finally:
        for patch in patches:
            patch.stop()


def answers(folder: Path) -> tuple[Any, ...]:
    with AdaptiveIndex.open(folder, read_only=True) as index:
        return (np.sort(index.ids()), *index.search(vectors(20, 99), 5), index.info().plan)


def same(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def states(base: Path, plan: str, at: str | None = None) -> tuple[Path, list[Path]]:
    """An index with every kind of file, and others whose files are put in their place."""
    folder = make_index(base / "index", plan, at)
    older, other = make_older(base / "older", plan, at), make_index(base / "other", plan, at, seed=50)
    return folder, [base / "index.old", older, other]
