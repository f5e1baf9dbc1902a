"""Adaptive dependence: distance correlation, maximised over distance thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import OneOf, Whole, check, checked
from nestling.compare.rdms.rdms import RDMs, aligned
from nestling.compare.transforms.topology import OrderedDistances
from nestling.errors import DataError
from nestling.process.blocks import blocks
from nestling.process.progress import watched

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Scale = Literal["quantile", "maximum"]
Band = Literal["full", "upper", "kept"]
Statistic = Literal["dcor", "ratio", "z"]

_PRODUCTS_AT_A_TIME = 1 << 23
_SMALLEST_SPREAD = 1e-5  # of ratios; AGTIC's, so that a band without spread does not decide
_SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class AdaptiveDependence:
    """The dependence of every matrix of one set on every matrix of another.

    Args:
        statistic: ``Float[ma, mb]``.
        thresholds_a: ``Float[ma, mb, 2]``, lower and upper threshold of the first at the maximum.
        thresholds_b: ``Float[ma, mb, 2]``, of the second.
        p_values: ``Float[ma, mb]``, share of the orders of the stimuli, the given one among them, whose
            maximum is as large; NaN without permutations. Not corrected for the number of pairs.
    """

    statistic: Floats
    thresholds_a: Floats
    thresholds_b: Floats
    p_values: Floats


@checked(
    scale=OneOf(get_args(Scale)),
    band=OneOf(get_args(Band)),
    statistic=OneOf(get_args(Statistic)),
    levels=Whole(2),
    permutations=Whole(0),
)
def adaptive_dependence(
    a: Any,
    b: Any = None,
    *,
    levels: int = 6,
    scale: Scale = "quantile",
    band: Band = "full",
    statistic: Statistic = "dcor",
    permutations: int = 0,
    seed: int = 0,
) -> AdaptiveDependence:
    """The largest distance correlation over the thresholds of both matrices, chosen independently.

    Each matrix is transformed at every pair of ``levels`` evenly spaced thresholds, lower < upper: 0 up to
    the lower one, its maximum from the upper one, and ``band`` between. As a maximum over many bands it is
    biased upwards: compare it with other pairs of matrices, or by its p value, not with a plain distance
    correlation.
    It takes memory for ``levels**2 / 2`` copies of the matrices.

    Args:
        a: RDMs, or ``Float[ma, pairs]``; never changed. Rank them first, with ``GeoTopological(0, 1)``, for
            a statistic of the order of the distances alone.
        b: matrices of the same stimuli, in any order; by default ``a`` itself.
        levels: number of thresholds, at least 2.
        scale: ``"quantile"``, thresholds are quantiles of each matrix; ``"maximum"``, shares of its maximum.
        band: distances between the thresholds are stretched to 0 to the maximum (``"full"``), to 0 to the
            upper threshold (``"upper"``), or kept as they are (``"kept"``).
        statistic: ``"dcor"``, the largest distance correlation; ``"ratio"``, the largest one over its mean
            when stimuli are permuted; ``"z"``, one more than the largest excess of that ratio over 1, in
            units of its standard deviation. The mean and deviation take the given order as one of all.
        permutations: of the stimuli of ``b``; ``"ratio"`` and ``"z"`` need some.
        seed: of the permutations.

    Raises:
        ConfigError: for unknown names, less than 2 levels, or too few permutations.
        DataError: for matrices that cannot be used: other stimuli, missing pairs, infinity, distances below 0
            where ``band`` or ``scale`` need them as they are.

    Source: Lin and Kriegeskorte 2018, adaptive geo-topological independence criterion; Szekely et al. 2007
    for distance correlation.

    >>> x = np.abs(np.subtract.outer(np.arange(6.0), np.arange(6.0)))[np.triu_indices(6, 1)]
    >>> adaptive_dependence([x], [x**2]).statistic.round(3)
    array([[1.]])
    """
    if statistic != "dcor":
        check("permutations", permutations, Whole(2, hint=f"{statistic} needs them"))
    first, second = np.triu_indices(levels, 1)
    pairs = np.stack([first, second], axis=1) / (levels - 1)
    first_rdms, second_rdms = aligned(a, a if b is None else b)
    one = _centred_bands(first_rdms, pairs, scale, band)
    other = one if b is None else _centred_bands(second_rdms, pairs, scale, band)
    search = _Search(one, other, len(pairs), first_rdms.n, permutations, seed)
    found, places, p_values = search.run(statistic)
    return AdaptiveDependence(found, pairs[places // len(pairs)], pairs[places % len(pairs)], p_values)


@dataclass(frozen=True, eq=False)
class _Search:
    """Maxima over bands of products of centred bands, in the given and in permuted orders of the stimuli.

    Args:
        one: ``Float[ma * bands, entries]``, of length 1 each.
        other: ``Float[mb * bands, entries]``.
        bands: pairs of thresholds of a matrix.
        n: stimuli.
        permutations: orders besides the given one.
        seed: of the orders.
    """

    one: Floats
    other: Floats
    bands: int
    n: int
    permutations: int
    seed: int

    def run(self, statistic: Statistic) -> tuple[Floats, Ints, Floats]:
        """The statistic, the place of its maximum among both bands, and p values, ``[ma, mb]`` each."""
        rows, columns = (len(each) // self.bands for each in (self.one, self.other))
        found, p_values = np.empty((rows, columns)), np.full((rows, columns), np.nan)
        places = np.empty((rows, columns), np.int64)
        parts = blocks(rows, max(1, _PRODUCTS_AT_A_TIME // (self.bands * len(self.other))))
        for part in watched(parts, "measuring dependence", "blocks"):
            found[part], places[part], p_values[part] = self._run(part, statistic)
        return found, places, p_values

    def _run(self, part: slice, statistic: Statistic) -> tuple[Floats, Ints, Floats]:
        orders = self._correlations(part)
        given = next(orders)
        scaling = None if statistic == "dcor" else self._spread(part, statistic)
        table = _scaled(given, scaling)
        places = table.argmax(axis=-1)
        found = np.take_along_axis(table, places[..., None], axis=-1)[..., 0]
        if not self.permutations:
            return found, places, np.full(found.shape, np.nan)
        as_large = np.ones(found.shape)
        for permuted in orders:
            as_large += _scaled(permuted, scaling).max(axis=-1) >= found - _SLACK
        return found, places, as_large / (1 + self.permutations)

    def _spread(self, part: slice, statistic: Statistic) -> tuple[Floats, Floats | None]:
        """Mean of every correlation over all orders, and the deviation of its ratio to it for ``"z"``."""
        total: Any = 0.0
        squares: Any = 0.0
        for table in self._correlations(part):
            total, squares = total + table, squares + table**2
        count = 1 + self.permutations
        mean = total / count
        if statistic == "ratio":
            return mean, None
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
        relative = np.divide(deviation, mean, out=np.zeros_like(mean), where=mean > 0)
        return mean, np.maximum(relative, _SMALLEST_SPREAD)

    def _correlations(self, part: slice) -> Iterator[Floats]:
        """Distance correlations ``Float[rows, mb, bands * bands]``, first in the given order of stimuli."""
        one = self.one[part.start * self.bands : part.stop * self.bands]
        whole = len(one) == len(self.one)
        # A product with its own transpose is recognised, and half of it computed.
        other = one if whole and self.one is self.other else self.other
        yield self._table(one @ other.T)
        generator = np.random.default_rng(self.seed)
        first, second = np.triu_indices(self.n)
        position = np.empty((self.n, self.n), np.int64)
        position[first, second] = position[second, first] = np.arange(len(first))
        for _ in range(self.permutations):
            order = generator.permutation(self.n)
            yield self._table(one @ self.other[:, position[order[first], order[second]]].T)

    def _table(self, products: Floats) -> Floats:
        bands = self.bands
        shaped = products.reshape(-1, bands, len(self.other) // bands, bands).swapaxes(1, 2)
        found = np.abs(shaped).reshape(*shaped.shape[:2], bands * bands)
        return np.sqrt(found, out=found)


def _scaled(table: Floats, scaling: tuple[Floats, Floats | None] | None) -> Floats:
    if scaling is None:
        return table
    mean, spread = scaling
    ratio = np.divide(table, mean, out=np.ones_like(table), where=mean > 0)
    return ratio if spread is None else 1 + (ratio - 1) / spread


def _centred_bands(rdms: RDMs, pairs: Floats, scale: Scale, band: Band) -> Floats:
    """Every matrix in every band, double-centred and of length 1, ``Float[m * bands, n(n+1)/2]``.

    As a centred matrix is symmetric its upper half is enough, the pairs weighted by the root of 2. A band
    in which all distances become 0 correlates with none.
    """
    vectors = rdms.vectors.astype(np.float64)
    _check_usable(vectors, scale, band)
    ordered = OrderedDistances.of(vectors, rank=False)
    most = ordered.rising[:, -1]
    if scale == "maximum":
        lows, highs = pairs.T[:, :, None] * most
    else:
        lows, highs = ordered.quantiles(pairs.T.ravel()).reshape(2, len(pairs), -1)
    tops = np.ones_like(most) if band == "full" else most
    first, second = np.triu_indices(rdms.n, 1)
    upper = np.triu_indices(rdms.n)
    weights = np.where(upper[0] == upper[1], 1.0, np.sqrt(2))
    found = np.empty((len(vectors), len(pairs), len(weights)))
    square = np.zeros((len(pairs), rdms.n, rdms.n))
    for number, vector in enumerate(vectors):
        low, high = lows[:, number, None], highs[:, number, None]
        values = _in_band(vector, low, high, tops[number], band)
        square[:, first, second] = square[:, second, first] = values
        means = square.mean(axis=1)
        centred = square - means[:, :, None] - means[:, None, :] + means.mean(axis=1)[:, None, None]
        found[number] = centred[:, upper[0], upper[1]] * weights
    lengths = np.linalg.norm(found, axis=-1, keepdims=True)
    varies = lengths > _SLACK * tops[:, None, None]
    found *= np.divide(1, lengths, out=np.zeros_like(lengths), where=varies)
    return found.reshape(-1, len(weights))


def _in_band(vector: Floats, low: Floats, high: Floats, top: float, band: Band) -> Floats:
    """One vector in every band, ``Float[bands, pairs]``."""
    if band == "kept":
        between = np.broadcast_to(vector, (len(low), len(vector)))
    else:
        width = np.where(high > low, high - low, 1)
        between = (vector - low) / width * (high if band == "upper" else top)
    return np.where(vector <= low, 0, np.where(vector >= high, top, between))


def _check_usable(vectors: Floats, scale: Scale, band: Band) -> None:
    for wrong, what in (
        (~np.isfinite(vectors), "missing or infinite distances; choose stimuli that have all with at()"),
        (
            (vectors < 0) & (scale == "maximum" or band != "full"),
            "distances below 0, which need scale='quantile' and band='full'",
        ),
    ):
        rows = np.flatnonzero(wrong.any(axis=1))
        if len(rows):
            raise DataError(f"matrix {rows[0]} has {what}")
