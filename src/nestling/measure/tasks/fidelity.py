"""Fidelity to the full representation: geometry, topology and neighbourhoods at each granularity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Whole, checked
from nestling.compare.rdms.prefixes import prefix_distances
from nestling.compare.transforms.thresholds import check_thresholds
from nestling.compare.transforms.topology import geo_topological
from nestling.cut import CutRule, check_vectors
from nestling.errors import ConfigError, DataError, require
from nestling.measure.tasks.pair_scores import PairScores
from nestling.measure.tasks.scores import Floats, MeanScores, Scores
from nestling.search.exact.recall import rounding, share_as_near
from nestling.vectors.prefix import prepare

Thresholds = Mapping[str, tuple[float, float]]

THRESHOLDS: Thresholds = {"rank": (0.0, 1.0), "topology": (0.4, 0.6), "local": (0.0, 0.1)}
"""Default metrics: all distances, who is near and who is far, and the smallest distances."""

_NEIGHBOURS = "neighbours"
_FEWEST = 3
_COSINES = CutRule()


@dataclass(frozen=True, eq=False)
@checked(k=Whole(1) | None, limit=Whole(_FEWEST), seed=Whole(0))
class Fidelity:
    """Agreement of each granularity with the full representation about the arrangement of inputs.

    The distances between all pairs of inputs, ranked and put through a geo-topological transform, are
    correlated (Pearson) with those at the full granularity of the nesting that is swept, which itself
    scores 1. ``neighbours@k`` is the share of the ``k`` nearest inputs of an input that still are.

    Distances are Euclidean after the cut rule, so under ``l2`` they rank as cosines do. Intervals resample
    inputs: a pair counts as often as its two inputs are drawn together, and an input has no distance to
    itself. Ranks and neighbours stay those among all inputs.

    Args:
        x: inputs: texts, vectors, pictures, row numbers.
        reference: ``Float[n, dim]``, vectors of the same inputs to compare with in place of the full
            granularity, such as those of another model.
        rule: the cut rule applied to ``reference`` before distances are computed.
        thresholds: lower and upper quantile of each transform by the name of its metric, the main one first.
        k: neighbours that are looked at; None leaves them out.
        limit: more inputs are sampled down to this number. For ``n`` inputs each granularity takes ``2 n^2``
            bytes per transform: 24 MB for 2,000 inputs and three transforms.
        seed: draws the sample.

    Raises:
        DataError: for fewer than three inputs, or a reference of another length.
        ConfigError: for thresholds, ``k`` or a limit that cannot be.

    Source: representational similarity analysis (Kriegeskorte et al. 2008) of a representation with its own
    cuts; the transforms are those of Lin and Kriegeskorte, arXiv 2309.11028.
    """

    x: Any
    reference: Any = None
    rule: CutRule = _COSINES
    thresholds: Thresholds = field(default_factory=lambda: dict(THRESHOLDS))
    k: int | None = 10
    limit: int = 2000
    seed: int = 0

    name = "fidelity"
    needs = "vectors"

    def __post_init__(self) -> None:
        self._check_settings()
        if self.reference is not None and len(self.reference) != len(self.x):
            raise DataError(f"{len(self.reference)} reference rows were given for {len(self.x)} inputs")
        if len(self.x) > self.limit:
            rows = np.random.default_rng(self.seed).choice(len(self.x), self.limit, replace=False)
            rows.sort()
            object.__setattr__(self, "x", _take(self.x, rows))
            if self.reference is not None:
                object.__setattr__(self, "reference", _take(self.reference, rows))
        if len(self.x) < _FEWEST:
            raise DataError(f"{len(self.x)} inputs are too few to compare; give at least {_FEWEST}")
        if self.k is not None and self.k >= len(self.x):
            raise ConfigError(
                f"k={self.k} neighbours cannot be found among {len(self.x) - 1} other inputs; choose fewer, "
                "or None to leave them out"
            )

    def _check_settings(self) -> None:
        if not self.thresholds:
            raise ConfigError(f"name at least one transform and its thresholds, such as {dict(THRESHOLDS)}")
        check_thresholds(list(self.thresholds.values()))
        for metric in self.thresholds:
            if metric.partition("@")[0] == _NEIGHBOURS:
                raise ConfigError(f"{metric!r} counts nearest inputs here; give the transform another name")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the transforms, then ``neighbours@k``."""
        return (*self.thresholds, *(() if self.k is None else (f"{_NEIGHBOURS}@{self.k}",)))

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs to encode."""
        return {"x": self.x}

    def with_inputs(self, inputs: Mapping[str, Any]) -> Self:
        """The same task on other inputs, such as their vectors."""
        return replace(self, **inputs)

    def with_full(self, encoded: Mapping[str, NDArray[Any]], dim: int, rule: CutRule) -> Self:
        """The same task, compared with these vectors at size ``dim`` unless it has another reference."""
        if self.reference is not None:
            return self
        full = check_vectors(encoded["x"], "the vectors at the full granularity")
        return replace(self, reference=prepare(full, dim, rule), rule=rule.again)

    def score(self, encoded: Mapping[str, NDArray[Any]], dims: Sequence[int], rule: CutRule) -> Scores:
        """Agreement with the reference at every size, from one pass over the coordinates."""
        expected, target = self._target
        graded, shares = [], []
        for dim, distances in zip(dims, prefix_distances(encoded["x"], dims, rule), strict=True):
            graded.append(self._graded(distances, f"at {dim} dims"))
            if self.k is not None:
                shares.append(_shared(_square(distances), expected, self.k))
        pairs = PairScores(np.stack(graded), target, tuple(self.thresholds))
        if self.k is None:
            return pairs
        return _Beside((pairs, MeanScores(np.stack(shares)[:, :, None], self.metrics[-1:])))

    @cached_property
    def _target(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Distances of the reference, between all inputs and graded."""
        if self.reference is None:
            raise ConfigError(
                "there is nothing to compare with: sweep gives the vectors at the full granularity; "
                "elsewhere set reference="
            )
        dim = np.shape(self.reference)[1]
        (distances,) = prefix_distances(self.reference, [dim], self.rule)
        return _square(distances), self._graded(distances, "of the reference")

    def _graded(self, distances: NDArray[np.float32], where: str) -> NDArray[np.float32]:
        """``Float[transforms, pairs]``, from 0 to 1."""
        if distances.min() == distances.max():
            raise DataError(
                f"all distances {where} are {distances[0]:g}, so they have no order; start at a larger size"
            )
        graded = geo_topological(distances[None], tuple(self.thresholds.values()))
        return np.asarray(graded[:, 0], np.float32)


class _Beside:
    """Several kinds of metrics of the same examples."""

    def __init__(self, parts: Sequence[Scores]) -> None:
        self.parts, self.groups = parts, parts[0].groups
        self.metrics = tuple(metric for part in parts for metric in part.metrics)

    def statistic(self, weights: Floats) -> Floats:
        """``Float[resamples, sizes, metrics]`` of ``Float[resamples, examples]``."""
        return np.concatenate([part.statistic(weights) for part in self.parts], axis=2)


def _take(x: Any, rows: NDArray[np.int64]) -> Any:
    """Some rows of a matrix, or of anything else with rows."""
    return x[rows] if hasattr(x, "shape") else [x[row] for row in rows.tolist()]


def _square(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distances ``Float[n, n]`` of pairs; no input is near to itself."""
    square = require("scipy.spatial.distance", "sklearn").squareform(distances)
    np.fill_diagonal(square, np.inf)
    return np.asarray(square, np.float32)


def _shared(found: NDArray[np.float32], expected: NDArray[np.float32], k: int) -> Floats:
    """Share of the ``k`` nearest inputs of each input that still are, or others as near as the k-th."""
    rows = np.argpartition(found, k - 1, axis=1)[:, slice(k)]
    kth = np.partition(expected, k - 1, axis=1)[:, k - 1]
    return share_as_near(np.take_along_axis(expected, rows, 1), kth, rounding(1) * kth, k)
