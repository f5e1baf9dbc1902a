"""The old name of :class:`~nestling.storage.resumable.ResumableValues`."""

from nestling.storage.resumable import Json as Json
from nestling.storage.resumable import ResumableValues as Notes

__all__ = ["Json", "Notes"]
