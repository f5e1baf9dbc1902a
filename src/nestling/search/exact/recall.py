"""Recall@k with ties: a hit no farther than the exact k-th neighbour counts as found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.cut import CutRule
from nestling.search.exact.neighbours import Metric, nearest
from nestling.search.exact.scores import Comparison, Doubles, Ints, read_prefixes
from nestling.vectors.prefix import unrounded
from nestling.vectors.stored import StoredVectors

Names: TypeAlias = NDArray[Any]

# Sums of single precision are off by about the root of the number of their terms, in units of the last
# digit; four times that is never seen.
_UNIT, _SPREADS, _ROUNDINGS = 2.0**-24, 4, 8


def rounding(dim: int) -> float:
    """Relative error bound of a sum of ``dim`` products in single precision."""
    return _UNIT * float(_ROUNDINGS + _SPREADS * np.sqrt(dim))


def share_as_near(distances: ArrayLike, kth: ArrayLike, allowance: ArrayLike, k: int) -> Doubles:
    """The share of the ``k`` nearest that was found: of rows no farther than the k-th of them.

    Any of several rows at the same distance counts, also where rounding alone separates them.

    Args:
        distances: ``Float[queries, found]`` of different rows that were found, or similarities with their
            sign changed; nan where none was.
        kth: ``Float[queries]``, that of the k-th nearest.
        allowance: ``Float[queries]`` or a number: largest rounding error.
        k: number of neighbours to be found.

    Returns:
        ``Float64[queries]``, at most 1.

    >>> share_as_near([[0.0, 1.0, 3.0]], [1.0], 0, k=3).round(2)
    array([0.67])
    """
    limit = np.asarray(kth, np.float64) + np.asarray(allowance, np.float64)
    near = (np.asarray(distances, np.float64) <= limit[:, None]).sum(axis=1)
    return np.asarray(np.minimum(near, k) / k, np.float64)


@dataclass(frozen=True, eq=False)
class Questions:
    """Queries, and how near the rows are that each should find.

    Args:
        queries: ``Float[queries, dim]``.
        rows: ``Float[rows, dim]``, among which they look.
        k: neighbours of each.
        rule: steps around a cut.
        metric: ``"dot"`` or ``"euclidean"``.
        expected: ``Int[queries, k]``, the exact nearest.
        own: the row that each query is, if it is one, which it does not look for.
        names: ids of the rows in the results of a search; their numbers by default.
    """

    queries: NDArray[Any]
    rows: NDArray[Any]
    k: int
    rule: CutRule
    metric: Metric
    expected: Ints
    own: Ints | None = None
    names: Names | None = None

    @classmethod
    def ask(
        cls,
        queries: NDArray[Any],
        rows: NDArray[Any] | StoredVectors,
        k: int,
        *,
        rule: CutRule = CutRule(),
        metric: Metric = "dot",
        own: Ints | None = None,
        workers: int | None = None,
    ) -> Self:
        """Queries with their ground truth, which an exact search finds.

        Raises:
            DataError: for vectors that cannot be used, or more neighbours than there are rows.
        """
        found = nearest(queries, rows, k + (own is not None), rule=rule, metric=metric, workers=workers)
        expected = found.indices if own is None else without(found.indices, own, k)
        values = rows.values if isinstance(rows, StoredVectors) else rows
        return cls(queries, values, k, rule, metric, expected, own)

    @property
    def wanted(self) -> int:
        """Neighbours to ask for: one more where each query finds itself."""
        return self.k + (self.own is not None)

    def named(self, names: Names) -> Questions:
        """The same for a search that finds rows by these names in place of their numbers."""
        return replace(self, names=names)

    def recalls(self, found: Names) -> Doubles:
        """The share of the ``k`` nearest that each query found, or rows as near as the k-th of them.

        Args:
            found: ``[queries, wanted]``, best first; what is no row is none.
        """
        rows = found if self.names is None else _numbers(found, self.names)
        others = rows if self.own is None else without(rows, self.own, self.k)
        kth = self._distances(self.expected)[:, -1]
        return share_as_near(self._distances(_once(others)), kth, self._allowance(kth), self.k)

    @property
    def _dim(self) -> int:
        return int(self.queries.shape[1])

    def _distances(self, rows: Ints) -> Doubles:
        """In double precision, rising; similarities with their sign changed."""
        comparison = Comparison(self.rule.after == "l2", self.metric == "euclidean")
        asked = unrounded(self.queries, self._dim, self.rule)
        source = read_prefixes(self.rows, self._dim, self.rule)
        scores = comparison.best_of(asked, source, rows, rows.shape[1])[1]
        return scores if comparison.is_distance else -scores

    def _allowance(self, kth: Doubles) -> Doubles:
        """Rounding error of single precision in the distance or similarity of the k-th."""
        share = rounding(self._dim)
        if self.metric == "euclidean":
            of_entries = 4 * _UNIT if self.rule.after == "l2" else 0
            return np.asarray(share * kth + of_entries)
        if self.rule.after == "l2":
            return np.full(len(kth), share)
        asked = unrounded(self.queries, self._dim, self.rule)
        kept = read_prefixes(self.rows, self._dim, self.rule)[self.expected[:, -1]]
        lengths = [np.linalg.norm(x.astype(np.float64), axis=1) for x in (asked, kept)]
        return np.asarray(share * lengths[0] * lengths[1])


def without(found: Names, own: Names, k: int) -> Names:
    """The first ``k`` of each row that are not its own; rows are ``k + 1`` long."""
    others = found != own[:, None]
    kept = others & (others.cumsum(axis=1) <= k)
    chosen: Names = found[kept].reshape(len(found), k)
    return chosen


def _numbers(found: Names, names: Names) -> Ints:
    """Row numbers of names, -1 of what is none."""
    order = np.argsort(names, kind="stable")
    places = np.minimum(np.searchsorted(names, found, sorter=order), len(names) - 1)
    rows = order[places]
    return np.where(names[rows] == found, rows, -1)


def _once(rows: Ints) -> Ints:
    """Each row of a query once, then -1."""
    falling = -np.sort(-rows, axis=1)
    falling[:, 1:][falling[:, 1:] == falling[:, :-1]] = -1
    return -np.sort(-falling, axis=1)
