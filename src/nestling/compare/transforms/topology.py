"""Geo-topological transforms: distances between two thresholds are kept, others are clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.constraints import Real, check
from nestling.compare.rdms.rdms import RDMs, as_rdms
from nestling.compare.transforms.thresholds import check_thresholds
from nestling.compare.transforms.transformer import MatrixTransformer, Vectors
from nestling.errors import DataError

Floats = NDArray[np.float64]

# Positions in the order of the distances are products such as 0.15 * 1890; what is nearer than this to a
# whole number, as share of all positions, is one but for rounding.
_SNAP = 1e-12


@dataclass(frozen=True, eq=False)
class OrderedDistances:
    """Distances sorted once, from which every quantile of every matrix is read.

    Args:
        values: ``Float[m, pairs]``, distances or their ranks; NaN where a pair is missing.
        rising: the same, sorted, NaN last.
        counts: ``Int[m]``, pairs that are not missing.
    """

    values: Vectors
    rising: Vectors
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, vectors: Vectors, *, rank: bool) -> Self:
        """Sort ``Float[m, pairs]``; with ``rank`` distances are replaced by their ranks, ties averaged.

        Besides the result it takes memory for six copies of ONE matrix.

        Raises:
            DataError: for a matrix whose distances are all equal or missing, or infinite ones without ranks.
        """
        if not rank and np.isinf(vectors).any():
            raise DataError("matrices hold infinity, which has a rank but no finite value; use rank=True")
        rising = np.empty_like(vectors)
        values = np.empty_like(vectors) if rank else vectors
        for vector, ordered, out in zip(vectors, rising, values, strict=True):
            order = np.argsort(vector)
            ordered[:] = vector[order]
            if rank:
                ordered[:] = _ranks_of_sorted(ordered)
                out[order] = ordered
        counts = vectors.shape[1] - np.count_nonzero(np.isnan(rising), axis=1)
        _check_varies(vectors, rising, counts)
        return cls(values, rising, counts)

    def quantiles(self, shares: Floats) -> Floats:
        """Linearly interpolated quantiles ``Float[t, m]`` at ``Float[t]``, of each matrix by itself."""
        last = self.counts - 1
        place = shares[:, None] * last
        whole = np.rint(place)
        place = np.where(np.abs(place - whole) <= _SNAP * self.counts, whole, place)
        below = place.astype(np.int64)
        rows = np.arange(len(last))
        low = self.rising[rows, below].astype(np.float64)
        high = self.rising[rows, np.minimum(below + 1, last)].astype(np.float64)
        return low + (place - below) * (high - low)

    def transform(self, thresholds: Floats) -> Vectors:
        """The geo-topological matrices ``Float[t, m, pairs]`` for ``Float[t, 2]``."""
        lows, highs = self.quantiles(thresholds[:, 0]), self.quantiles(thresholds[:, 1])
        found = np.empty((len(thresholds), *self.values.shape), self.values.dtype)
        for low, high, out in zip(lows, highs, found, strict=True):
            _keep_between(self.values, low, high, out)
        return found


def geo_topological(vectors: Any, thresholds: ArrayLike, *, rank: bool = True) -> Vectors:
    """Every matrix at every pair of thresholds, sorted once.

    A distance becomes 0 up to the ``lower`` quantile of its own matrix, 1 above the ``upper`` one, and grows
    linearly between. Where both quantiles are equal the matrix is binary: 1 above the threshold, and 0 up
    to it; a distance on the threshold is 0, near, which is the limit of the formula. NaN (a missing pair)
    stays NaN and counts in no quantile.

    Args:
        vectors: ``Float[m, pairs]`` or RDMs; never changed.
        thresholds: pairs ``(lower, upper)``, shares of the pairs of stimuli.
        rank: replace distances by their ranks first, as the paper does. (0, 1) is then the rank matrix.

    Returns:
        ``Float[t, m, pairs]`` in 0 to 1, of the dtype of the distances, float32 or float64.

    Raises:
        ConfigError: for thresholds that are no such pairs.
        DataError: for matrices that cannot be used: fewer than 3 stimuli, all distances equal or missing, or
            infinity, unless ranks are taken.

    Source: Lin and Kriegeskorte 2023, the geo-topological transform.

    >>> geo_topological([[1.0, 2.0, 3.0, 4.0, 5.0, 7.0]], [(0, 1), (0.4, 0.4)])
    array([[[0. , 0.2, 0.4, 0.6, 0.8, 1. ]],
    <BLANKLINE>
           [[0. , 0. , 0. , 1. , 1. , 1. ]]])
    """
    pairs = check_thresholds(thresholds)
    return OrderedDistances.of(as_rdms(vectors).vectors, rank=rank).transform(pairs)


class GeoTopological(MatrixTransformer):
    """The geo-topological transform at one pair of thresholds; see :func:`geo_topological`.

    ``(0, 1)`` is the rank matrix; ``lower = upper`` the adjacency matrix of the thresholded graph; a low pair
    looks at who is near whom, a high one at who is far from whom.

    Args:
        lower: share of the pairs of stimuli that become 0.
        upper: share of the pairs beyond which all become 1.
        rank: replace distances by their ranks first.

    Raises:
        ConfigError: in use, for thresholds out of 0 to 1 or the wrong way round.
        DataError: in use, for matrices that cannot be used.

    Source: Lin and Kriegeskorte 2023.

    >>> GeoTopological(0.2, 0.8).fit_transform([[1.0, 2.0, 3.0, 4.0, 5.0, 7.0]]).round(2)
    array([[0.  , 0.  , 0.33, 0.67, 1.  , 1.  ]])
    """

    _kind = "geo-topological"

    def __init__(self, lower: float = 0.2, upper: float = 0.8, *, rank: bool = True) -> None:
        self.lower = lower
        self.upper = upper
        self.rank = rank

    def _check(self) -> None:
        check_thresholds([(self.lower, self.upper)])

    def _map(self, rdms: RDMs) -> Vectors:
        found: Vectors = geo_topological(rdms, [(self.lower, self.upper)], rank=self.rank)[0]
        return found


class SmoothTopological(MatrixTransformer):
    """The smooth variant: a logistic step ``1 / (1 + exp(-alpha (d - beta)))`` of distances scaled to 0 to 1.

    Args:
        alpha: steepness, above 0.
        beta: position of the step, 0 to 1.
        rank: replace distances by their ranks first.

    Raises:
        ConfigError: in use, for another steepness or place.
        DataError: in use, for matrices that cannot be used.

    Source: the code beside Lin and Kriegeskorte 2023; the paper does not use it.

    >>> SmoothTopological().fit_transform([[1.0, 2.0, 9.0]]).round(3)
    array([[0.007, 0.5  , 0.993]])
    """

    _kind = "smooth geo-topological"

    def __init__(self, alpha: float = 10.0, beta: float = 0.5, *, rank: bool = True) -> None:
        self.alpha = alpha
        self.beta = beta
        self.rank = rank

    def _check(self) -> None:
        check("alpha", self.alpha, Real(above=0, hint="10 is usual"))
        check("beta", self.beta, Real(least=0, most=1, hint="distances are scaled to that"))

    def _map(self, rdms: RDMs) -> Vectors:
        scaled = OrderedDistances.of(rdms.vectors, rank=self.rank).transform(np.array([[0.0, 1.0]]))[0]
        # As a tanh, because exp overflows for steep steps.
        return np.asarray(0.5 * (1 + np.tanh(0.5 * self.alpha * (scaled - self.beta))), scaled.dtype)


def _keep_between(values: Vectors, low: Floats, high: Floats, out: Vectors) -> None:
    """Write ``clip((values - low) / (high - low), 0, 1)`` of every matrix into ``out``."""
    width = (high - low).astype(out.dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        np.subtract(values, low.astype(out.dtype)[:, None], out=out)
        np.divide(out, width[:, None], out=out)  # exactly 1 at ``high``, as a product would not be
    np.clip(out, 0, 1, out=out)
    binary = np.flatnonzero(width <= 0)
    if len(binary):
        chosen = values[binary]
        out[binary] = np.where(np.isnan(chosen), np.nan, chosen > high[binary, None])


def _ranks_of_sorted(rising: Vectors) -> Floats:
    """Ranks 1, 2, ... of one sorted matrix ``Float[pairs]``, equal ones averaged; NaN stays NaN."""
    first = np.append(True, rising[1:] != rising[:-1])
    starts = np.flatnonzero(first)
    lengths = np.diff(starts, append=len(rising))
    ranks: Floats = np.repeat(starts + 0.5 * (lengths + 1), lengths)
    ranks[np.isnan(rising)] = np.nan
    return ranks


def _check_varies(vectors: Vectors, rising: Vectors, counts: NDArray[np.int64]) -> None:
    few = np.flatnonzero(counts < 2)
    if len(few):
        raise DataError(f"matrix {few[0]} has {counts[few[0]]} distance that is not missing; give at least 2")
    equal = np.flatnonzero(rising[:, 0] == rising[np.arange(len(rising)), counts - 1])
    if len(equal):
        raise DataError(
            f"all distances of matrix {equal[0]} are {np.nanmin(vectors[equal[0]]):g}, so they have no "
            "order; leave it out"
        )
