"""Agreement over pairs of examples, such as all distances, in a form that can be bootstrapped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.errors import DataError
from nestling.measure.tasks.scores import Floats

Pairs = NDArray[np.floating[Any]]

_CONSTANT = 1e-6  # variance of values from 0 to 1 that is rounding alone


class PairScores:
    """Pearson's correlation over all pairs of examples with the pairs of a reference.

    A resample draws examples: a pair counts as often as both of its examples are drawn together, and a
    pair of an example with itself, which has no distance, does not count.

    Args:
        values: ``Float[sizes, metrics, pairs]``, from 0 to 1, ``n (n - 1) / 2`` pairs in squareform order.
        target: ``Float[metrics, pairs]``, the same of the reference.
        metrics: one name for each metric.

    Raises:
        DataError: for shapes that do not belong together.
    """

    def __init__(self, values: Pairs, target: Pairs, metrics: Sequence[str]) -> None:
        self.values, self.target, self.metrics = values, target, tuple(metrics)
        if values.ndim != 3 or values.shape[1:] != target.shape or len(target) != len(self.metrics):
            raise DataError(
                f"values of shape {values.shape} and a reference of {target.shape} do not belong to the "
                f"metrics {', '.join(self.metrics)}"
            )

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """All examples are one group."""
        pairs = self.target.shape[1]
        return ((1 + round((1 + 8 * pairs) ** 0.5)) // 2,)

    def statistic(self, weights: Floats) -> Floats:
        """Correlations, ``Float[resamples, sizes, metrics]``; NaN where the pairs drawn do not vary."""
        sums = _PairSums(weights)
        found = np.empty((len(weights), *self.values.shape[:2]))
        for metric, target in enumerate(self.target):
            expected, its_variance = sums.moments(target)
            for size, each in enumerate(self.values[:, metric]):
                mean, variance = sums.moments(each)
                covariance = sums.mean(each * target) - mean * expected
                varies = (variance > _CONSTANT) & (its_variance > _CONSTANT)
                scale = np.sqrt(np.where(varies, variance * its_variance, 1))
                found[:, size, metric] = np.where(varies, covariance / scale, np.nan)
        return found


class _PairSums:
    """Sums over pairs, each as often as it is drawn, from one matrix product a sum."""

    def __init__(self, weights: Floats) -> None:
        examples = weights.shape[1]
        self.weights = weights.astype(np.float32)
        self.above = np.triu(np.ones((examples, examples), np.bool_), 1)
        self.square = np.zeros((examples, examples), np.float32)
        pairs = (weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)) / 2
        self.pairs = np.where(pairs > 0, pairs, np.nan)

    def mean(self, values: Pairs) -> Floats:
        """Mean of one value per pair, ``Float[resamples]``; NaN where no pair is drawn."""
        self.square[self.above] = values
        totals = np.einsum("ij,ij->i", self.weights @ self.square, self.weights, dtype=np.float64)
        return np.asarray(totals / self.pairs)

    def moments(self, values: Pairs) -> tuple[Floats, Floats]:
        """Mean and variance."""
        mean = self.mean(values)
        return mean, self.mean(values * values) - mean**2
