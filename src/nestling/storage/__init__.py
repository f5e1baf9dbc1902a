"""Bytes that survive a crash: verified folders, atomic files, locks, and work that can be resumed."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.storage.artifact import read_folder as read_folder
    from nestling.storage.artifact import write_folder as write_folder

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "read_folder": "artifact",
        "write_folder": "artifact",
    },
)
