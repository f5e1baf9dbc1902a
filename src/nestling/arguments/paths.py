"""Paths as users write them."""

from __future__ import annotations

from os import PathLike
from pathlib import Path


def home_path(path: str | PathLike[str]) -> Path:
    """``path`` with ``~`` expanded; used for every path that a user may give."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # an unknown user: a file of that name
        return Path(path)
