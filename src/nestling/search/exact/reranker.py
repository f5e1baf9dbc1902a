"""Re-ranks shortlists by exact scores of the fetched rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling import kernels
from nestling.cut import RAW, cut
from nestling.kernels import StoredRows
from nestling.search.exact.scores import Comparison
from nestling.search.exact.space import Floats, Ints, Space

_FLOATS_GATHERED_AT_A_TIME = 1 << 22

Doubles = NDArray[np.float64]

Fetch = Callable[[Ints], NDArray[Any]]
"""Reads rows, ``Float[rows, dim]``."""


def fetch_vectors(vectors: NDArray[Any], dim: int) -> Fetch:
    """Prefixes of the vectors themselves; from a memory map only those rows are read."""
    source = cut(vectors, dim, RAW)
    return lambda rows: np.asarray(source[rows], np.float32)


class Reranker:
    """Puts shortlists in order.

    Args:
        space: metric of comparisons.
        dim: the prefix.
        fetch: reads the prefixes of rows.
        stored: the same prefixes for the kernels, where they can read them; they take half the time.
        origin: ``Float64[dim]`` that was taken off what is stored, if any.
    """

    def __init__(
        self,
        space: Space,
        dim: int,
        fetch: Fetch,
        stored: StoredRows | None = None,
        origin: Doubles | None = None,
    ) -> None:
        self._space, self.dim, self._fetch = space, dim, fetch
        self.stored, self.origin = stored, origin

    def order(self, queries: Floats, shortlist: Ints, k: int) -> tuple[Ints, Floats]:
        """The ``k`` best of ``Int[queries, length]`` (-1 is none) and their scores.

        Rows are read in rising order, forward on a disk; of equal scores the lower row wins.
        """
        asked = self._space.prefix(queries, self.dim, "queries")
        if self.stored is not None and kernels.level() != "off":
            return self._rank(cut(queries, self.dim, RAW), shortlist, k)
        if self._space.is_rising:  # scaled in double precision, with the rows
            asked = cut(queries, self.dim, RAW)
        shortlist = np.sort(shortlist, axis=1)
        step = max(1, _FLOATS_GATHERED_AT_A_TIME // (shortlist.shape[1] * self.dim))
        scores = np.empty(shortlist.shape, np.float64)
        for start in range(0, len(asked), step):
            rows = shortlist[start : start + step]
            found = self._fetch(np.maximum(rows, 0).ravel()).reshape(*rows.shape, self.dim)
            scores[start : start + step] = self._space.compare(asked[start : start + step], found)
        found, kept = self._space.best_first(shortlist, scores, k)
        return found, kept.astype(np.float32)

    def _rank(self, queries: Floats, shortlist: Ints, k: int) -> tuple[Ints, Floats]:
        """The same in one pass of compiled code, which reads the rows in place, in double precision."""
        assert self.stored is not None
        comparison = Comparison(self._space.is_normalised, self._space.is_rising)
        rows, scores = comparison.best_stored(queries, self.stored, shortlist, k, self.origin)
        with np.errstate(over="ignore"):  # overflow gives infinity in float32; rows are in order
            return rows, scores.astype(np.float32)
