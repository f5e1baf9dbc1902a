"""One writer at a time: a lock on a file, which the operating system drops when the process ends."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path

from nestling.arguments.constraints import Real, check
from nestling.errors import StorageError
from nestling.storage.artifact import reason_of
from nestling.storage.owner import Owner

LOCK = "writer.lock"
_SECONDS_BETWEEN_TRIES = 0.05
_HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}  # some systems say that it is not allowed

_log = logging.getLogger(__name__)
_open_locks: weakref.WeakSet[WriterLock] = weakref.WeakSet()


class WriterLock:
    """The right to write into a folder, held until ``release`` or the end of the process.

    A fork of the process does not hold it, and closes what it inherited of it: the lock is free as soon as
    the process that took it ends.

    Args:
        folder: in which the file of the lock lies.
        wait: seconds to wait for another writer to end.
        otherwise: the alternative that errors name.

    Raises:
        StorageError: if another writer holds it, in this process or another, the folder is read-only, or
            its file system knows no locks.
        ConfigError: for seconds that are none.
    """

    def __init__(
        self,
        folder: Path,
        *,
        wait: float = 0,
        otherwise: str = "to search it only, open it with read_only=True",
    ) -> None:
        check_wait(wait)
        self._folder, self._otherwise, self._owner = folder, otherwise, Owner(folder)
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(
                f"{folder} cannot be opened for writing: {reason_of(error)}; {otherwise}"
            ) from error
        self._close = weakref.finalize(self, os.close, descriptor)
        try:
            self._take(descriptor, wait)
        except BaseException:
            self._close()
            raise
        _open_locks.add(self)
        with suppress(OSError):  # only for the message below; a full disk must not keep the index shut
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())

    @property
    def is_here(self) -> bool:
        """Whether this process took the lock, and is no fork of the one that did."""
        return self._owner.is_here

    def check(self) -> None:
        """Refuse to write in a fork of the process that took the lock.

        Raises:
            StorageError: there; nothing was written.
        """
        self._owner.check()

    def release(self) -> None:
        """Let another writer in."""
        self._close()

    def _take(self, descriptor: int, wait: float) -> None:
        end, is_told = time.monotonic() + wait, False
        while not self._try(descriptor):
            holder = _holder(descriptor)
            if time.monotonic() >= end:
                waited = f" after {wait:g} seconds" if wait else ""
                raise StorageError(
                    f"{self._folder} is open for writing already{waited}, by process {holder}; close it "
                    f"there, or wait for it with wait=60 (seconds); {self._otherwise}"
                )
            if not is_told:
                _log.info("waiting until process %s closes %s", holder, self._folder)
                is_told = True
            time.sleep(_SECONDS_BETWEEN_TRIES)

    def _try(self, descriptor: int) -> bool:
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _HELD:
                return False
            raise StorageError(
                f"{self._folder} is on a file system without locks ({error.strerror or error}), so a "
                "second writer could not be kept out; write to another disk, or have this one mounted with "
                f"locks (flock); {self._otherwise}"
            ) from error
        return True


def check_wait(wait: float) -> None:
    """Refuse seconds that nobody can wait.

    Raises:
        ConfigError: for less than 0, or no finite number.
    """
    check("wait", wait, Real(least=0, hint="it counts seconds"))


def _holder(descriptor: int) -> str:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
    except OSError:
        return "unknown"


def _close_in_child() -> None:
    """A fork shares the lock as long as it has the file open, also when its parent is gone."""
    for lock in tuple(_open_locks):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        try:
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # a byte that nobody reads: reading stays allowed
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
