"""Paths as users write them."""

from __future__ import annotations

from os import PathLike
from pathlib import Path


def home_path(path: str | PathLike[str]) -> Path:
    """``path`` with ``~`` as the home that it stands for; every path that a user may give comes here."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # nobody's home: a file of that name
        return Path(path)
