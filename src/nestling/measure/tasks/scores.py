"""Scores of a task at every size, in a form that can be bootstrapped: quality as a function of weights.

A bootstrap resample is a weight for each example, the number of times it was drawn. The same weights
go to every size, so that differences and ratios between sizes keep what their examples share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.errors import DataError
from nestling.measure.tasks.metrics import (
    check_scores,
    weighted_correlation,
    weighted_ranks,
    weighted_v_measure,
)

Floats = NDArray[np.float64]


class Scores(Protocol):
    """Quality at every size as a function of how often each example counts.

    Attributes:
        metrics: names of the metrics, the main one first.
        groups: numbers of examples; a resample draws from each group by itself.
    """

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, the main one first."""
        ...

    @property
    def groups(self) -> tuple[int, ...]:
        """Numbers of examples; a resample draws from each group by itself."""
        ...

    def statistic(self, weights: Floats) -> Floats:
        """``Float[resamples, sizes, metrics]`` of ``Float[resamples, examples]``."""
        ...


class MeanScores:
    """Means over examples.

    Args:
        values: ``Float[sizes, examples, metrics]``; NaN where an example does not count in a metric.
        metrics: one name for each metric.

    Raises:
        DataError: for another shape.
    """

    def __init__(self, values: ArrayLike, metrics: Sequence[str]) -> None:
        self.values, self.metrics = np.asarray(values, np.float64), tuple(metrics)
        if self.values.ndim != 3 or self.values.shape[2] != len(self.metrics):
            raise DataError(
                f"per-example values must be of shape [sizes, examples, {len(self.metrics)}], one column a "
                f"metric, not {self.values.shape}"
            )

    @property
    def groups(self) -> tuple[int, ...]:
        """All examples are one group."""
        return (self.values.shape[1],)

    def statistic(self, weights: Floats) -> Floats:
        """Weighted means, ``Float[resamples, sizes, metrics]``; NaN where no example counts."""
        sizes, examples, metrics = self.values.shape
        table = self.values.swapaxes(0, 1).reshape(examples, -1)
        counts = ~np.isnan(table)
        totals = weights @ np.where(counts, table, 0.0)
        if counts.all():
            means = totals / weights.sum(axis=1, keepdims=True)
        else:
            counted = weights @ counts
            means = np.where(counted > 0, totals / np.where(counted > 0, counted, 1), np.nan)
        return np.asarray(means.reshape(-1, sizes, metrics))


class SpearmanScores:
    """Rank correlation of similarities with the scores that people gave.

    Args:
        similarities: ``Float[sizes, examples]``.
        gold: ``Float[examples]``.
    """

    metrics = ("spearman",)

    def __init__(self, similarities: NDArray[np.floating], gold: ArrayLike) -> None:
        self.similarities, self.gold = similarities, check_scores(gold)
        if similarities.shape[1:] != self.gold.shape:
            raise DataError(f"{similarities.shape[1]} similarities were given for {len(self.gold)} scores")

    @property
    def groups(self) -> tuple[int, ...]:
        """All pairs are one group."""
        return (len(self.gold),)

    def statistic(self, weights: Floats) -> Floats:
        """Correlations, ``Float[resamples, sizes, 1]``; NaN where a resample does not vary."""
        gold = weighted_ranks(self.gold, weights)
        found = [
            weighted_correlation(weighted_ranks(each, weights), gold, weights) for each in self.similarities
        ]
        return np.stack(found, axis=1)[:, :, None]


class VMeasureScores:
    """V-measure of one clustering per size.

    Args:
        clusters: ``Int[sizes, examples]``.
        labels: ``Int[examples]``, the true classes.
    """

    metrics = ("v_measure",)

    def __init__(self, clusters: NDArray[np.integer], labels: NDArray[np.generic]) -> None:
        self.clusters, self.labels = clusters, labels

    @property
    def groups(self) -> tuple[int, ...]:
        """All examples are one group."""
        return (len(self.labels),)

    def statistic(self, weights: Floats) -> Floats:
        """V-measures, ``Float[resamples, sizes, 1]``; the clusters stay as they are."""
        found = [weighted_v_measure(self.labels, each, weights) for each in self.clusters]
        return np.stack(found, axis=1)[:, :, None]


class RetentionScores:
    """Retention (quality on a shifted set over quality on a clean one), and both qualities.

    Args:
        clean: scores on the clean set.
        shifted: scores on the shifted set, of the same metrics.
    """

    def __init__(self, clean: Scores, shifted: Scores) -> None:
        if clean.metrics != shifted.metrics:
            raise DataError(
                f"the clean set is measured by {', '.join(clean.metrics)} and the shifted one by "
                f"{', '.join(shifted.metrics)}; retention needs the same metrics"
            )
        self.clean, self.shifted = clean, shifted

    @property
    def metrics(self) -> tuple[str, ...]:
        """Retention first, then both qualities."""
        return self.names(self.clean.metrics)

    @staticmethod
    def names(metrics: Sequence[str]) -> tuple[str, ...]:
        """The names of the metrics, for these metrics of the sets."""
        return tuple(f"{metric} {what}" for what in ("retention", "shifted", "clean") for metric in metrics)

    @property
    def groups(self) -> tuple[int, ...]:
        """The groups of both sets."""
        return self.clean.groups + self.shifted.groups

    def statistic(self, weights: Floats) -> Floats:
        """``Float[resamples, sizes, metrics]``; retention is NaN where the clean quality is 0."""
        border = sum(self.clean.groups)
        clean = self.clean.statistic(weights[:, slice(border)])
        shifted = self.shifted.statistic(weights[:, border:])
        retention = np.where(clean == 0, np.nan, shifted / np.where(clean == 0, 1, clean))
        return np.concatenate([retention, shifted, clean], axis=2)
