"""Power cuts after any flush: every acknowledged operation must be on the disk.

A kill leaves everything that was written; a power cut may leave only what was flushed. So every flush is
watched, and after each the worst disk is put together: files with the content of their last flush, in
folders with the names of theirs. Nothing that was not flushed is on it.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

from crashes import LOG_BYTES, examine, form_of, history

from nestling.search.index.index import AdaptiveIndex


@dataclass
class WorstDisk:
    """The part of a folder that is certain to be on the disk.

    Args:
        root: the folder, whose own name is certain.
        kept: a folder outside of it, where links keep flushed files from giving their numbers to others.
    """

    root: Path
    kept: Path
    files: dict[int, bytes] = field(default_factory=dict)
    folders: dict[int, dict[str, int]] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)

    def flushed(self, descriptor: int) -> None:
        """Note what a flush of a file or folder made certain."""
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(descriptor) as entries:
                self.folders[status.st_ino] = {entry.name: entry.inode() for entry in entries}
            self.held.append(os.dup(descriptor))
        elif stat.S_ISREG(status.st_mode):
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            self.files[status.st_ino] = path.read_bytes()
            if not (self.kept / str(status.st_ino)).exists():
                os.link(path, self.kept / str(status.st_ino))

    def write(self, target: Path) -> None:
        """Put the worst disk together in another folder."""
        self._write(self.root.stat().st_ino, target)

    def _write(self, number: int, target: Path) -> None:
        target.mkdir()
        for name, entry in self.folders.get(number, {}).items():
            if entry in self.folders:
                self._write(entry, target / name)
            elif entry in self.files:
                (target / name).write_bytes(self.files[entry])
            elif name != "engine":  # a name that is certain, of a file nothing of which is
                (target / name).write_bytes(b"")

    def close(self) -> None:
        for descriptor in self.held:
            os.close(descriptor)


@dataclass(frozen=True)
class Cut:
    """The state after a power cut that follows one flush.

    Args:
        during: the operation that was in flight.
        problems: differences from the expected index.
    """

    during: str
    problems: tuple[str, ...]


@contextmanager
def _after_flushes(notice: Callable[[int], None]) -> Iterator[None]:
    flush = os.fsync

    def watched(descriptor: Any) -> None:
        flush(descriptor)
        notice(descriptor)

    with mock.patch.object(os, "fsync", watched):
        yield


def cut_everywhere(base: Path, operations: int, seed: int) -> Iterator[Cut]:
    """Go through a history, and look at the worst disk after every flush and every acknowledgement."""
    folder, scratch = base / "index", base / "after"
    folder.mkdir(parents=True)
    (base / "kept").mkdir()
    disk = WorstDisk(folder, base / "kept")
    index: AdaptiveIndex | None = None
    cuts: list[Cut] = []
    acknowledged, name = 0, "create"

    def look() -> None:
        disk.write(scratch)
        result = examine(scratch, seed, acknowledged, name)
        cuts.append(Cut(name, tuple(result.problems)))
        shutil.rmtree(scratch)

    def notice(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        if folder in (place, *place.parents):
            disk.flushed(descriptor)
            look()

    for operation, _ in islice(history(seed), operations):
        name = operation.name
        with _after_flushes(notice):
            if index is None:
                index = AdaptiveIndex.create(
                    folder, operation.vectors, operation.ids, log_bytes=LOG_BYTES, **form_of(seed)
                )
            else:
                operation.apply(index)
        acknowledged += 1
        name = "none"
        look()
        yield from cuts
        cuts.clear()
    disk.close()
    if index is not None:
        index.close()
