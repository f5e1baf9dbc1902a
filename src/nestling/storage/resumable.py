"""Arrays that take long to make, kept as files while they grow, so that an interrupted build goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.errors import ArtifactError, ConfigError, StorageError
from nestling.process.progress import Progress
from nestling.storage.artifact import open_array, open_new, storage_errors, write_file
from nestling.storage.owner import Owner

_STATE = "build.json"
Arrays = dict[str, NDArray[Any]]


class Journal:
    """Named arrays of one build, in memory or, with a folder, in ``.npy`` files that outlive the process.

    What was finished is read back, what was begun goes on after the last block that is known to be on
    disk. The last thing a build does is :meth:`finish`.

    Args:
        folder: where the files stand; it is made if it does not exist. None holds arrays in memory.
        identity: what is built from what; a folder that was begun for something else is refused.

    Raises:
        ConfigError: if the folder holds the beginnings of another build.
        ArtifactError: if its state cannot be read.

    What changes it raises StorageError in a fork of the process that began: both would write to one place.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]) -> None:
        self.folder, self._identity, self._owner = folder, dict(identity), Owner(folder)
        self._memory: Arrays = {}
        self._done: dict[str, int] = {}
        if folder is not None:
            self._done = self._resume(folder)

    def once(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The group of arrays that ``make`` gives, made only once; they are called ``name.key``."""
        if f"{name}." not in self._done:
            made = make()
            self._check()
            for key, array in made.items():
                self._write(f"{name}.{key}", array)
            self._done.update({f"{name}.{key}": len(array) for key, array in made.items()})
            self._note(f"{name}.", len(made))
        return self.group(name)

    def groups(self) -> list[str]:
        """The groups that were made."""
        return [name[:-1] for name in self._done if name.endswith(".")]

    def group(self, name: str) -> Arrays:
        """The arrays of a group, by key."""
        return {key.removeprefix(f"{name}."): self[key] for key in self._members(name)}

    def drop_groups(self, prefix: str, keep: str = "") -> None:
        """Forget the groups whose names begin so, all but one, and what an interruption left of them."""
        names = [
            key
            for name in self.groups()
            if name.startswith(prefix) and name != keep
            for key in (f"{name}.", *self._members(name))
        ]
        if names:
            self.drop(*names)
        if self.folder is not None:
            self._check()
            with storage_errors(self.folder):
                for path in self.folder.glob(f"{prefix}*.npy"):
                    if not (keep and path.name.startswith(f"{keep}.")):
                        path.unlink()

    def _members(self, name: str) -> list[str]:
        return [key for key in self._done if key.startswith(f"{name}.") and key != f"{name}."]

    def grow(
        self, names: Mapping[str, tuple[Any, int]], rows: int, block: int, make: Callable[[slice], Arrays]
    ) -> None:
        """Arrays of ``rows`` rows, made block by block.

        Args:
            names: type and width of each; a width of 0 is a vector.
            rows: of each array.
            block: rows made at a time; the same whenever a build goes on.
            make: the named arrays of some rows.
        """
        done = min(self._done.get(name, 0) for name in names)
        progress = Progress("writing codes", rows, "rows", done=done)
        try:
            sinks = {name: self._open(name, kind, width, rows, done) for name, (kind, width) in names.items()}
            with progress:
                for start in range(done, rows, block):
                    span = slice(start, min(start + block, rows))
                    made = make(span)
                    self._check()
                    for name, sink in sinks.items():
                        sink(span, made[name])
                    self._done.update(dict.fromkeys(names, span.stop))
                    self._save()
                    progress.update(span.stop - span.start)
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"{self.folder} could not be written: {error.strerror or error}. What was built is kept; "
                "make room and build again, which goes on from there"
            ) from error

    def __getitem__(self, name: str) -> NDArray[Any]:
        if self.folder is None:
            return self._memory[name]
        return open_array(self.folder / f"{name}.npy")

    def keep(self, name: str, array: NDArray[Any]) -> None:
        """Write an array whole."""
        self._check()
        self._write(name, array)
        self._note(name, len(array))

    def __contains__(self, name: str) -> bool:
        return name in self._done

    def drop(self, *names: str) -> None:
        """Forget arrays that were needed on the way."""
        self._check()
        known = [name for name in names if name in self._done]
        for name in names:
            self._memory.pop(name, None)
            self._done.pop(name, None)
        if self.folder is not None:
            if known:
                self._save()  # first, so that no state names a file that is gone
            with storage_errors(self.folder):
                for name in names:
                    (self.folder / f"{name}.npy").unlink(missing_ok=True)

    def finish(self) -> Arrays:
        """All arrays that were not dropped; the folder then holds them and nothing else of ours."""
        found = {name: self[name] for name in self._done if not name.endswith(".")}
        if self.folder is not None:
            self._check()
            with storage_errors(self.folder):
                (self.folder / _STATE).unlink(missing_ok=True)
        return found

    def _resume(self, folder: Path) -> dict[str, int]:
        path = folder / _STATE
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for torn in folder.glob(".*.tmp"):
                torn.unlink()
            is_begun = path.is_file()
        if not is_begun:
            write_file(path, json.dumps({"identity": self._identity, "done": {}}))
            return {}
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            begun, done = state["identity"], {str(name): int(rows) for name, rows in state["done"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path} cannot be read ({error}); empty {folder} and build again") from error
        if begun != self._identity:
            changed = [key for key in self._identity if begun.get(key) != self._identity[key]]
            raise ConfigError(
                f"{folder} holds a build that was begun with another {' and '.join(changed) or 'state'}; "
                "go on with what it was begun with, or give an empty folder"
            )
        return done

    def _check(self) -> None:
        if self.folder is not None:
            self._owner.check()

    def _note(self, name: str, rows: int) -> None:
        self._done[name] = rows
        self._save()

    def _save(self) -> None:
        if self.folder is not None:
            write_file(self.folder / _STATE, json.dumps({"identity": self._identity, "done": self._done}))

    def _write(self, name: str, array: NDArray[Any]) -> None:
        if self.folder is None:
            self._memory[name] = array
            return
        write_array(self.folder / f"{name}.npy", array)

    def _open(
        self, name: str, kind: Any, width: int, rows: int, done: int
    ) -> Callable[[slice, NDArray[Any]], None]:
        shape = (rows, width) if width else (rows,)
        if self.folder is None:
            array = self._memory.setdefault(name, np.empty(shape, kind))

            def put(span: slice, block: NDArray[Any]) -> None:
                array[span] = block

            return put
        path = self.folder / f"{name}.npy"
        row_bytes = np.dtype(kind).itemsize * max(width, 1)
        header_bytes = _header_bytes(path) if done else _begin(path, shape, np.dtype(kind))

        def append(span: slice, block: NDArray[Any]) -> None:
            with path.open("r+b") as stream:
                stream.truncate(header_bytes + span.start * row_bytes)  # whatever stands after it is torn
                stream.seek(0, os.SEEK_END)
                stream.write(np.ascontiguousarray(block, kind).data)
                stream.flush()
                os.fsync(stream.fileno())

        return append


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as ``.npy``, whole or not at all.

    Raises:
        StorageError: if writing fails.
    """
    with open_new(path) as stream:
        header = {
            "descr": np.lib.format.dtype_to_descr(array.dtype),
            "fortran_order": False,
            "shape": array.shape,
        }
        np.lib.format.write_array_header_2_0(stream, header)
        for block in _blocks(array):
            stream.write(np.ascontiguousarray(block).data)


def _blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    step = max(1, (1 << 26) // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        yield array[start : start + step]


def _begin(path: Path, shape: tuple[int, ...], kind: np.dtype[Any]) -> int:
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    path.unlink(missing_ok=True)  # not cut short: an engine built here before may still read it
    with path.open("wb") as stream:
        np.lib.format.write_array_header_2_0(stream, header)
        return stream.tell()


def _header_bytes(path: Path) -> int:
    with path.open("rb") as stream:
        np.lib.format.read_magic(stream)
        np.lib.format.read_array_header_2_0(stream)
        return stream.tell()
