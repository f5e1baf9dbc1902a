"""A search method in the comparison: a function that builds its index, and its operating points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Built:
    """An index over the base.

    Args:
        search: ``(queries, k, point)`` to row numbers ``Int[queries, k]``, one thread.
        search_one: the same for a single query ``Float32[dim]``, where the library has a call for it.
        size_bytes: memory while it is searched, with the vectors that re-rank.
        read_bytes: bytes a query reads at a point, where that is known; for the bandwidth column.
    """

    search: Callable[[Floats, int, Any], Any]
    size_bytes: int
    search_one: Callable[[Floats, int, Any], Any] | None = None
    read_bytes: Callable[[Any], float] | None = None


@dataclass(frozen=True, eq=False)
class Method:
    """One method to search.

    Args:
        name: with its build parameters, for example ``faiss IVF1024,SQ8``.
        build: unit vectors ``Float32[rows, dim]`` and an empty folder to an index.
        points: parameters of a search, the cheapest first; the run stops at the first that finds all.
        ours: whether it is compared with the peers, or one of them.
    """

    name: str
    build: Callable[[Floats, Path], Built]
    points: Sequence[Any] = (None,)
    ours: bool = False

    @property
    def library(self) -> str:
        return self.name.partition(" ")[0]


def folder_bytes(folder: Path) -> int:
    """Size of the files below ``folder``; of sparse files, what is really there."""
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(min(file.st_size, 512 * file.st_blocks) for file in files)
