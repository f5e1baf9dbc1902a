"""Held-out rows to evaluate a map: metrics after a cut, and the influence of each row on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from nestling.cut import RAW, CutRule, cut
from nestling.vectors.matrix import Vectors

FEWEST = 50
"""Held-out rows that a report needs."""

MOST = 800
"""The most held-out rows of a report, which bounds its cost."""

SHARE = 10
"""One in this many rows is held out."""

_K = 10
_UPPER = 0.975  # of the two ends of a 95 % interval
_ROUNDING = 1e-6
_SMALLEST_NORM = 1e-12

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]


class Answers(NamedTuple):
    """The score of each row as a query.

    Args:
        values: ``Float[n]``, the metric of each row that asks.
        without: ``Float[n, n]``, the increase of the value of row i if row j were removed.
    """

    values: Floats
    without: Floats


class _Right(NamedTuple):
    """The rows that are right results, ``Bool[n, n]``; and those that are if one of them is removed."""

    now: Bools
    with_one_less: Bools


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows; each is a query for the others, or for its partner.

    Args:
        x: ``Float[n, features]``.
        pairs: ``Float[n, features]``, row i belongs with row i of ``x``, or None.
        labels: ``Int[n]``, or None.
    """

    x: Vectors
    pairs: Vectors | None = None
    labels: NDArray[np.int64] | None = None

    kept = f"neighbours@{_K}"

    @property
    def metric(self) -> str:
        """The metric: partners found, neighbours of the same label, or neighbours kept."""
        if self.pairs is not None:
            return "mrr"
        return self.kept if self.labels is None else f"precision@{_K}"

    @property
    def freedom(self) -> float:
        """Degrees of freedom of an interval: partners, or neighbourhoods that share no row."""
        return len(self.x) - 1 if self.pairs is not None else len(self.x) / _K

    def right(self, rule: CutRule) -> _Right | None:
        """The right answers, which are those of the vectors in full where nothing else says it."""
        if self.pairs is not None:
            return None
        if self.labels is not None:
            same = self.labels[:, None] == self.labels
            return _Right(same, same)
        near = self._similarities(self.x.shape[1], rule)
        # By score and not by row, so that equal rows are interchangeable.
        best = np.partition(near, -_K - 1, axis=1)[:, -_K - 1 :]
        last, following = best[:, 1:].min(axis=1, keepdims=True), best[:, :1]
        return _Right(near >= last - _ROUNDING, near >= following - _ROUNDING)

    def answers(self, dim: int, rule: CutRule, right: _Right | None) -> Answers:
        """The metric at one size, and the influence of each row on it."""
        near = self._similarities(dim, rule)
        return _partners(near) if right is None else _neighbours(near, right)

    def _similarities(self, dim: int, rule: CutRule) -> Floats:
        """``Float[n, n]``, higher is nearer; a row is not near itself unless rows are pairs."""
        given = (self.x,) if self.pairs is None else (self.x, self.pairs)
        sides = [np.asarray(cut(side, dim, RAW), np.float32) for side in given]
        if rule.after == "l2":
            # A row whose leading entries are all zero is near nothing, which counts against truncation.
            sides = [
                side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), _SMALLEST_NORM)
                for side in sides
            ]
        asked, known = sides[0], sides[-1]
        near: Floats = asked @ known.T
        if rule.after != "l2":
            near -= (known * known).sum(axis=1) / 2
        if self.pairs is None:
            np.fill_diagonal(near, -np.inf)
        return near


def _partners(near: Floats) -> Answers:
    """Reciprocal rank of the partner; it rises where a row above the partner is taken away."""
    above = near > np.diagonal(near)[:, None] + _ROUNDING
    count = above.sum(axis=1)
    values = 1 / (1 + count)
    rise = 1 / np.maximum(count, 1) - values
    return Answers(values, above * rise[:, None].astype(np.float32))


def _neighbours(near: Floats, right: _Right) -> Answers:
    """Share of the nearest rows that is right; the next one moves up where one of them is taken away."""
    best = np.argpartition(near, -_K - 1, axis=1)[:, -_K - 1 :]
    found, following = best[:, 1:], best[:, :1]
    hits = np.take_along_axis(right.now, found, axis=1)
    more = np.take_along_axis(right.with_one_less, found, axis=1).sum(axis=1) - hits.sum(axis=1)
    moved_up = np.where(
        hits,
        np.take_along_axis(right.with_one_less, following, axis=1),
        np.take_along_axis(right.now, following, axis=1),
    )
    without = right.now * more[:, None].astype(np.float32)
    changed = np.take_along_axis(without, found, axis=1) + moved_up - hits
    np.put_along_axis(without, found, changed, axis=1)
    return Answers(hits.mean(axis=1), without / np.float32(_K))


def interval(ours: Answers, theirs: Answers, freedom: float) -> tuple[float, float, float]:
    """Mean difference of two methods on the same rows, with its 95 % interval.

    A query row is also a document of the other rows, so the values are not independent: two near rows find
    each other. The variance is the dyadic cluster-robust one (Aronow et al. 2015, eq. 2): the squared
    influence of a row as query and as document, minus the shared part of each two rows, which it counts
    twice. The influence as a document is the loss of the other rows without it, as in a jackknife. The
    variance is never below that over the queries.

    Args:
        ours: the first method.
        theirs: the second.
        freedom: of Student's t.

    Source: Aronow, Samii and Assenova 2015, Cluster-robust variance estimation for dyadic data.
    """
    values, without = ours.values - theirs.values, ours.without - theirs.without
    count, mean = len(values), float(values.mean())
    added = values - without.sum(axis=0, dtype=np.float64)
    twice = np.vdot(without, without) + np.vdot(without, without.T)
    squares = max(float(np.square(added - added.mean()).sum() - twice), float(np.square(values - mean).sum()))
    reach = float(stdtrit(freedom, _UPPER)) * math.sqrt(squares / (count * (count - 1)))
    return mean, mean - reach, mean + reach
