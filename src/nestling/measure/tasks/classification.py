"""Classification tasks: by a head, nearest neighbours, a linear probe or class means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.constraints import Whole, checked
from nestling.cut import CutRule, cut, cut_each, name_rows
from nestling.errors import ConfigError, DataError, require
from nestling.measure.tasks.metrics import check_labels
from nestling.measure.tasks.scores import MeanScores
from nestling.search.exact.neighbours import Metric, check_k, nearest_each

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HeadClassification:
    """Accuracy of a model that outputs logits, such as a nested head.

    Args:
        x: inputs of the model.
        labels: ``Int[n]``, columns of the logits.

    Raises:
        DataError: for labels that are not whole numbers of at least 0, or not as many as inputs.
    """

    x: Any
    labels: ArrayLike

    name = "classification by the head"
    needs = "answers"
    metrics = ("accuracy",)

    def __post_init__(self) -> None:
        labels = check_labels(self.labels)
        if labels.dtype.kind not in "iu" or labels.min() < 0:
            raise DataError("labels of a head are columns of its logits: whole numbers from 0")
        _check_lengths(self.x, labels)
        object.__setattr__(self, "labels", labels)

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs to encode."""
        return {"x": self.x}

    def with_inputs(self, inputs: Mapping[str, Any]) -> Self:
        """The same task on other inputs."""
        return replace(self, **inputs)

    def score(self, encoded: Mapping[str, NDArray[Any]], dims: Sequence[int], rule: CutRule) -> MeanScores:
        """Whether logits ``Float[sizes, n, classes]`` are right, one entry per size."""
        logits, labels = encoded["x"], np.asarray(self.labels)
        if labels.max() >= logits.shape[-1]:
            raise DataError(f"label {labels.max()} is none of the {logits.shape[-1]} classes of the logits")
        return MeanScores((logits.argmax(-1) == labels)[:, :, None], self.metrics)


@dataclass(frozen=True, eq=False)
class _Labelled:
    """Labelled inputs to learn from and others to name, which all tasks below share.

    Args:
        train: inputs to learn from.
        train_labels: ``Int[train]``; whole numbers or texts.
        test: inputs to name.
        test_labels: ``Int[test]``, each of them among ``train_labels``.
    """

    train: Any
    train_labels: ArrayLike
    test: Any
    test_labels: ArrayLike

    needs = "vectors"

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            labels = check_labels(getattr(self, f"{part}_labels"), f"{part} labels")
            _check_lengths(getattr(self, part), labels, part)
        strange = ~np.isin(np.asarray(self.test_labels), np.asarray(self.train_labels))
        if strange.any():
            raise DataError(
                f"the test labels of {name_rows(np.flatnonzero(strange))} are none of the training labels"
            )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics."""
        return ("accuracy",)

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs to encode."""
        return {"train": self.train, "test": self.test}

    def with_inputs(self, inputs: Mapping[str, Any]) -> Self:
        """The same task on other inputs, such as their vectors."""
        return replace(self, **inputs)

    def _codes(self) -> tuple[Ints, Ints]:
        """Training and test labels as places among the sorted classes."""
        classes, codes = np.unique(np.asarray(self.train_labels), return_inverse=True)
        return codes, np.searchsorted(classes, np.asarray(self.test_labels))


@dataclass(frozen=True, eq=False)
@checked(k=Whole(1))
class NeighbourClassification(_Labelled):
    """Accuracy of the most frequent class among the ``k`` nearest training rows (1-NN by default).

    Of equally frequent classes that of the nearest wins.

    Args:
        train: inputs to learn from.
        train_labels: ``Int[train]``; whole numbers or texts.
        test: inputs to name.
        test_labels: ``Int[test]``, each of them among ``train_labels``.
        k: neighbours that vote.

    Raises:
        DataError: for labels that are floats or do not fit, or ``k`` above the training rows.
    """

    k: int = 1

    name = "classification by neighbours"
    stored = ("train",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_k(self.k, len(self.train), "training rows")

    def score(self, encoded: Mapping[str, NDArray[Any]], dims: Sequence[int], rule: CutRule) -> MeanScores:
        """Whether each row is classified right, from one pass over the coordinates."""
        train, test = self._codes()
        metric: Metric = "dot" if rule.after == "l2" else "euclidean"
        found = nearest_each(encoded["test"], encoded["train"], dims, self.k, rule=rule, metric=metric)
        named = [_vote(train[each.indices]) for each in found.values()]
        return MeanScores((np.stack(named) == test)[:, :, None], self.metrics)


def _vote(codes: Ints) -> Ints:
    """The most frequent code of each row ``Int[n, k]``; of equally frequent ones the first."""
    votes = np.stack([(codes == codes[:, [place]]).sum(axis=1) for place in range(codes.shape[1])], axis=1)
    return np.asarray(codes[np.arange(len(codes)), votes.argmax(axis=1)])


@dataclass(frozen=True, eq=False)
@checked(max_iter=Whole(1))
class LinearProbe(_Labelled):
    """Accuracy of a logistic regression on the vectors of every size.

    Args:
        train: inputs to learn from.
        train_labels: ``Int[train]``; whole numbers or texts, of at least two classes.
        test: inputs to name.
        test_labels: ``Int[test]``, each of them among ``train_labels``.
        max_iter: steps of the solver.

    Raises:
        DataError: for labels that are floats or do not fit.
        MissingExtraError: if scikit-learn is not installed.
    """

    max_iter: int = 1000

    name = "linear probe"

    def score(self, encoded: Mapping[str, NDArray[Any]], dims: Sequence[int], rule: CutRule) -> MeanScores:
        """Whether each row is classified right, by one probe per size."""
        linear_model = require("sklearn.linear_model", "sklearn")
        train, test = (cut_each(encoded[part], dims, rule) for part in ("train", "test"))
        right = []
        for dim in dims:
            probe = linear_model.LogisticRegression(max_iter=self.max_iter)
            probe.fit(train[dim], np.asarray(self.train_labels))
            right.append(probe.predict(test[dim]) == np.asarray(self.test_labels))
        return MeanScores(np.stack(right)[:, :, None], self.metrics)


@dataclass(frozen=True, eq=False)
@checked(shots=Whole(1) | None, seed=Whole(0))
class NearestClassMean(_Labelled):
    """Accuracy of the class whose mean vector is nearest, as used for few-shot and long-tailed classes.

    Under ``l2`` means of unit vectors are compared by cosine, else by distance.

    Args:
        train: inputs to learn from.
        train_labels: ``Int[train]``; whole numbers or texts.
        test: inputs to name.
        test_labels: ``Int[test]``, each of them among ``train_labels``.
        shots: training rows to take from each class at random; all of them by default.
        seed: draws the shots.
        tail: measure also the classes with many (``head``), some (``medium``) and few (``tail``) training
            rows by themselves: the tail has at most ``tail[0]`` of them, the head more than ``tail[1]``,
            usually (20, 100).

    Raises:
        DataError: for labels that are floats or do not fit, or a class with fewer rows than ``shots``.
        ConfigError: for borders of the tail that are not increasing.

    Source: MRL, arXiv 2205.13147, few-shot recognition; borders of the tail as in ImageNet-LT.
    """

    shots: int | None = None
    seed: int = 0
    tail: tuple[int, int] | None = None

    name = "nearest class mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tail is not None and not 1 <= self.tail[0] < self.tail[1]:
            raise ConfigError(f"tail={self.tail} must be two increasing counts, such as (20, 100)")
        classes, counts = np.unique(np.asarray(self.train_labels), return_counts=True)
        few = np.flatnonzero(counts < (1 if self.shots is None else self.shots))
        if self.shots is not None and len(few):
            raise DataError(
                f"shots={self.shots} cannot be taken from every class; class {classes[few[0]]} has "
                f"{counts[few[0]]} training rows"
            )

    @property
    def metrics(self) -> tuple[str, ...]:
        """Accuracy, and by the frequency of the class where that is asked for."""
        parts = ("head", "medium", "tail") if self.tail else ()
        return ("accuracy", *(f"{part} accuracy" for part in parts))

    def score(self, encoded: Mapping[str, NDArray[Any]], dims: Sequence[int], rule: CutRule) -> MeanScores:
        """Whether each row is classified right, at every size."""
        codes, asked = self._codes()
        rows = self._shots(codes)
        train = cut_each(np.asarray(encoded["train"][rows], np.float32), dims, rule)
        test = cut_each(np.asarray(encoded["test"], np.float32), dims, rule)
        right = [_nearest_mean(train[dim], codes[rows], test[dim], rule) == asked for dim in dims]
        values = np.stack(right).astype(np.float64)[:, :, None]
        counted = np.where(self._parts(codes)[asked], 1.0, np.nan)
        return MeanScores(values * counted, self.metrics)

    def _shots(self, codes: Ints) -> Ints:
        """The training rows to learn from, those of one class side by side."""
        shuffled = np.random.default_rng(self.seed).permutation(len(codes))
        order = shuffled[np.argsort(codes[shuffled], kind="stable")]
        if self.shots is None:
            return order
        ordered = codes[order]
        return np.asarray(order[np.arange(len(order)) - np.searchsorted(ordered, ordered) < self.shots])

    def _parts(self, codes: Ints) -> NDArray[np.bool_]:
        """The classes that count in each metric, ``Bool[classes, metrics]``."""
        counts = np.bincount(codes)
        parts = [np.ones(len(counts), np.bool_)]
        if self.tail:
            few, many = self.tail
            parts += [counts > many, (counts > few) & (counts <= many), counts <= few]
        return np.stack(parts, axis=1)


def _nearest_mean(train: NDArray[np.float32], codes: Ints, test: NDArray[np.float32], rule: CutRule) -> Ints:
    """Place of the nearest mean; rows of one class are adjacent in ``train``."""
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    means = np.add.reduceat(train, starts, axis=0) / np.bincount(codes)[:, None].astype(np.float32)
    if rule.after == "l2":
        return np.asarray((test @ cut(means, means.shape[1]).T).argmax(axis=1))
    return np.asarray((test @ means.T - (means**2).sum(axis=1) / 2).argmax(axis=1))


def _check_lengths(inputs: Any, labels: NDArray[Any], part: str = "inputs") -> None:
    if len(inputs) != len(labels):
        raise DataError(f"{len(labels)} labels were given for {len(inputs)} {part} rows")
