"""Threshold search by nested cross-validation: leave one subject out, twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from nestling.arguments.constraints import OneOf, checked
from nestling.compare.inference.identification import Grouping, Identification, common_pairs
from nestling.compare.rdms.rdms import as_rdms
from nestling.compare.similarity.centroids import Distance, Flags, Floats, Ints, gram
from nestling.compare.transforms.thresholds import check_thresholds, region_of, threshold_grid
from nestling.compare.transforms.topology import OrderedDistances
from nestling.errors import DataError, require
from nestling.process.blocks import blocks

# Few enough for a core's cache: they are written, centred and multiplied at once.
_ENTRIES_AT_A_TIME = 1 << 18
_PRODUCTS_AT_A_TIME = 1 << 22
_FEWEST_SUBJECTS = 3
_SLACK = 1e-9


@dataclass(frozen=True)
class Choice:
    """The thresholds that were chosen without a subject, and how they do on it.

    Args:
        subject: the subject held out.
        lower: chosen on the other subjects.
        upper: likewise.
        inner_accuracy: of the chosen pair among the other subjects. As the best of many it flatters.
        accuracy: on the held-out subject; NaN if it could not be scored.
    """

    subject: Any
    lower: float
    upper: float
    inner_accuracy: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class ThresholdSearch:
    """Accuracy of identification at many thresholds, and an unbiased estimate for the best choice.

    ``accuracy`` is the estimate to report: every subject was identified with thresholds chosen on others.
    ``accuracies`` is a map to look at. The accuracy of its best cell is biased upwards by the selection, so
    it has no name of its own.

    Args:
        thresholds: ``Float[t, 2]``.
        accuracies: ``Float[t]``, of each pair on all subjects.
        choices: one a subject.
        identification: every subject by its own choice.
    """

    thresholds: Floats
    accuracies: Floats
    choices: tuple[Choice, ...]
    identification: Identification

    @property
    def accuracy(self) -> float:
        """Share right with thresholds that were chosen without the subject they were used on."""
        return self.identification.accuracy

    def rows(self) -> list[dict[str, Any]]:
        """One row a pair of thresholds: lower, upper, region and accuracy on all subjects."""
        return [
            {
                "lower": float(lower),
                "upper": float(upper),
                "region": region_of(lower, upper),
                "accuracy": float(accuracy),
            }
            for (lower, upper), accuracy in zip(self.thresholds, self.accuracies, strict=True)
        ]

    def to_pandas(self) -> Any:
        """The rows as a table.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return require("pandas", "pandas").DataFrame(self.rows())


@checked(distance=OneOf(get_args(Distance)))
def search_thresholds(
    rdms: Any,
    *,
    label: str | Sequence[Any],
    subject: str | Sequence[Any],
    thresholds: ArrayLike | None = None,
    step: float = 0.05,
    rank: bool = True,
    distance: Distance = "euclidean",
) -> ThresholdSearch:
    """Identification at every pair of thresholds, and an honest estimate of choosing the best pair.

    For the estimate each subject is left out in turn; the pair of thresholds is the one that does best when
    each of the remaining subjects is left out, and is then used on the subject. Of pairs that do equally well
    the widest is taken, and then the lowest.

    Args:
        rdms: RDMs, or ``Float[m, pairs]``; never changed.
        label: the label to identify; see :func:`~nestling.compare.inference.identification.identify`.
        subject: the label of subjects; each is left out in turn.
        thresholds: pairs ``(lower, upper)``; by default all of a grid.
        step: of the grid.
        rank: replace distances by their ranks first.
        distance: to the centroids.

    Raises:
        ConfigError: for thresholds that are no pairs, an unknown distance or label.
        DataError: for matrices that cannot be used, or fewer than 3 subjects: one to report on, and at
            least 2 to choose among.

    Source: the grid of Lin and Kriegeskorte 2023, which reports its best cell; Varma and Simon 2006 for the
    second loop.
    """
    pairs = threshold_grid(step) if thresholds is None else check_thresholds(thresholds)
    rdms = as_rdms(rdms)
    grouping = Grouping.read(rdms, label, subject)
    if len(grouping.subjects) < _FEWEST_SUBJECTS:
        raise DataError(
            f"{len(grouping.subjects)} subjects are too few to choose thresholds and report on another one; "
            f"give at least {_FEWEST_SUBJECTS}, or use identify() at thresholds that you fix beforehand"
        )
    present, notes = common_pairs(rdms.vectors)
    ordered = OrderedDistances.of(rdms.vectors, rank=rank)
    measured = _measure(ordered, pairs, present, grouping, distance)
    chosen = _choose(measured.inner, pairs, grouping)
    of_matrix = chosen[grouping.subject_of]
    distances = measured.distances[of_matrix, np.arange(len(of_matrix))]
    ratios = _ratios(ordered, pairs, present, chosen, grouping, distance)
    found = Identification.of(grouping, distances, ratios, notes)
    choices = tuple(_report(found, pairs, chosen, measured.inner))
    return ThresholdSearch(pairs, measured.accuracies, choices, found)


@dataclass(frozen=True, eq=False)
class _Measured:
    """The results kept for every pair of thresholds.

    Args:
        accuracies: ``Float[t]``, of all subjects.
        inner: ``Float[subjects, t]``, of the others when a subject is not there at all.
        distances: ``Float[t, m, classes]``, to the centroids of the other subjects.
    """

    accuracies: Floats
    inner: Floats
    distances: Floats


def _measure(
    ordered: OrderedDistances, pairs: Floats, present: Flags, grouping: Grouping, distance: Distance
) -> _Measured:
    """Identification at every pair of thresholds, with all subjects and without each."""
    without = [np.flatnonzero(grouping.subject_of != place) for place in range(len(grouping.subjects))]
    others = [grouping.at(rest) for rest in without]
    accuracies, inner = np.empty(len(pairs)), np.empty((len(without), len(pairs)))
    distances = np.empty((len(pairs), *grouping.members.shape))
    for part in blocks(len(pairs), max(1, _PRODUCTS_AT_A_TIME // grouping.same.size)):
        products = _grams(ordered, pairs[part], present, distance)
        distances[part] = grouping.distances(products, distance)
        accuracies[part] = grouping.accuracy(distances[part])
        for place, (rest, kept) in enumerate(zip(without, others, strict=True)):
            found = kept.distances(products[:, rest[:, None], rest], distance)
            inner[place, part] = kept.accuracy(found)
    return _Measured(accuracies, inner, distances)


def _grams(ordered: OrderedDistances, pairs: Floats, present: Flags, distance: Distance) -> Floats:
    """Inner products ``Float[t, m, m]`` of the transformed matrices, over the pairs that all have."""
    count, size = len(ordered.values), ordered.values.size
    found = np.empty((len(pairs), count, count))
    for part in blocks(len(pairs), max(1, _ENTRIES_AT_A_TIME // size)):
        found[part] = gram(ordered.transform(pairs[part])[..., present], distance)
    return found


def _choose(inner: Floats, pairs: Floats, grouping: Grouping) -> Ints:
    """The pair that does best without each subject, ``Int[subjects]``; of equals the widest, then lowest."""
    lost = np.flatnonzero(np.isnan(inner).all(axis=1))
    if len(lost):
        raise DataError(
            f"without subject {grouping.subjects[lost[0]]!r} no class is shared by two subjects, so no "
            "thresholds can be chosen; give more subjects"
        )
    preference = np.lexsort((pairs[:, 0], pairs[:, 0] - pairs[:, 1]))
    as_good = inner >= np.nanmax(inner, axis=1, keepdims=True) - _SLACK
    return np.asarray(preference[as_good[:, preference].argmax(axis=1)])


def _ratios(
    ordered: OrderedDistances,
    pairs: Floats,
    present: Flags,
    chosen: Ints,
    grouping: Grouping,
    distance: Distance,
) -> Floats:
    """Ratios of distances of every subject at the pair chosen without it, ``Float[subjects, classes]``."""
    found = np.empty((len(chosen), len(grouping.classes)))
    for pair in np.unique(chosen):
        products = _grams(ordered, pairs[[pair]], present, distance)[0]
        found[chosen == pair] = grouping.ratios(products, distance)[chosen == pair]
    return found


def _report(found: Identification, pairs: Floats, chosen: Ints, inner: Floats) -> Iterator[Choice]:
    grouping = found.grouping
    for place, name in enumerate(grouping.subjects):
        own = np.flatnonzero(grouping.subject_of == place)
        accuracy = grouping.at(own).accuracy(found.distances[own])
        lower, upper = pairs[chosen[place]]
        yield Choice(name, float(lower), float(upper), float(inner[place, chosen[place]]), float(accuracy))
