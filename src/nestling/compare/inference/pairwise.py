"""Similarity of several representations, pair by pair, and by distance thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.compare.inference.evaluation import evaluate
from nestling.compare.rdms.rdms import RDMs
from nestling.compare.similarity.comparators import Method, compare
from nestling.compare.transforms.thresholds import check_thresholds
from nestling.compare.transforms.topology import OrderedDistances
from nestling.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """The similarity of two matrices.

    Args:
        first: the name of one.
        second: the name of the other.
        method: the comparator.
        value: the similarity.
        low: lower end of the interval over other stimuli.
        high: upper end.
    """

    first: str
    second: str
    method: str
    value: float
    low: float
    high: float


def agreements(
    rdms: RDMs,
    methods: Sequence[Method] = ("spearman",),
    *,
    draws: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Agreement, ...]:
    """Every two matrices by every method, with intervals that resample stimuli.

    Args:
        rdms: at least two, named by their label ``"name"`` where they carry it.
        methods: see :func:`~nestling.compare.inference.evaluation.evaluate`.
        draws: resamples of the stimuli, the same for all.
        confidence: of the intervals.
        seed: draws them.

    Returns:
        Pair by pair, the methods of each in their order.

    Raises:
        DataError: for a single matrix, or ones that a method cannot compare.
        ConfigError: for an unknown method, or one that has no intervals here.

    >>> rdms = RDMs([[1.0, 2, 3, 4, 5, 6], [1.0, 2, 3, 4, 6, 5]], labels={"name": ["a", "b"]})
    >>> [(each.first, each.second, round(each.value, 3)) for each in agreements(rdms)]
    [('a', 'b', 0.943)]
    """
    if len(rdms) < 2:
        raise DataError("one matrix has nothing to be compared with; give at least two")
    found: dict[tuple[int, int], list[Agreement]] = {}
    for method in methods:
        for second in range(1, len(rdms)):
            others = evaluate(
                rdms[:second],
                rdms[second],
                method,
                over="stimuli",
                subject=None,
                draws=draws,
                confidence=confidence,
                seed=seed,
            )
            # No similarity is above 1, as the interval of one near it may be.
            low, high = others.interval[0], np.minimum(others.interval[1], 1)
            for first, name in enumerate(others.models):
                numbers = (float(part[first]) for part in (others.values, low, high))
                row = Agreement(name, _name(rdms, second), method, *numbers)
                found.setdefault((first, second), []).append(row)
    return tuple(row for pair in sorted(found) for row in found[pair])


def similarity_by_thresholds(rdms: RDMs, thresholds: ArrayLike) -> Floats:
    """Correlation of every two matrices after each geo-topological transform, ``Float[t, m, m]``.

    Where it is high, the matrices agree in that range of distances: at low thresholds in who is nearest to
    whom, at high ones in who is farthest, at ``(0, 1)`` in the order of all distances.

    Args:
        rdms: m of them.
        thresholds: ``Float[t, 2]``, such as :func:`~nestling.compare.transforms.thresholds.threshold_grid`
            gives.

    Raises:
        ConfigError: for thresholds that are no such pairs.
        DataError: for a matrix whose distances are all equal or missing.

    Source: Lin and Kriegeskorte 2023, the triangle of thresholds.
    """
    ordered = OrderedDistances.of(rdms.vectors, rank=True)
    return np.stack(list(_correlations(ordered, check_thresholds(thresholds))))


def _correlations(ordered: OrderedDistances, thresholds: Floats) -> Iterable[Floats]:
    for pair in thresholds:
        (graded,) = ordered.transform(pair[None])
        yield compare(graded, graded, "pearson")


def _name(rdms: RDMs, number: int) -> str:
    return str(rdms.labels.get("name", range(len(rdms)))[number])
