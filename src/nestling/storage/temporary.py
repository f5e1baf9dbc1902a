"""Temporary places beside a target: filled first, renamed at the end, and removed if a process was killed."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SECONDS_UNTIL_LOCKED = 60  # far more than pass between the making of a place and its lock


def beside(target: Path, ending: str = "tmp") -> Path:
    """A new name beside a target, on the same disk."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.{ending}")


@contextmanager
def held(place: Path) -> Iterator[None]:
    """Lock a temporary file or folder while it is filled; the lock ends with the process."""
    descriptor = _open_locked(place)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def remove_torn(target: Path) -> None:
    """Remove what killed processes left beside a target, and nothing that another process is filling."""
    name = glob.escape(f".{target.name}.")
    hexes, places = "[0-9a-f]" * 32, []
    with suppress(OSError):
        places = [*target.parent.glob(f"{name}{hexes}.tmp")]
        if target.exists():  # or else this is the only copy of the old content
            places += target.parent.glob(f"{name}{hexes}.old")
    for place in places:
        with suppress(OSError):
            if time.time() - place.stat().st_mtime < _SECONDS_UNTIL_LOCKED:
                continue
            descriptor = _open_locked(place)
            if descriptor is None:
                continue
            os.close(descriptor)
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink()


def _open_locked(place: Path) -> int | None:
    """A descriptor that holds the lock on a place; None if another does, or there are no such locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        descriptor = os.open(place, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
