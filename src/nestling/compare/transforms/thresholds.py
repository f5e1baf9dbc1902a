"""Pairs of thresholds (lower, upper) of the geo-topological transform: grids, named regions, samples."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.constraints import OneOf, Whole, checked
from nestling.errors import ConfigError

Floats = NDArray[np.float64]
Region = Literal["local", "global", "geometry", "topology", "intermediate"]
REGIONS: tuple[Region, ...] = get_args(Region)

_TOLERANCE = 1e-3
_CORNER = 1e-2
_DRAWS_AT_A_TIME = 1024


def check_thresholds(thresholds: ArrayLike) -> Floats:
    """Pairs of thresholds as ``Float[t, 2]``, each with 0 <= lower <= upper <= 1.

    Raises:
        ConfigError: for another shape, no pairs, or a pair that is out of range or the wrong way round.
    """
    pairs = np.asarray(thresholds, np.float64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
        raise ConfigError(
            f"thresholds must be pairs (lower, upper), such as [(0.2, 0.8)], not of shape {pairs.shape}"
        )
    for lower, upper in pairs[~((pairs >= 0) & (pairs <= 1)).all(axis=1)]:
        raise ConfigError(
            f"thresholds ({lower:g}, {upper:g}) are shares of the pairs of stimuli and must lie in 0 to 1"
        )
    for lower, upper in pairs[pairs[:, 0] > pairs[:, 1]]:
        raise ConfigError(
            f"the lower threshold {lower:g} is above the upper one {upper:g}; did you swap them?"
        )
    return pairs


def threshold_grid(step: float = 0.05, *, equal: bool = False) -> Floats:
    """All pairs lower < upper whose thresholds are multiples of ``step``, as ``Float[t, 2]``.

    Args:
        step: a divisor of 1; the 0.05 of the paper gives 210 pairs.
        equal: add the pairs lower = upper between 0 and 1, whose matrices are binary.

    Raises:
        ConfigError: for a step that does not divide 1.

    Source: Lin and Kriegeskorte 2023, the search over the triangle of thresholds.

    >>> len(threshold_grid()), threshold_grid(0.5).tolist()
    (210, [[0.0, 0.5], [0.0, 1.0], [0.5, 1.0]])
    """
    steps = round(1 / step) if 0 < step <= 1 else 0
    if not steps or abs(steps * step - 1) > 1e-9:
        raise ConfigError(f"step={step:g} must divide 1, such as 0.05, 0.1 or 0.25")
    first, second = np.triu_indices(steps + 1, k=0 if equal else 1)
    inside = (first != second) | ((first > 0) & (first < steps))
    return np.stack([first[inside], second[inside]], axis=1) / steps


def region_of(lower: float, upper: float) -> str:
    """The named region of a pair of thresholds, or ``"corner"`` where nothing is left of the matrix.

    ``"local"``: mean of both at most 0.2; ``"global"``: at least 0.8; ``"geometry"``: at least 0.8 apart;
    ``"topology"``: both within 0.4 to 0.6; ``"intermediate"``: any other. Borders count within 0.001.

    Raises:
        ConfigError: for thresholds that are no pair.

    Source: Lin and Kriegeskorte 2023, classes of summary statistics.

    >>> region_of(0.4, 0.6), region_of(0.0, 1.0), region_of(0.2, 0.8)
    ('topology', 'geometry', 'intermediate')
    """
    pairs = check_thresholds([(lower, upper)])
    return "corner" if _is_corner(pairs)[0] else REGIONS[_regions(pairs)[0]]


@checked(region=OneOf(REGIONS), count=Whole(1), seed=Whole(0))
def sample_thresholds(region: Region, count: int = 10, *, seed: int = 0) -> Floats:
    """Pairs drawn evenly from a named region of the triangle of thresholds, as ``Float[count, 2]``.

    Args:
        region: one of those of :func:`region_of`.
        count: number of pairs; the paper averages over 10.
        seed: the same seed draws the same pairs.

    Raises:
        ConfigError: for an unknown region or a count below 1.

    >>> pairs = sample_thresholds("topology", 5)
    >>> pairs.shape, bool((pairs >= 0.399).all() and (pairs <= 0.601).all())
    ((5, 2), True)
    """
    generator = np.random.default_rng(seed)
    found: list[Floats] = []
    while sum(map(len, found)) < count:
        pairs = np.sort(generator.random((_DRAWS_AT_A_TIME, 2)), axis=1)
        found.append(pairs[(_regions(pairs) == REGIONS.index(region)) & ~_is_corner(pairs)])
    return np.concatenate(found)[:count]


def _regions(pairs: Floats) -> NDArray[np.int64]:
    """The place of each pair's region in ``REGIONS``."""
    (lower, upper), mean = pairs.T, pairs.mean(axis=1)
    inside: list[Any] = [
        mean <= 0.2 + _TOLERANCE,
        mean >= 0.8 - _TOLERANCE,
        upper - lower >= 0.8 - _TOLERANCE,
        (lower >= 0.4 - _TOLERANCE) & (upper <= 0.6 + _TOLERANCE),
    ]
    return np.select(inside, range(len(inside)), len(inside))


def _is_corner(pairs: Floats) -> NDArray[np.bool_]:
    total = pairs.sum(axis=1)
    return np.asarray((total <= _CORNER) | (total >= 2 - _CORNER))
