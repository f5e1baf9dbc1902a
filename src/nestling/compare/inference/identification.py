"""Identification: is an RDM closest to its own class among the RDMs of other subjects?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, get_args

import numpy as np

from nestling.arguments.constraints import OneOf, Whole, checked
from nestling.compare.rdms.labels import labels_for
from nestling.compare.rdms.rdms import RDMs, as_rdms
from nestling.compare.similarity.centroids import (
    Distance,
    Flags,
    Floats,
    Ints,
    distance_ratios,
    gram,
    held_out_distances,
    nearest_class,
    pair_distances,
    share_right,
)
from nestling.compare.transforms.transformer import Vectors
from nestling.errors import DataError, require
from nestling.process.blocks import blocks

_MEMBERS_AT_A_TIME = 1 << 21
_SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class Grouping:
    """The class and the subject of every matrix.

    Args:
        classes: names, in the order of their first matrix.
        subjects: names, in the order of their first matrix.
        class_of: ``Int[m]``, places in ``classes``.
        subject_of: ``Int[m]``, places in ``subjects``.
    """

    classes: tuple[Any, ...]
    subjects: tuple[Any, ...]
    class_of: Ints
    subject_of: Ints

    @classmethod
    def read(cls, rdms: RDMs, label: str | Sequence[Any], subject: str | Sequence[Any]) -> Self:
        """Classes and subjects, by the name of a label or given one a matrix.

        Raises:
            ConfigError: for the name of no label.
            DataError: for another number of labels than matrices, fewer than 2 classes or subjects.
        """
        classes, class_of = labels_for(rdms.labels, label, len(rdms), "label")
        subjects, subject_of = labels_for(rdms.labels, subject, len(rdms), "subject")
        if len(subjects) < 2:
            raise DataError(
                f"all matrices are of one subject, {subjects[0]!r}; leaving one subject out needs at least 2"
            )
        if len(classes) < 2:
            raise DataError(f"all matrices are of one class, {classes[0]!r}; there is nothing to identify")
        return cls(classes, subjects, class_of, subject_of)

    @cached_property
    def members(self) -> Floats:
        """``Float[m, classes]``, 1 where a matrix is of a class."""
        return np.eye(len(self.classes))[self.class_of]

    @cached_property
    def same(self) -> Flags:
        """``Bool[m, m]``, pairs of matrices of one subject."""
        return np.asarray(self.subject_of[:, None] == self.subject_of)

    def distances(self, products: Floats, distance: Distance) -> Floats:
        """``Float[..., m, classes]``, to centroids of other subjects; from Gram ``Float[..., m, m]``."""
        return held_out_distances(products, self.members, self.same, distance)

    def ratios(self, products: Floats, distance: Distance) -> Floats:
        """``Float[subjects, classes]``, distances within a class over those across; from one Gram matrix."""
        return distance_ratios(pair_distances(products, distance), self.members, self.same, self.subject_of)

    def predicted(self, distances: Floats) -> Ints:
        """``Int[..., m]``, places in ``classes``; -1 for matrices that cannot be scored."""
        return nearest_class(distances, self.class_of)

    def accuracy(self, distances: Floats) -> Floats:
        """``Float[...]``, the share of scored matrices whose class is predicted."""
        return share_right(self.predicted(distances), self.class_of)

    def at(self, matrices: Ints) -> Grouping:
        """The grouping of some of the matrices, with the same names."""
        return Grouping(self.classes, self.subjects, self.class_of[matrices], self.subject_of[matrices])


@dataclass(frozen=True, eq=False)
class Identification:
    """The result of leaving out every subject in turn.

    Args:
        grouping: classes and subjects of the matrices.
        distances: ``Float[m, classes]``, to the centroids of the other subjects; NaN where they lack a class.
        ratios: ``Float[subjects, classes]``, mean distance to the same class over that to the others, among
            other subjects; below 1 where a class can be identified. NaN where there is nothing to compare.
        null: ``Float[permutations]``, accuracies with the classes permuted within each subject.
        notes: subjects and classes that were left out, with reasons.
    """

    grouping: Grouping
    distances: Floats
    ratios: Floats
    null: Floats
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, grouping: Grouping, distances: Floats, ratios: Floats, notes: tuple[str, ...]) -> Self:
        """The result without permutations, with notes on classes that subjects lack.

        Raises:
            DataError: if no matrix can be scored.
        """
        found = cls(grouping, distances, ratios, np.empty(0), notes)
        return replace(found, notes=(*notes, *missing_classes(found)))

    @cached_property
    def predicted(self) -> Ints:
        """``Int[m]``, places in ``grouping.classes``; -1 for matrices that were not scored."""
        return self.grouping.predicted(self.distances)

    @property
    def accuracy(self) -> float:
        """The share of scored matrices whose class is predicted."""
        return float(self.grouping.accuracy(self.distances))

    @property
    def chance(self) -> float:
        """Accuracy of guessing: the mean over scored matrices of one over the classes to choose from."""
        choices = np.count_nonzero(~np.isnan(self.distances), axis=1)
        return float(np.mean(1 / choices[self.predicted >= 0]))

    @property
    def p_value(self) -> float:
        """Share of permutations, the given order among them, that do as well; NaN if there were none."""
        if not len(self.null):
            return float("nan")
        as_good = np.count_nonzero(self.null >= self.accuracy - _SLACK)
        return float((1 + as_good) / (1 + len(self.null)))

    @cached_property
    def confusion(self) -> Ints:
        """``Int[classes, classes]``: matrices of the class of the row called that of the column."""
        count, scored = len(self.grouping.classes), self.predicted >= 0
        found = np.zeros((count, count), np.int64)
        np.add.at(found, (self.grouping.class_of[scored], self.predicted[scored]), 1)
        return found

    @property
    def sensitivity(self) -> Floats:
        """``Float[classes]``: share of the matrices of a class that are called so."""
        return _share(np.diagonal(self.confusion), self.confusion.sum(axis=1))

    @property
    def specificity(self) -> Floats:
        """``Float[classes]``: share of the matrices of other classes that are not called so."""
        others = self.confusion.sum() - self.confusion.sum(axis=1)
        called = self.confusion.sum(axis=0) - np.diagonal(self.confusion)
        return _share(others - called, others)

    def rows(self) -> list[dict[str, Any]]:
        """One row a class: scored matrices, sensitivity, specificity and mean ratio of distances."""
        counts = self.confusion.sum(axis=1)
        present = ~np.isnan(self.ratios)
        ratios = _share(np.where(present, self.ratios, 0).sum(axis=0), present.sum(axis=0))
        columns = zip(self.grouping.classes, counts, self.sensitivity, self.specificity, ratios, strict=True)
        names = ("class", "matrices", "sensitivity", "specificity", "within_over_across")
        return [
            dict(zip(names, (name, int(n), *map(float, rest)), strict=True)) for name, n, *rest in columns
        ]

    def to_pandas(self) -> Any:
        """The rows as a table.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return require("pandas", "pandas").DataFrame(self.rows())


@checked(distance=OneOf(get_args(Distance)), permutations=Whole(0, hint="1000 are usual"))
def identify(
    rdms: Any,
    *,
    label: str | Sequence[Any],
    subject: str | Sequence[Any],
    transform: Any = None,
    distance: Distance = "euclidean",
    permutations: int = 0,
    seed: int = 0,
) -> Identification:
    """Leave each subject out, and assign its matrices to the nearest centroid of the others' classes.

    Where a subject lacks a class it is scored on those it has; a matrix whose class no other subject has
    is not scored; both are said in ``notes``. Pairs of stimuli that any matrix lacks (NaN) are left out.

    Args:
        rdms: RDMs, or ``Float[m, pairs]``; never changed.
        label: the label to identify, such as ``"layer"``: a label of the matrices, or one value each.
        subject: the label of subjects, such as ``"seed"``, or one value each; each is left out in turn.
        transform: applied to all matrices first: anything with ``transform``, or a function. It must treat
            each matrix by itself, as :class:`~nestling.compare.transforms.topology.GeoTopological` does.
        distance: to the centroids: ``"euclidean"``, as in the paper, ``"correlation"`` or ``"cosine"``.
        permutations: of the classes within each subject, for the p value.
        seed: of the permutations.

    Raises:
        ConfigError: for an unknown distance or label, or fewer than 0 permutations.
        DataError: for matrices that cannot be used, fewer than 2 subjects or classes, no class that two
            subjects share, no pair that all matrices have, or nothing to permute.

    Source: Lin and Kriegeskorte 2023, identification of layers and areas.

    >>> vectors = [[1, 2, 3], [3, 2, 1], [1, 2, 4], [4, 2, 1]]
    >>> found = identify(vectors, label=["a", "b", "a", "b"], subject=[0, 0, 1, 1])
    >>> found.accuracy, found.chance, found.ratios.round(2).tolist()
    (1.0, 0.5, [[0.28, 0.28], [0.28, 0.28]])
    """
    rdms = as_rdms(rdms)
    grouping = Grouping.read(rdms, label, subject)
    vectors = _transformed(rdms, transform)
    present, notes = common_pairs(vectors)
    products = gram(vectors[:, present], distance)
    distances, ratios = grouping.distances(products, distance), grouping.ratios(products, distance)
    found = Identification.of(grouping, distances, ratios, notes)
    if not permutations:
        return found
    return replace(found, null=_null(products, grouping, distance, permutations, seed))


def common_pairs(vectors: Vectors) -> tuple[Flags, tuple[str, ...]]:
    """The pairs of stimuli that all matrices have, ``Bool[pairs]``, and a note if some lack any.

    Raises:
        DataError: if none is left, or a distance is infinite.
    """
    if np.isinf(vectors).any():
        raise DataError(
            "a matrix holds infinity, which has no distance to others; use Geodesic(disconnected='max'), "
            "or rank first with GeoTopological(0, 1)"
        )
    present: Flags = np.asarray(~np.isnan(vectors).any(axis=0))
    if present.all():
        return present, ()
    if not present.any():
        raise DataError(
            "every pair of stimuli is missing (NaN) in some matrix; choose matrices that have pairs in common"
        )
    left = np.count_nonzero(present)
    return present, (f"{left} of {len(present)} pairs are used: the others are missing in some matrix",)


def _transformed(rdms: RDMs, transform: Any) -> Vectors:
    if transform is None:
        return rdms.vectors
    found = transform.transform(rdms) if hasattr(transform, "transform") else transform(rdms)
    vectors: Vectors = found.vectors if isinstance(found, RDMs) else np.asarray(found, np.float64)
    if vectors.ndim != 2 or len(vectors) != len(rdms):
        raise DataError(
            f"the transform gave shape {vectors.shape} for {len(rdms)} matrices; it must give one row each"
        )
    return vectors


def missing_classes(found: Identification) -> Iterator[str]:
    """Notes on classes that subjects lack.

    Raises:
        DataError: if no matrix can be scored.
    """
    grouping = found.grouping
    if (found.predicted < 0).all():
        raise DataError(
            "no class is shared by two subjects, so nothing can be identified; are label= and subject= right?"
        )
    alone = set(grouping.class_of[found.predicted < 0].tolist())
    for number, name in enumerate(grouping.subjects):
        own = alone | set(grouping.class_of[grouping.subject_of == number].tolist())
        lacking = [repr(each) for place, each in enumerate(grouping.classes) if place not in own]
        if lacking:
            yield f"subject {name!r} lacks {', '.join(lacking)} and is scored on what it has"
    for place in sorted(alone):
        yield f"only one subject has {grouping.classes[place]!r}, so its matrices are not scored"


def _null(products: Floats, grouping: Grouping, distance: Distance, permutations: int, seed: int) -> Floats:
    """Accuracies ``Float[permutations]`` with the classes permuted within each subject."""
    groups = [np.flatnonzero(grouping.subject_of == number) for number in range(len(grouping.subjects))]
    if all(len(set(grouping.class_of[group].tolist())) == 1 for group in groups):
        raise DataError(
            "every subject has matrices of a single class, so no permutation within them changes anything; "
            "use permutations=0"
        )
    generator = np.random.default_rng(seed)
    orders = np.tile(np.arange(len(products)), (permutations, 1))
    for group in groups:
        orders[:, group] = generator.permuted(np.tile(group, (permutations, 1)), axis=1)
    found = []
    for rows in blocks(permutations, max(1, _MEMBERS_AT_A_TIME // grouping.members.size)):
        class_of = grouping.class_of[orders[rows]]
        members = np.eye(len(grouping.classes))[class_of]
        distances = held_out_distances(products, members, grouping.same, distance)
        found.append(share_right(nearest_class(distances, class_of), class_of))
    return np.concatenate(found)


def _share(part: Any, whole: Any) -> Floats:
    """``part / whole``, NaN where there is nothing."""
    over = np.asarray(whole, np.float64)
    nothing: Floats = np.full(over.shape, np.nan)
    return np.asarray(np.divide(part, over, out=nothing, where=over > 0))
