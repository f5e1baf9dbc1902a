"""Estimators: each dissimilarity is a scaled product of differences, summed by :mod:`.products`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Real, checked
from nestling.compare.rdms.estimation.design import channel_blocks
from nestling.compare.rdms.estimation.noise import Floats, whitened
from nestling.compare.rdms.estimation.products import Sides
from nestling.cut import name_rows
from nestling.errors import DataError


@dataclass(frozen=True)
class Form:
    """``scale * (left_i - left_j) . (right_i - right_j)``, or the root of it.

    Args:
        chunks: the sides, for some channels at a time.
        scale: a factor.
        root: whether the square root is taken.
    """

    chunks: Iterable[Sides]
    scale: float = 1.0
    root: bool = False


@dataclass(frozen=True)
@checked(rate=Real(above=0), weight=Real(above=0))
class RatePrior:
    """A gamma prior of Poisson rates: as if ``weight`` observations of ``rate`` came on top.

    Raises:
        ConfigError: unless both are positive, without which a channel that never fired has no logarithm.
    """

    rate: float = 1.0
    weight: float = 0.1

    def __call__(self, counts: Floats) -> Floats:
        """Expected rates, given mean counts."""
        return (counts + self.rate * self.weight) / (1 + self.weight)


def euclidean(x: NDArray[Any], *, root: bool) -> Form:
    """Distance of patterns, or its square."""
    return Form(((block, block) for _, block in channel_blocks(x)), root=root)


def mahalanobis(x: NDArray[Any], factor: Floats) -> Form:
    """Squared distance in units of the noise, a channel."""
    return Form(euclidean(whitened(x, factor), root=False).chunks, 1 / x.shape[1])


def correlation(x: NDArray[Any]) -> Form:
    """One minus Pearson's correlation: half the squared distance of standardised patterns."""
    return Form(_standardised(x), 0.5)


def cosine(x: NDArray[Any]) -> Form:
    """One minus the cosine: half the squared distance of patterns of length 1."""
    return Form(_unit(x), 0.5)


def poisson(x: NDArray[Any], prior: RatePrior) -> Form:
    """Symmetrised Kullback-Leibler divergence of Poisson rates, a channel."""
    return Form(_rates_and_logarithms(x, prior), 0.5 / x.shape[1])


def both_ways(one: Floats, other: Floats) -> Sides:
    """Sides whose product is ``one_i . other_j + other_i . one_j``, the same from j to i."""
    return np.concatenate([one, other], axis=1), np.concatenate([other, one], axis=1)


def check_counts(x: NDArray[Any]) -> None:
    """Refuse negative counts.

    Raises:
        DataError: for rows that hold some (named).
    """
    negative = np.zeros(len(x), np.bool_)
    for _, block in channel_blocks(x):
        negative |= (block < 0).any(axis=1)
    if negative.any():
        raise DataError(
            f"Poisson rates are counts, but "
            f"{name_rows(np.flatnonzero(negative), 'of the patterns hold')} "
            "negative numbers; give counts, or use another metric"
        )


def _rates_and_logarithms(x: NDArray[Any], prior: RatePrior) -> Iterator[Sides]:
    check_counts(x)
    for _, block in channel_blocks(x):
        rates = prior(block)
        yield both_ways(rates, np.log(rates))


def _standardised(x: NDArray[Any]) -> Iterator[Sides]:
    means, varies = np.zeros((len(x), 1)), np.zeros(len(x), np.bool_)
    first = np.array(x[:, :1], np.float64)
    for _, block in channel_blocks(x):
        means += block.sum(axis=1, keepdims=True) / x.shape[1]
        varies |= (block != first).any(axis=1)
    if not varies.all():
        raise DataError(
            f"{name_rows(np.flatnonzero(~varies), 'of the patterns are')} the same in all channels, so that "
            "their correlation is undefined; leave them out, or use another metric"
        )
    squares = np.zeros((len(x), 1))
    for _, block in channel_blocks(x):
        block -= means
        squares += np.einsum("ij,ij->i", block, block)[:, None]
    for _, block in channel_blocks(x):
        block -= means
        block /= np.sqrt(squares)
        yield block, block


def _unit(x: NDArray[Any]) -> Iterator[Sides]:
    squares = np.zeros((len(x), 1))
    for _, block in channel_blocks(x):
        squares += np.einsum("ij,ij->i", block, block)[:, None]
    if not squares.all():
        raise DataError(
            f"{name_rows(np.flatnonzero(squares == 0), 'of the patterns are')} all zero, without a "
            "direction; leave them out, or use another metric"
        )
    for _, block in channel_blocks(x):
        block /= np.sqrt(squares)
        yield block, block
