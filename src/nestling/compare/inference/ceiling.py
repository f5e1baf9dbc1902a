"""Noise ceilings: the best score a model could reach, given the variability between subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.compare.rdms.rdms import as_rdms
from nestling.compare.rdms.subjects import Subjects
from nestling.compare.similarity.comparators import Comparator, Method, comparator, usable
from nestling.errors import ConfigError, DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NoiseCeiling:
    """The true model's score lies between both bounds.

    Args:
        lower_each: ``Float[subjects]``: each subject with the pooled matrix of the others.
        upper_each: ``Float[subjects]``: each subject with the pooled matrix of all, itself among them.
    """

    lower_each: Floats
    upper_each: Floats

    @property
    def lower(self) -> float:
        """The mean score of a subject as the model of the others."""
        return float(self.lower_each.mean())

    @property
    def upper(self) -> float:
        """A score that no model exceeds; approximate for rank methods, whose pooled matrix is not best."""
        return float(self.upper_each.mean())


def noise_ceiling(
    rdms: Any,
    method: Method = "cosine",
    *,
    subject: str | Sequence[Any] | None = "subject",
    sigma: ArrayLike | None = None,
) -> NoiseCeiling:
    """Bounds of the mean similarity that any model can reach with these subjects.

    Matrices are scaled as the method sees them before they are pooled: to length 1, standardised, ranked, or
    to whitened length 1. Subjects count alike, however many matrices they have. Pairs that any matrix lacks
    are left out.

    Args:
        rdms: RDMs, or ``Float[m, n(n-1)/2]``.
        method: of :func:`~nestling.compare.similarity.comparators.compare`.
        subject: the label that names a matrix's subject, or one value per matrix; None: all differ.
        sigma: for the whitened methods.

    Raises:
        ConfigError: for an unknown method, or one for which no pooled matrix is known.
        DataError: for matrices that cannot be used, or fewer than 2 subjects.

    Source: Nili et al. 2014.
    """
    given = as_rdms(rdms)
    subjects = Subjects.read(given, subject)
    chosen = poolable(method, given.n, sigma)
    if len(subjects) < 2:
        raise DataError("a noise ceiling needs 2 subjects, but all matrices are of one subject")
    vectors = complete(usable(given.vectors, chosen), chosen)
    return NoiseCeiling(*Pools(chosen, vectors, subjects.average).ceilings(np.ones(len(subjects))))


def poolable(method: Method, n: int, sigma: ArrayLike | None = None) -> Comparator:
    """The comparator of a method by which matrices can be pooled.

    Raises:
        ConfigError: for one for which that is not known.
    """
    chosen = comparator(method, n, sigma)
    if chosen.pool is None:
        raise ConfigError(
            f"the matrix that is most like several by {method!r} is not known, so there is no noise ceiling; "
            "choose another method, such as 'cosine_whitened'"
        )
    return chosen


def complete(vectors: Floats, chosen: Comparator) -> Floats:
    """Vectors of the pairs that no matrix lacks; for methods that need whole ones the others become NaN.

    Raises:
        DataError: if fewer than 3 pairs are left.
    """
    present = ~np.isnan(vectors).any(axis=0)
    if present.sum() < 3:
        raise DataError(
            f"{present.sum()} pairs of stimuli are in all matrices; choose matrices with 3 pairs in common"
        )
    if present.all():
        return vectors
    return np.where(present, vectors, np.nan) if chosen.whole else vectors[:, present]


class Pools:
    """Matrices of subjects for pooling over many subsets; per-matrix work is done once.

    Args:
        chosen: the comparator, which also pools.
        vectors: ``Float[m, pairs]`` as :func:`complete` gives them.
        average: ``Float[subjects, m]`` of :class:`~nestling.compare.rdms.subjects.Subjects`.
    """

    def __init__(self, chosen: Comparator, vectors: Floats, average: Floats) -> None:
        assert chosen.pool is not None
        self.chosen, self.average = chosen, average
        self.prepared, self.means = chosen.prepare(vectors), average @ chosen.pool(vectors)
        self.missing = np.isnan(vectors).any(axis=0)

    def values(self, models: Floats) -> Floats:
        """Mean similarity of each model with the matrices of each subject, ``Float[models, subjects]``."""
        return np.asarray(self.chosen.join(self.chosen.prepare(models), self.prepared) @ self.average.T)

    def ceilings(self, counts: Floats) -> tuple[Floats, Floats]:
        """Scores of each subject with the pool of the others, and with that of all, ``Float[subjects]`` each.

        Args:
            counts: ``Float[subjects]``: weight of each in a pool; NaN where no others have any.
        """
        others = counts * (1 - np.eye(len(counts)))
        pooled = np.concatenate([others, counts[None]]) @ self.means
        if self.chosen.whole:
            pooled[:, self.missing] = np.nan
        if self.chosen.by_order:  # sums of ranks: equal ones must not differ by rounding
            pooled = np.round(pooled, 6)
        found = self.values(pooled)
        return np.where(others.any(axis=1), np.diagonal(found), np.nan), found[-1]
