"""The task protocol of a sweep, and the STS, clustering and robustness tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling._exports import old_names
from nestling.arguments.constraints import Whole, check, checked
from nestling.arguments.formatting import type_of
from nestling.cut import CutRule, cut_each
from nestling.errors import ConfigError, DataError, require
from nestling.measure.tasks.classification import (
    HeadClassification,
    LinearProbe,
    NearestClassMean,
    NeighbourClassification,
)
from nestling.measure.tasks.metrics import check_labels, check_scores
from nestling.measure.tasks.retrieval import Retrieval
from nestling.measure.tasks.scores import RetentionScores, Scores, SpearmanScores, VMeasureScores
from nestling.vectors.prefix import prefix_pair_scores

__all__ = [
    "STS",
    "Clustering",
    "HeadClassification",
    "LinearProbe",
    "NearestClassMean",
    "NeighbourClassification",
    "Retrieval",
    "Robustness",
    "Task",
]

__getattr__ = old_names(__name__, {"check_task": "check_is_task"})


@runtime_checkable
class Task(Protocol):
    """Inputs to encode once, and a score for their vectors at every size; higher is better.

    ``nestling.testing.check_task`` checks a task of your own.

    Attributes:
        name: the name of the task in tables.
        needs: ``"vectors"`` if it is scored from full-size vectors, ``"answers"`` if it needs what the
            model outputs at every granularity (logits).
        stored: optional; the names of the inputs whose vectors are stored, so that a sweep over ``bits``
            holds them in codes. By default all: see :func:`stored_inputs`.
    """

    name: str
    needs: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, the main one first."""
        ...

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The inputs to encode, by name."""
        ...

    def with_inputs(self, inputs: Mapping[str, Any]) -> Task:
        """The same task on other inputs of the same names, such as their vectors."""
        ...

    def score(self, encoded: Mapping[str, NDArray[Any]], dims: Sequence[int], rule: CutRule) -> Scores:
        """Quality at every size.

        Args:
            encoded: by the names of ``inputs``: matrices ``Float[n, dim]``, or for a task that needs answers
                ``Float[sizes, n, outputs]``.
            dims: increasing sizes.
            rule: steps around a cut.
        """
        ...


@runtime_checkable
class ComparesWithFull(Task, Protocol):
    """A task that compares with the outputs at the full granularity."""

    def with_full(self, encoded: Mapping[str, NDArray[Any]], dim: int, rule: CutRule) -> Task:
        """The same task, comparing with these vectors.

        Args:
            encoded: the full-granularity vectors, by the names of ``inputs``.
            dim: its size.
            rule: steps around a cut.
        """
        ...


@runtime_checkable
class RanksStored(Task, Protocol):
    """A task that is scored by the nearest stored inputs of each query, by inner products after the rule.

    A sweep over ``bits`` finds those faster than by one search a precision.

    Attributes:
        k: how many are found.
        searched: the names of the queries and of the stored inputs.
    """

    k: int
    searched: tuple[str, str]

    def judge(self, found: Sequence[NDArray[np.int64]]) -> Scores:
        """Quality at every size, from the rows ``Int[queries, k]`` that were found, best first."""
        ...


def stored_inputs(task: Task) -> tuple[str, ...]:
    """The inputs whose vectors are stored, such as documents; the others, such as queries, stay floats."""
    return tuple(getattr(task, "stored", task.inputs))


def is_relative(task: Task) -> bool:
    """Whether quality is similarity to the full granularity, which can't be compared between models."""
    clean: Task | None = getattr(task, "clean", None)  # of a Robustness, which passes the full one on
    return isinstance(task, ComparesWithFull) if clean is None else is_relative(clean)


def check_is_task(task: object) -> None:
    """Raise unless ``task`` has the members of a task.

    Raises:
        ConfigError: for another kind of object.
    """
    if not all(hasattr(task, name) for name in ("metrics", "inputs")):
        raise ConfigError(
            f"a task is needed, such as Retrieval.from_pairs(pairs) or STS(first, second, scores), not "
            f"{type_of(task)}"
        )


def with_full(task: Task, encoded: Mapping[str, NDArray[Any]], dim: int, rule: CutRule) -> Task:
    """``task``, given the vectors at the full granularity if it compares with them."""
    return task.with_full(encoded, dim, rule) if isinstance(task, ComparesWithFull) else task


@dataclass(frozen=True, eq=False)
class STS:
    """Semantic textual similarity: do similarities of pairs rank as people's scores do (Spearman)?

    Args:
        first: inputs.
        second: the partner of each of ``first``, row by row.
        scores: ``Float[n]``; people's scores of each pair.

    Raises:
        DataError: for different lengths, fewer than two pairs, or scores that are not finite or constant.
    """

    first: Any
    second: Any
    scores: ArrayLike

    name = "sts"
    needs = "vectors"
    metrics = SpearmanScores.metrics

    def __post_init__(self) -> None:
        scores = check_scores(self.scores)
        lengths = [len(self.first), len(self.second), len(scores)]
        if len(set(lengths)) > 1 or lengths[0] < 2:
            raise DataError(
                "sts needs as many first as second inputs and scores, at least 2; got {}, {} and {}".format(
                    *lengths
                )
            )
        if scores.min() == scores.max():
            raise DataError(f"all scores are {scores[0]}; a rank correlation needs scores that vary")

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs to encode."""
        return {"first": self.first, "second": self.second}

    def with_inputs(self, inputs: Mapping[str, Any]) -> Self:
        """The same task on other inputs, such as their vectors."""
        return replace(self, **inputs)

    def score(
        self, encoded: Mapping[str, NDArray[Any]], dims: Sequence[int], rule: CutRule
    ) -> SpearmanScores:
        """Rank correlation at every size, from one pass over the coordinates."""
        return SpearmanScores(
            prefix_pair_scores(encoded["first"], encoded["second"], dims, rule), self.scores
        )


@dataclass(frozen=True, eq=False)
@checked(seed=Whole(0))
class Clustering:
    """Do clusters found by k-means agree with the classes (V-measure)?

    Args:
        x: inputs.
        labels: ``Int[n]``, their classes.
        num_clusters: the number of classes by default.
        seed: of k-means.

    Raises:
        DataError: for labels that are floats or not as many as inputs, or more clusters than inputs.
        MissingExtraError: if scikit-learn is not installed.
    """

    x: Any
    labels: ArrayLike
    num_clusters: int | None = None
    seed: int = 0

    name = "clustering"
    needs = "vectors"
    metrics = VMeasureScores.metrics

    def __post_init__(self) -> None:
        labels = check_labels(self.labels)
        if len(labels) != len(self.x):
            raise DataError(f"{len(labels)} labels were given for {len(self.x)} inputs")
        check("num_clusters", self.num_clusters, Whole(1, len(labels)) | None)

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs to encode."""
        return {"x": self.x}

    def with_inputs(self, inputs: Mapping[str, Any]) -> Self:
        """The same task on other inputs, such as their vectors."""
        return replace(self, **inputs)

    def score(
        self, encoded: Mapping[str, NDArray[Any]], dims: Sequence[int], rule: CutRule
    ) -> VMeasureScores:
        """V-measure of one clustering per size."""
        cluster = require("sklearn.cluster", "sklearn")
        labels = np.asarray(self.labels)
        count = self.num_clusters or len(np.unique(labels))
        means = cluster.KMeans(count, n_init=3, random_state=self.seed)
        found = [means.fit_predict(vectors) for vectors in cut_each(encoded["x"], dims, rule).values()]
        return VMeasureScores(np.stack(found), labels)


@dataclass(frozen=True, eq=False)
class Robustness:
    """Retention: the quality of a task on shifted inputs over that on clean ones.

    Args:
        clean: a task.
        shifted: the same kind of task on shifted inputs (noise, another source, another time).

    Raises:
        ConfigError: if the two do not measure the same.
    """

    clean: Task
    shifted: Task

    def __post_init__(self) -> None:
        if (self.clean.metrics, self.clean.needs) != (self.shifted.metrics, self.shifted.needs):
            raise ConfigError(
                f"the clean task measures {', '.join(self.clean.metrics)} of {self.clean.needs}, the shifted "
                f"one {', '.join(self.shifted.metrics)} of {self.shifted.needs}; give two of one kind"
            )

    @property
    def name(self) -> str:
        """The name of the task in tables."""
        return f"robustness of {self.clean.name}"

    @property
    def needs(self) -> str:
        """``needs`` of both tasks."""
        return self.clean.needs

    @property
    def metrics(self) -> tuple[str, ...]:
        """Retention first, then both qualities."""
        return RetentionScores.names(self.clean.metrics)

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs to encode."""
        parts = {"clean": self.clean, "shifted": self.shifted}
        return {f"{part} {name}": x for part, task in parts.items() for name, x in task.inputs.items()}

    @property
    def stored(self) -> tuple[str, ...]:
        """The stored inputs of both tasks."""
        parts = {"clean": self.clean, "shifted": self.shifted}
        return tuple(f"{part} {name}" for part, task in parts.items() for name in stored_inputs(task))

    def with_inputs(self, inputs: Mapping[str, Any]) -> Robustness:
        """The same task on other inputs, such as their vectors."""
        return Robustness(*(task.with_inputs(part) for task, part in self._split(inputs)))

    def with_full(self, encoded: Mapping[str, NDArray[Any]], dim: int, rule: CutRule) -> Robustness:
        """The same task, each part given the vectors at the full granularity if it compares with them."""
        return Robustness(*(with_full(task, part, dim, rule) for task, part in self._split(encoded)))

    def score(
        self, encoded: Mapping[str, NDArray[Any]], dims: Sequence[int], rule: CutRule
    ) -> RetentionScores:
        """Retention and both qualities at every size."""
        return RetentionScores(*(task.score(part, dims, rule) for task, part in self._split(encoded)))

    def _split(self, values: Mapping[str, Any]) -> list[tuple[Task, dict[str, Any]]]:
        return [
            (task, {name: values[f"{part} {name}"] for name in task.inputs})
            for part, task in (("clean", self.clean), ("shifted", self.shifted))
        ]
