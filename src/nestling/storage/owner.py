"""Resources that only the process that opened them may change; a fork of it is refused."""

from __future__ import annotations

import os

from nestling.errors import StorageError


class Owner:
    """Remembers which process opened a resource, and refuses changes by a fork of it.

    Both would write to the same place in the same files, each with its own counters, or share one
    connection, without noticing.

    Args:
        what: the resource, as the error names it.
    """

    def __init__(self, what: object) -> None:
        self._what, self._process = what, os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this process is the one that opened it."""
        return os.getpid() == self._process

    def check(self) -> None:
        """Refuse another process.

        Raises:
            StorageError: in a fork of the process that opened it; nothing was written.
        """
        if not self.is_here:
            raise StorageError(
                f"{self._what} was opened by process {self._process}, and this is process {os.getpid()}, a "
                "fork of it; concurrent writes would corrupt it; nothing was written. Change it in the "
                "process that opened it, or close it there and open it again in this one"
            )
