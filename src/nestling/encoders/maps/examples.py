"""Training examples of an adapter: vectors, with pairs, labels or groups if given."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.arrays import as_array
from nestling.cut import name_rows, zero_rows
from nestling.encoders.maps.held_out import FEWEST, MOST, SHARE, HeldOut
from nestling.errors import DataError, require
from nestling.vectors.matrix import Vectors, blocks_of

Ints = NDArray[np.int64]

_FEWEST_ROWS = 4
_HASH_SEED = 0x6E657374


class Division(NamedTuple):
    """Row numbers by use: the best weights are chosen by some rows, so a report needs others."""

    training: Ints
    checking: Ints
    reporting: Ints


@dataclass(frozen=True)
class Examples:
    """Training examples of an adapter.

    Args:
        x: ``Float[n, features]``.
        pairs: ``Float[n, features]``, or None.
        ids: with pairs, ``Int[n]``: rows that share a vector on either side are no negatives.
        labels: ``Int[n]``, or None.
        groups: ``Int[n]``, or None.
    """

    x: Vectors
    pairs: Vectors | None
    ids: Ints | None
    labels: Ints | None
    groups: Ints | None

    @property
    def kind(self) -> Literal["vectors", "pairs", "labels"]:
        """The kind of supervision."""
        if self.pairs is not None:
            return "pairs"
        return "vectors" if self.labels is None else "labels"

    @classmethod
    def read(cls, x: Vectors, pairs: Vectors | None, y: Any, groups: Any) -> Self:
        """Check that all belongs together.

        Raises:
            DataError: for too few rows, another number of pairs, labels or groups, or labels that say
                nothing.
        """
        if len(x) < _FEWEST_ROWS:
            raise DataError(
                f"an adapter needs at least {_FEWEST_ROWS} rows, to train on some and check on others; "
                f"n_samples={len(x)}"
            )
        for side, what in ((x, "X"), (pairs, "pairs")):
            if side is not None and len(zero := zero_rows(side)):
                warnings.warn(
                    f"{name_rows(zero, f'of {what} are')} all zero and teach nothing, having no direction; "
                    "remove them",
                    stacklevel=3,
                )
        if pairs is not None and len(pairs) != len(x):
            raise DataError(f"{len(pairs)} pairs do not belong to {len(x)} rows; row i goes with row i")
        labels = None if y is None else _numbers(y, "labels (y)", len(x))
        if labels is not None and len(np.unique(labels)) in (1, len(x)):
            raise DataError("labels must be of at least two classes, and some rows must share one")
        ids = None if pairs is None else _shared_ids(_fingerprints(x), _fingerprints(pairs))
        return cls(x, pairs, ids, labels, None if groups is None else _numbers(groups, "groups", len(x)))

    def at(self, rows: Ints) -> HeldOut:
        """Some rows, in memory, to measure on."""
        pairs = None if self.pairs is None else np.asarray(self.pairs[rows])
        return HeldOut(np.asarray(self.x[rows]), pairs, None if self.labels is None else self.labels[rows])

    def divide(self, generator: np.random.Generator, most: int) -> Division:
        """A tenth of the rows to check on, at most ``most``; where it fills a report, another one for that.

        Raises:
            DataError: for groups that cannot be divided.
        """
        every = np.arange(len(self.x))
        training, checking = self._split(generator, every, most)
        if len(every) // SHARE < FEWEST:
            return Division(training, checking, every[:0])
        try:
            rest, reporting = self._split(generator, training, MOST)
        except DataError:  # too few groups for a third part
            return Division(training, checking, every[:0])
        return Division(rest, checking, reporting)

    def _split(self, generator: np.random.Generator, rows: Ints, most: int) -> tuple[Ints, Ints]:
        """Most of the rows, and a tenth of all: at least 2 and at most ``most``."""
        wanted = min(max(2, len(self.x) // SHARE), most)
        if self.groups is None:
            order = generator.permutation(rows)
            return np.sort(order[wanted:]), np.sort(order[:wanted])
        groups = self.groups[rows]
        names, counts = np.unique(groups, return_counts=True)
        order = generator.permutation(len(names))
        picked = order[: np.searchsorted(counts[order].cumsum(), wanted) + 1]
        held_out = np.isin(groups, names[picked])
        if len(rows) - held_out.sum() < 2 or held_out.sum() < 2:
            raise DataError(
                f"{len(order)} groups cannot be divided into some to train on and some to check on; give "
                "more and smaller groups"
            )
        return rows[~held_out], generator.permutation(rows[held_out])[:most]


def _numbers(values: Any, what: str, count: int) -> Ints:
    """Integers or strings as 0, 1, ... in their order."""
    array = as_array(values, what)
    if array.dtype.kind == "O":
        array = array.astype(str)
    elif array.dtype.kind == "f" and np.array_equal(array, np.round(array)):
        array = array.astype(np.int64)
    if array.shape != (count,) or array.dtype.kind not in "iubU":
        raise DataError(
            f"{what} must be one integer or string for each of the {count} rows, not {array.dtype} of shape "
            f"{array.shape}"
        )
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def _shared_ids(x: NDArray[np.uint64], y: NDArray[np.uint64]) -> Ints:
    """Equal numbers for pairs that are linked by a shared vector on either side."""
    sparse = require("scipy.sparse", "sklearn")
    left, right = (np.unique(side, return_inverse=True)[1] for side in (x, y))
    nodes = int(left.max()) + int(right.max()) + 2
    edges = sparse.coo_array((np.ones(len(x)), (left, right + int(left.max()) + 1)), shape=(nodes, nodes))
    _, components = require("scipy.sparse.csgraph", "sklearn").connected_components(edges, directed=False)
    found: Ints = components[left].astype(np.int64)
    return found


def _fingerprints(x: Vectors) -> NDArray[np.uint64]:
    """A hash of each row, equal for equal rows."""
    factors = np.random.default_rng(_HASH_SEED).integers(1 << 63, size=x.shape[1], dtype=np.uint64) * 2 + 1
    found = np.empty(len(x), np.uint64)
    for rows in blocks_of(x):
        bits = np.ascontiguousarray(x[rows]).view(f"u{x.dtype.itemsize}")
        found[rows] = (bits.astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64)
    return found
