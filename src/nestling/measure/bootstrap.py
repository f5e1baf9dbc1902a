"""Confidence intervals from resampled examples, paired across sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Real, Whole, checked
from nestling.errors import DataError
from nestling.measure.tasks.scores import Scores
from nestling.process.progress import Progress

Floats = NDArray[np.float64]

_WEIGHTS_AT_A_TIME = 1 << 21


@dataclass(frozen=True, eq=False)
class Estimate:
    """Quality with its interval, each ``Float[sizes, metrics]``; ``kept`` is the share of the full quality.

    ``kept`` and its interval are NaN where the full quality is not above 0.
    """

    value: Floats
    low: Floats
    high: Floats
    kept: Floats
    kept_low: Floats
    kept_high: Floats


def bootstrap(
    scores: Scores, *, full: int = -1, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Quality at every size and its percentile interval over resampled examples.

    Every resample is used at all sizes, so the share of the full quality is that of the same examples.

    Args:
        scores: the scores at every size.
        full: position of the full size among the sizes.
        confidence: above 0 and below 1.
        resamples: at least 1; some hundreds are needed for an interval.
        seed: the same seed draws the same examples.

    Raises:
        ConfigError: for a confidence or a number of resamples out of range.
        DataError: for fewer than two examples, which have no spread.

    Source: Efron and Tibshirani 1993, the percentile interval.
    """
    return Resampled.of(scores, resamples, seed).estimate(full, confidence)


@dataclass(frozen=True, eq=False)
class Resampled:
    """Quality of all examples ``Float[sizes, metrics]``, and of each resample ``Float[resamples, ...]``."""

    values: Floats
    drawn: Floats

    @classmethod
    @checked(resamples=Whole(1), seed=Whole(0))
    def of(cls, scores: Scores, resamples: int = 1000, seed: int = 0) -> Self:
        """Draw the resamples; the same examples and seed give the same draws, so curves are paired.

        Raises:
            ConfigError: for numbers that are none, or out of range.
            DataError: for fewer than two examples, which have no spread.
        """
        if min(scores.groups) < 2:
            raise DataError(
                f"{min(scores.groups)} example gives no interval; give at least 2, or some hundreds to tell "
                "sizes apart"
            )
        values = scores.statistic(np.ones((1, sum(scores.groups))))
        with Progress("resampling", resamples, "resamples") as progress:
            parts = []
            for weights in _weights(scores.groups, resamples, seed):
                parts.append(scores.statistic(weights))
                progress.update(len(weights))
        return cls(values[0], np.concatenate(parts))

    @checked(confidence=Real(above=0, below=1, hint="0.95 is usual"))
    def estimate(self, full: int = -1, confidence: float = 0.95) -> Estimate:
        """Quality and share of the full quality, with their intervals.

        Raises:
            ConfigError: for a confidence out of range.
        """
        low, high = _interval(self.drawn, confidence)
        kept = _kept(self.values[None], full)[0]
        # Resamples whose full quality happens to be above 0 say nothing where that of all examples is not.
        ends = (
            np.where(np.isnan(kept), np.nan, end) for end in _interval(_kept(self.drawn, full), confidence)
        )
        return Estimate(self.values, low, high, kept, *ends)

    def at(self, places: Sequence[int]) -> Resampled:
        """Some of the sizes alone."""
        return Resampled(self.values[list(places)], self.drawn[:, list(places)])

    def minus(self, other: Resampled, confidence: float = 0.95) -> tuple[Floats, Floats, Floats]:
        """The difference to ``other`` on the same examples, and its interval."""
        return self.values - other.values, *_interval(self.drawn - other.drawn, confidence)


def _weights(groups: tuple[int, ...], resamples: int, seed: int) -> Iterator[Floats]:
    """Draws of each example, ``Float[some resamples, examples]``, some resamples at a time."""
    rng = np.random.default_rng(seed)
    step = max(1, _WEIGHTS_AT_A_TIME // sum(groups))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        yield np.concatenate([_draw(rng, count, size) for size in groups], axis=1)


def _draw(rng: np.random.Generator, resamples: int, examples: int) -> Floats:
    drawn = rng.integers(examples, size=(resamples, examples))
    drawn += np.arange(resamples)[:, None] * examples
    counts = np.bincount(drawn.ravel(), minlength=resamples * examples)
    return counts.reshape(resamples, examples).astype(np.float64)


def _kept(values: Floats, full: int) -> Floats:
    whole = values[:, full, None]
    return np.asarray(np.where(whole > 0, values / np.where(whole > 0, whole, 1), np.nan))


def _interval(drawn: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Lower and upper end, NaN where no resample has a value."""
    ends = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if not np.isnan(drawn).any():
        low, high = np.quantile(drawn, ends, axis=0)
        return low, high
    empty = np.isnan(drawn).all(axis=0)
    low, high = np.nanquantile(np.where(empty, 0.0, drawn), ends, axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)
