"""Groups of equal, or nearly equal, rows: a graph links one row of each group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.process.blocks import blocks
from nestling.search.exact.space import Ints

Doubles = NDArray[np.float64]
Links = NDArray[np.int32]

_DIRECTIONS = 8
# Shares of the distance between most rows: tolerance of equal rows, and width of the cells that hold them.
_TOLERANCE, _CELL = 4e-3, 1 / 4
_PASSES = 16
_FARTHEST = 1 << 52
_PAIRS, _MOST_PAIRS = 10_000, 0.75
# Members of one group that are compared with a query. They differ by no more than the tolerance.
_MOST_MEMBERS = 4096
MORE_NODES = 8
"""Rows that are looked for beyond ``k``: members may be nearer than the row that stands for them."""


@dataclass(frozen=True, eq=False)
class Equal:
    """Groups of rows that are equal or nearly so.

    Attributes:
        first: ``Int32[rows]``, of each row the one that stands for it: the lowest of its group.
    """

    first: Links

    @cached_property
    def nodes(self) -> Ints:
        """The rows that stand for themselves and maybe others, in order."""
        return np.flatnonzero(self.first == np.arange(len(self.first)))

    @property
    def is_grouped(self) -> bool:
        """Whether any row is equal to another."""
        return len(self.nodes) < len(self.first)

    def fits(self, rows: int) -> bool:
        """Whether this may be of so many rows: for each stands itself, or a lower one that does so."""
        first = self.first
        if first.shape != (rows,) or first.dtype != np.int32 or not first.min() >= 0:
            return False
        return bool((first <= np.arange(rows)).all() and (first[first] == first).all())

    def members(self, allowed: NDArray[np.bool_] | None = None) -> Members:
        """Members of all groups, among the rows that are allowed."""
        return self._all if allowed is None else Members.of(self.first, np.flatnonzero(allowed))

    @cached_property
    def _all(self) -> Members:
        return Members.of(self.first, np.arange(len(self.first)))


@dataclass(frozen=True, eq=False)
class Members:
    """Rows of groups, group by group.

    Args:
        first: of each row the one that stands for it.
        rows: those that are in a group.
        starts: first position of the group of each row in ``rows``.
        counts: size of the group of each row; 0 for rows that represent no group.
    """

    first: Links
    rows: Ints
    starts: Ints
    counts: Ints

    @classmethod
    def of(cls, first: Links, rows: Ints) -> Members:
        """The members among some rows, which are in order."""
        representatives = first[rows]
        counts = np.bincount(representatives, minlength=len(first))
        return cls(
            first, rows[np.argsort(representatives, kind="stable")], np.cumsum(counts) - counts, counts
        )

    @property
    def reached(self) -> NDArray[np.bool_]:
        """The rows that stand for any."""
        return self.counts > 0

    def is_needed(self, found: Ints) -> bool:
        """Whether any of the rows that were found stands for others than itself."""
        return bool((self.counts[found[found >= 0]] != 1).any()) or len(self.rows) < len(self.first)

    def expand(self, found: Ints, k: int) -> Ints:
        """The members of the groups of ``Int[queries, length]`` rows (-1 is none), as many columns as needed.

        Of a very large group some are left out, but no fewer than ``k`` are given.
        """
        groups = -np.sort(np.where(found < 0, 1, -self.first[found].astype(np.int64)), axis=1)
        groups[:, 1:][groups[:, 1:] == groups[:, :-1]] = -1
        counts = np.where(groups < 0, 0, np.minimum(self.counts[groups], max(k, _MOST_MEMBERS)))
        each = counts.ravel()
        place = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
        rows = self.rows[np.repeat(self.starts[groups.ravel()], each) + place]
        lengths = counts.sum(axis=1)
        given = np.full((len(found), max(k, int(lengths.max()))), -1)
        given[np.arange(given.shape[1]) < lengths[:, None]] = rows
        return given


def find_equal(read: Callable[[slice], NDArray[Any]], rows: int, seed: int, block: int = 8192) -> Links:
    """The lowest row equal to each row, within four thousandths of the distance of most rows.

    Rows are projected onto a few random directions. Equal ones have equal projections; others differ in
    some of them. The rows of a group then stand side by side in an order of cells, within which one
    stands for all that lie near it.

    Args:
        read: some rows, as they are compared.
        rows: number of rows.
        seed: of the directions.
        block: rows read at a time.
    """
    draw = np.random.default_rng(seed)
    projected = _project(read, rows, block, draw)
    spread = _spread(projected, draw)
    cells = np.clip(np.floor(projected / (spread * _CELL or 1)), -_FARTHEST, _FARTHEST).astype(np.int64)
    key = cells @ (draw.integers(1 << 62, size=_DIRECTIONS) | 1)  # whole numbers, which wrap around
    left, first = np.lexsort((projected[:, 0], key)), np.arange(rows)
    for _ in range(_PASSES):
        near, lowest = _gather(projected[left], key[left], left, spread * _TOLERANCE)
        first[left[near]] = lowest[near]
        left = left[~near]
        if not len(left):
            break
    return first.astype(np.int32)


def _project(
    read: Callable[[slice], NDArray[Any]], rows: int, block: int, draw: np.random.Generator
) -> Doubles:
    directions: Doubles | None = None
    projected = np.empty((rows, _DIRECTIONS))
    for span in blocks(rows, block):
        values = read(span).astype(np.float64)
        if directions is None:
            directions = draw.standard_normal((values.shape[1], _DIRECTIONS))
        projected[span] = values @ directions
    return projected


def _spread(projected: Doubles, draw: np.random.Generator) -> float:
    """Typical distance of rows that are not equal, without outliers."""
    pairs = draw.integers(len(projected), size=(2, _PAIRS))
    gaps = np.abs(projected[pairs[0]] - projected[pairs[1]])
    apart = gaps[gaps > 0]
    return float(np.quantile(apart, _MOST_PAIRS)) if len(apart) else 0.0


def _gather(projected: Doubles, key: Ints, rows: Ints, tolerance: float) -> tuple[NDArray[np.bool_], Ints]:
    """The rows near the first of their run, whose steps are small, and the lowest row of those."""
    step = np.abs(np.diff(projected, axis=0)).max(axis=1) if len(rows) > 1 else np.zeros(0)
    starts = np.concatenate([[0], np.flatnonzero((np.diff(key) != 0) | (step > tolerance)) + 1])
    lengths = np.diff(np.append(starts, len(rows)))
    near = np.abs(projected - projected[np.repeat(starts, lengths)]).max(axis=1) <= tolerance
    lowest = np.minimum.reduceat(np.where(near, rows, rows.max()), starts)
    return near, np.repeat(lowest, lengths)
