"""Running top-k of many queries: documents that cannot be among them are never sorted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# The bound is lower than the k-th best score by this share, so that rounding hides no better document.
SLACK = 1e-6
# Columns per neighbour that remain when the first documents are folded to find a bound.
_FOLDED_PER_BEST = 4
# Candidates per neighbour that are collected before the next selection.
_WAITING_PER_BEST = 3


class Best:
    """The ``k`` highest scores so far of some queries, and their documents.

    Documents are offered in rising order; of equal scores the first offered is kept.

    Attributes:
        bound: ``Float[queries, 2]``; a score below the first column is not among the k best. The second
            column is 1, for the product with the limits of a tile.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.k = k
        self.bound = np.ones((queries, 2), np.float32)
        self._seen = 0
        self._scores = np.full((queries, k), -np.inf, np.float32)
        self._indices = np.full((queries, k), -1, np.int64)
        self._waiting: list[tuple[Ints, Ints, Floats]] = []
        self._waiting_count = 0

    @property
    def is_open(self) -> bool:
        """Whether there is no bound yet, as fewer than ``k`` documents were seen."""
        return self._seen < self.k

    def start(self, scores: Floats, first: int) -> None:
        """Add the first documents, numbered from ``first``: all scores ``Float[queries, documents]``."""
        self._seen += scores.shape[1]
        better = scores >= _lower_bound(scores, self.k)
        rows, columns = np.divmod(np.flatnonzero(better), scores.shape[1])
        self._waiting.append((rows, columns + first, scores[rows, columns]))
        self._settle()

    def offer(self, rows: Ints, indices: Ints, scores: Floats) -> None:
        """Add documents that reach the bound: query, document and score of each."""
        self._waiting.append((rows, indices, scores))
        self._waiting_count += len(rows)
        if self._waiting_count > _WAITING_PER_BEST * self._scores.size:
            self._settle()

    def ranked(self) -> tuple[Ints, Floats]:
        """Documents and scores, ``[queries, k]``, best first."""
        self._settle()
        order = np.argsort(-self._scores, axis=1, kind="stable")
        return np.take_along_axis(self._indices, order, 1), np.take_along_axis(self._scores, order, 1)

    def _settle(self) -> None:
        """Keep the k best of each query, of equal scores the first, in the order of the offers."""
        if not self._waiting:
            return
        scores, indices = self._widened()
        place = scores.shape[1] - self.k
        kth = np.partition(scores, place, axis=1)[:, place, None]
        better, equal = scores > kth, scores == kth
        room = self.k - better.sum(axis=1, keepdims=True)
        kept = better | (equal & (equal.cumsum(axis=1) <= room))
        self._scores = scores[kept].reshape(self._scores.shape)
        self._indices = indices[kept].reshape(self._indices.shape)
        self.bound[:, 0] = (kth - SLACK * np.abs(kth))[:, 0]

    def _widened(self) -> tuple[Floats, Ints]:
        """The best and those that wait, one row per query, with ``-inf`` where a row has fewer."""
        rows, indices, scores = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_count = [], 0
        # numpy sorts small integers by radix, several times faster than by comparisons.
        order = np.argsort(rows.astype(np.min_scalar_type(len(self._scores))), kind="stable")
        counts = np.bincount(rows, minlength=len(self._scores))
        places = self.k + np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        wide_scores = np.full((len(counts), self.k + counts.max()), -np.inf, np.float32)
        wide_indices = np.full(wide_scores.shape, -1, np.int64)
        wide_scores[:, : self.k], wide_indices[:, : self.k] = self._scores, self._indices
        wide_scores[rows[order], places] = scores[order]
        wide_indices[rows[order], places] = indices[order]
        return wide_scores, wide_indices


def _lower_bound(scores: Floats, k: int) -> Floats:
    """A lower bound of the k-th highest score of each row, ``Float[rows, 1]``.

    A row is folded: its halves are replaced by their maximum, entry by entry. The k-th highest of the rest is
    at most the k-th highest of all, and is found among far fewer entries.
    """
    while scores.shape[1] >= 2 * _FOLDED_PER_BEST * k:
        half = scores.shape[1] // 2
        scores = np.maximum(scores[:, :half], scores[:, half : 2 * half])
    if scores.shape[1] <= k:
        return np.full((len(scores), 1), -np.inf, np.float32)
    place = scores.shape[1] - k
    return np.asarray(np.partition(scores, place, axis=1)[:, place, None])
