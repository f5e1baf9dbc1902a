"""One writer at a time: a lock on a file, which the operating system drops when the process ends."""

from __future__ import annotations

import os
import sys
import weakref
from contextlib import suppress
from pathlib import Path

from nestling.artifact import reason_of
from nestling.errors import StorageError

LOCK = "writer.lock"


class WriterLock:
    """The right to write into a folder, held until ``release`` or the end of the process.

    Raises:
        StorageError: if another writer holds it, in this process or another, or the folder is read-only.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageError(
                f"{folder} cannot be opened for writing: {reason_of(error)}; "
                "to search it only, open it with read_only=True"
            ) from error
        if not _try_lock(descriptor):
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StorageError(
                f"{folder} is open for writing already, by process {holder}; close it there, "
                "or open it here with read_only=True"
            )
        self._close = weakref.finalize(self, os.close, descriptor)
        with suppress(OSError):  # only for the message above; a full disk must not keep the index shut
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another writer in."""
        self._close()


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # a byte that nobody reads: reading stays allowed
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
