"""Long work that resumes after an interruption: arrays and values on the disk, and how much is finished."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nestling.errors import ArtifactError, ConfigError, StorageError
from nestling.process.blocks import blocks
from nestling.process.interrupts import on_interrupt
from nestling.process.progress import Progress
from nestling.storage.artifact import open_array, storage_errors, write_file
from nestling.storage.durable import write_all
from nestling.storage.npy import header_bytes, write_array, write_header
from nestling.storage.owner import Owner

_STATE = "build.json"
_SECONDS_BETWEEN_COPIES = 60.0
_APPENDING = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
Arrays = dict[str, NDArray[Any]]
Json = TypeVar("Json")

_log = logging.getLogger(__name__)


def append_after(path: Path, size_bytes: int, data: Any) -> None:
    """Append to a file and flush it; what follows its first ``size_bytes`` is torn and goes."""
    descriptor = os.open(path, _APPENDING, 0o644)
    try:
        os.ftruncate(descriptor, size_bytes)
        os.lseek(descriptor, 0, os.SEEK_END)
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _State:
    """The state of some work: a JSON file, or memory alone.

    Args:
        path: of the file, which need not exist; None is memory.
        identity: of the work; the state of another one is refused.
        key: the name in the file of the finished part.
        otherwise: advice in errors on how to start again.

    Attributes:
        done: finished parts, by name.
        is_begun: whether the file was there.

    Raises:
        ConfigError: for the state of other work.
        ArtifactError: for a state that cannot be read.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any], key: str, otherwise: str) -> None:
        self.path, self._identity, self._key, self._otherwise = path, dict(identity), key, otherwise
        self._owner = Owner(path)
        self.done: dict[str, Any] = {}
        self.is_begun = False
        if path is not None:
            with storage_errors(path):
                self.is_begun = path.is_file()
            self.done = self._read(path) if self.is_begun else {}

    def check(self) -> None:
        """Refuse to write in a fork of the process that began: both would write to one place.

        Raises:
            StorageError: there.
        """
        if self.path is not None:
            self._owner.check()

    def save(self) -> None:
        """Write the state, whole or not at all."""
        if self.path is not None:
            self.check()
            write_file(self.path, json.dumps({"identity": self._identity, self._key: self.done}))

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            begun, done = dict(state["identity"]), dict(state[self._key])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path} cannot be read ({error}); {self._otherwise}") from error
        if begun != self._identity:
            keys = [key for key in self._identity if begun.get(key) != self._identity[key]]
            theirs, ours = ({key: each.get(key) for key in keys} for each in (begun, self._identity))
            raise ConfigError(
                f"{path} belongs to work that was started with another {' and '.join(keys) or 'state'}: "
                f"{theirs}, not {ours}; resume it with the earlier one, or {self._otherwise}"
            )
        return done


class ResumableValues:
    """Values that JSON holds, by name, each made once.

    Args:
        path: a JSON file, written after each value and read at the start; None keeps them in memory.
        identity: settings, versions and the like that distinguish this work from other work.

    Raises:
        ConfigError: for a file that holds the values of other work.
        ArtifactError: for a file that cannot be read.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, object]) -> None:
        self._state = _State(path, identity, "figures", f"delete {path}")
        if self._state.done:
            _log.info("%s: resuming with %s figures of an interrupted run", path, len(self._state.done))

    def once(self, name: str, make: Callable[[], Json]) -> Json:
        """The value of this name, which ``make`` gives where there is none yet."""
        state = self._state
        if name not in state.done:
            with on_interrupt(self._kept):
                state.done[name] = json.loads(json.dumps(make()))
            state.save()
        return state.done[name]  # type: ignore[no-any-return] # as json gives back what it was given

    def _kept(self) -> str:
        if self._state.path is None:
            return "the figures were kept in memory alone; give an output folder to be able to resume"
        return f"{len(self._state.done)} figures are kept in {self._state.path}; run it again to resume"

    def remove(self) -> None:
        """Delete the file, as all values are made."""
        if self._state.path is not None:
            self._state.path.unlink(missing_ok=True)


class ResumableArrays:
    """Named arrays of one build, in memory or, with a folder, in ``.npy`` files that outlive the process.

    Finished arrays are read back; unfinished ones resume after the last block that is known to be on the
    disk. A build ends with :meth:`finish`.

    Args:
        folder: of the files; it is made if it does not exist. None holds arrays in memory.
        identity: of the build; a folder that was begun with another one is refused.

    Raises:
        ConfigError: if the folder holds the beginnings of another build.
        ArtifactError: if its state cannot be read.

    Methods that write raise StorageError in a fork of the process that began: both would write to one place.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self._memory: Arrays = {}
        if folder is not None:
            with storage_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                for torn in folder.glob(".*.tmp"):
                    torn.unlink()
        path = None if folder is None else folder / _STATE
        self._state = _State(path, identity, "done", f"empty {folder} and build again")
        self._done: dict[str, int] = self._state.done
        if not self._state.is_begun:
            self._state.save()

    def once(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The group of arrays that ``make`` gives, made only once; they are called ``name.key``."""
        if f"{name}." not in self._done:
            made = make()
            self._state.check()
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
            self._state.check()
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
            block: rows made at a time; the same whenever a build resumes.
            make: the named arrays of some rows.
        """
        done = min(self._done.get(name, 0) for name in names)
        progress = Progress("writing codes", rows, "rows", done=done)
        try:
            sinks = {name: self._open(name, kind, width, rows, done) for name, (kind, width) in names.items()}
            with progress:
                for span in blocks(rows, block, done):
                    made = make(span)
                    self._state.check()
                    for name, sink in sinks.items():
                        sink(span, made[name])
                    self._done.update(dict.fromkeys(names, span.stop))
                    self._state.save()
                    progress.update(span.stop - span.start)
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"{self.folder} could not be written: {error.strerror or error}. The finished part is kept; "
                "make room and build again, which resumes there"
            ) from error

    def __getitem__(self, name: str) -> NDArray[Any]:
        if self.folder is None:
            return self._memory[name]
        return open_array(self.folder / f"{name}.npy")

    def keep(self, name: str, array: NDArray[Any]) -> None:
        """Write an array whole."""
        self._state.check()
        self._write(name, array)
        self._note(name, len(array))

    def __contains__(self, name: str) -> bool:
        return name in self._done

    def drop(self, *names: str) -> None:
        """Forget arrays that only the build needed."""
        self._state.check()
        known = [name for name in names if name in self._done]
        for name in names:
            self._memory.pop(name, None)
            self._done.pop(name, None)
        if self.folder is not None:
            if known:
                self._state.save()  # first, so that no state names a file that is gone
            with storage_errors(self.folder):
                for name in names:
                    (self.folder / f"{name}.npy").unlink(missing_ok=True)

    def finish(self) -> Arrays:
        """All arrays that were not dropped; the folder then holds them and nothing else of ours."""
        found = {name: self[name] for name in self._done if not name.endswith(".")}
        if self.folder is not None:
            self._state.check()
            with storage_errors(self.folder):
                (self.folder / _STATE).unlink(missing_ok=True)
        return found

    def _note(self, name: str, rows: int) -> None:
        self._done[name] = rows
        self._state.save()

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
        if not done:
            path.unlink(missing_ok=True)  # not cut short: an engine built here before may still read it
            with path.open("wb") as stream:
                write_header(stream, shape, np.dtype(kind))
        first = header_bytes(path)

        def append(span: slice, block: NDArray[Any]) -> None:
            append_after(path, first + span.start * row_bytes, np.ascontiguousarray(block, kind).data)

        return append


class Checkpoints:
    """Copies of something that grows in a build, such as a graph; the last one is kept.

    Args:
        arrays: of the build; in memory there are no copies.
        prefix: of the names of the copies.
    """

    def __init__(self, arrays: ResumableArrays, prefix: str) -> None:
        self._arrays, self._prefix, self._written = arrays, prefix, time.monotonic()

    def last(self) -> tuple[int, Arrays] | None:
        """Amount grown when the last copy was written, and the copy; None without one."""
        names = [name for name in self._arrays.groups() if name.startswith(self._prefix)]
        if not names:
            return None
        return int(max(names).removeprefix(self._prefix)), self._arrays.group(max(names))

    @property
    def is_due(self) -> bool:
        """Whether the last copy is old enough for another."""
        old = time.monotonic() - self._written
        return self._arrays.folder is not None and old >= _SECONDS_BETWEEN_COPIES

    def keep(self, grown: int, copy: Arrays) -> None:
        """Write a copy in the place of the one before."""
        name = f"{self._prefix}{grown:012}"
        self._arrays.once(name, lambda: copy)
        self._arrays.drop_groups(self._prefix, keep=name)
        self._written = time.monotonic()

    def drop(self) -> None:
        """Forget them, as all has grown."""
        self._arrays.drop_groups(self._prefix)
