"""Every built-in task keeps every law, and each law finds the task that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from nestling import measure
from nestling.cut import CutRule, cut
from nestling.errors import DataError
from nestling.measure import (
    STS,
    Clustering,
    Fidelity,
    HeadClassification,
    LinearProbe,
    NearestClassMean,
    NeighbourClassification,
    Retrieval,
    Robustness,
)
from nestling.measure.tasks.scores import MeanScores
from nestling.testing import TASK_LAWS, LawError, TaskExample, check_task

LABELS = np.repeat(np.arange(4), 8)
# Every prefix of four entries tells the classes apart.
CLASSES = np.tile(np.eye(4), (1, 4))[LABELS] + 0.01 * np.random.default_rng(0).normal(size=(32, 16))
TEST, TEST_LABELS = CLASSES[::2].copy(), LABELS[::2]
POINTS = np.random.default_rng(1).normal(size=(32, 16))
ANGLES = np.linspace(0.1, 3, 32)  # the cosine of each pair falls along the rows
FIRST = np.tile([[1.0, 0.0]], (32, 8))
SECOND = np.tile(np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1), (1, 8))


def by_neighbours(test: slice) -> NeighbourClassification:
    return NeighbourClassification(CLASSES, LABELS, CLASSES[test], LABELS[test])


BUILT_IN = {
    "retrieval": TaskExample(Retrieval(POINTS, POINTS, range(32))),
    "retrieval by labels": TaskExample(
        Retrieval.from_labels(CLASSES, LABELS, CLASSES.copy(), LABELS, k=8, measures=("map", "ndcg", "top1"))
    ),
    "sts": TaskExample(STS(FIRST, SECOND, -ANGLES), limits=(-1, 1)),
    "clustering": TaskExample(Clustering(CLASSES, LABELS)),
    "head": TaskExample(HeadClassification(np.eye(4)[LABELS], LABELS)),
    "neighbours": TaskExample(NeighbourClassification(CLASSES, LABELS, TEST, TEST_LABELS, k=3)),
    "linear probe": TaskExample(LinearProbe(CLASSES, LABELS, TEST, TEST_LABELS)),
    "class means": TaskExample(NearestClassMean(CLASSES, LABELS, TEST, TEST_LABELS)),
    "class means of three": TaskExample(
        NearestClassMean(CLASSES, LABELS, TEST, TEST_LABELS, shots=3, seed=1)
    ),
    "fidelity": TaskExample(Fidelity(POINTS), limits=(-1, 1)),
    "fidelity to a reference": TaskExample(Fidelity(POINTS, POINTS.copy(), k=None), limits=(-1, 1)),
    "robustness": TaskExample(
        Robustness(by_neighbours(slice(0, None, 2)), by_neighbours(slice(1, None, 2))),
        limits=(0, np.inf),
        best=1,
    ),
}


@pytest.mark.parametrize("law", TASK_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_task_keeps_the_law(name: str, law: Callable[[TaskExample], None]) -> None:
    law(BUILT_IN[name])


def test_every_built_in_task_is_checked() -> None:
    offered = (getattr(measure, name) for name in measure.__all__)
    tasks = {each for each in offered if hasattr(each, "with_inputs") and each is not measure.Task}
    assert tasks == {type(example.task) for example in BUILT_IN.values()}


@dataclass(frozen=True)
class Honest:
    """Are partners nearer than strangers? The share of rows whose partner is the nearest."""

    left: Any
    right: Any

    name = "partners"
    needs = "vectors"
    metrics: tuple[str, ...] = ("found",)

    def __post_init__(self) -> None:
        if len(self.left) != len(self.right) or not len(self.left):
            raise DataError(f"{len(self.left)} left inputs do not belong to {len(self.right)} right ones")

    @property
    def inputs(self) -> dict[str, Any]:
        return {"left": self.left, "right": self.right}

    def with_inputs(self, inputs: Mapping[str, Any]) -> Honest:
        return replace(self, **inputs)

    def score(self, encoded: Mapping[str, Any], dims: Sequence[int], rule: CutRule) -> MeanScores:
        return MeanScores(
            np.stack([self.found(encoded, dim, rule) for dim in dims])[:, :, None], self.metrics
        )

    def found(self, encoded: Mapping[str, Any], dim: int, rule: CutRule) -> Any:
        left, right = (cut(encoded[name], dim, rule) for name in ("left", "right"))
        if np.isnan(left).any() or np.isnan(right).any():
            raise DataError("the vectors hold NaN")
        distances = np.linalg.norm(left[:, None] - right[None], axis=2)
        return distances.argmin(axis=1) == np.arange(len(left))


class WithoutInputs:
    name, needs, metrics = "nothing", "vectors", ("found",)


class NeedsMagic(Honest):
    needs = "magic"


class NamesOthers(Honest):
    def score(self, encoded: Mapping[str, Any], dims: Sequence[int], rule: CutRule) -> MeanScores:
        return MeanScores(super().score(encoded, dims, rule).values, ["share"])


class OneSize(Honest):
    def score(self, encoded: Mapping[str, Any], dims: Sequence[int], rule: CutRule) -> MeanScores:
        return super().score(encoded, dims[-1:], rule)


class Percent(Honest):
    def found(self, encoded: Mapping[str, Any], dim: int, rule: CutRule) -> Any:
        return 100.0 * super().found(encoded, dim, rule)


class LowerIsBetter(Honest):
    def found(self, encoded: Mapping[str, Any], dim: int, rule: CutRule) -> Any:
        return ~super().found(encoded, dim, rule)


class SameForAll(Honest):
    def found(self, encoded: Mapping[str, Any], dim: int, rule: CutRule) -> Any:
        return super().found(encoded, dim, rule) | True


class CutsOnce(Honest):
    def found(self, encoded: Mapping[str, Any], dim: int, rule: CutRule) -> Any:
        whole = {name: cut(x, x.shape[1], rule) for name, x in encoded.items()}
        return super().found(whole, dim, CutRule(after="none"))


class LooksAtOthers(Honest):
    def score(self, encoded: Mapping[str, Any], dims: Sequence[int], rule: CutRule) -> MeanScores:
        return super().score(encoded, [max(dims)] * len(dims), rule)


class AlwaysCosines(Honest):
    def found(self, encoded: Mapping[str, Any], dim: int, rule: CutRule) -> Any:
        return super().found(encoded, dim, CutRule())


class NeverCosines(Honest):
    def found(self, encoded: Mapping[str, Any], dim: int, rule: CutRule) -> Any:
        return super().found(encoded, dim, CutRule(after="none"))


class SharesTheMean(Honest):
    def found(self, encoded: Mapping[str, Any], dim: int, rule: CutRule) -> Any:
        found = super().found(encoded, dim, rule)
        return np.full(len(found), found.mean())


class _Sums(MeanScores):
    def statistic(self, weights: Any) -> Any:
        return super().statistic(weights) * weights.sum(axis=1)[:, None, None] / self.groups[0]


class NotNormalised(Honest):
    def score(self, encoded: Mapping[str, Any], dims: Sequence[int], rule: CutRule) -> MeanScores:
        return _Sums(super().score(encoded, dims, rule).values, self.metrics)


class _Pooled(MeanScores):
    def statistic(self, weights: Any) -> Any:
        return np.repeat(super().statistic(weights.mean(axis=0, keepdims=True)), len(weights), axis=0)


class MixesResamples(Honest):
    def score(self, encoded: Mapping[str, Any], dims: Sequence[int], rule: CutRule) -> MeanScores:
        return _Pooled(super().score(encoded, dims, rule).values, self.metrics)


class KeepsInputs(Honest):
    def with_inputs(self, inputs: Mapping[str, Any]) -> Honest:
        return replace(self, left=inputs["left"])


class ChangesItself(Honest):
    def with_inputs(self, inputs: Mapping[str, Any]) -> Honest:
        self.left[:] = inputs["left"]
        return super().with_inputs(inputs)


class TakesAnyLength(Honest):
    def __post_init__(self) -> None:
        pass


class TakesNaN(Honest):
    def found(self, encoded: Mapping[str, Any], dim: int, rule: CutRule) -> Any:
        return super().found({name: np.nan_to_num(x) for name, x in encoded.items()}, dim, rule)


class RollsDice(Honest):
    def found(self, encoded: Mapping[str, Any], dim: int, rule: CutRule) -> Any:
        np.random.rand()
        return super().found(encoded, dim, rule)


class Flickers(Honest):
    rng = np.random.default_rng(0)

    def found(self, encoded: Mapping[str, Any], dim: int, rule: CutRule) -> Any:
        return super().found(encoded, dim, rule) * self.rng.uniform(0.9, 1)


class ChangesVectors(Honest):
    def found(self, encoded: Mapping[str, Any], dim: int, rule: CutRule) -> Any:
        found = super().found(encoded, dim, rule)
        encoded["left"][0] += 1e-9
        return found


def test_an_honest_task_passes() -> None:
    check_task(Honest(POINTS, POINTS.copy()))
    check_task(Honest(POINTS, POINTS.copy()), dims=[3, 5])


@pytest.mark.parametrize(
    ("kind", "law", "message"),
    [
        (NeedsMagic, "protocol", "not 'magic'"),
        (NamesOthers, "protocol", "its scores \\('share',\\)"),
        (OneSize, "protocol", r"have \(2, 3, 1\)"),
        (Percent, "limits", "found is 100 at dim="),
        (LowerIsBetter, "perfection", "found of perfect vectors is 0, not 1"),
        (SameForAll, "perfection", "higher must be better"),
        (CutsOnce, "sizes", "cut by hand, dim="),
        (LooksAtOthers, "sizes", "scored alone, dim="),
        (AlwaysCosines, "lengths", "score the same under the cut alone"),
        (NeverCosines, "lengths", "vectors of other lengths under l2"),
        (SharesTheMean, "resampling", "found is 0.[0-9]+ in every resample"),
        (NotNormalised, "resampling", "weights that are doubled"),
        (MixesResamples, "resampling", "a resample alone"),
        (KeepsInputs, "inputs", "does not take 'right'"),
        (ChangesItself, "inputs", "changes 'left'"),
        (TakesAnyLength, "refusal", "left with a row too few are accepted"),
        (TakesNaN, "refusal", "left with NaN are accepted"),
        (RollsDice, "innocence", "global random state"),
        (Flickers, "innocence", "different results"),
        (ChangesVectors, "innocence", "vectors were changed"),
    ],
)
def test_a_broken_task_is_found_by_its_law(kind: type[Honest], law: str, message: str) -> None:
    (broken,) = [each for each in TASK_LAWS if each.__name__ == law]
    with pytest.raises(LawError, match=f"^{law}: .*{message}"):
        broken(TaskExample(kind(POINTS.copy(), POINTS.copy())))
    with pytest.raises(LawError):
        check_task(kind(POINTS.copy(), POINTS.copy()))


def test_what_is_missing_is_named() -> None:
    with pytest.raises(LawError, match="it lacks inputs, with_inputs, score"):
        check_task(WithoutInputs())


def test_metrics_are_names_that_differ() -> None:
    with pytest.raises(LawError, match=r"^protocol: metrics must be different names"):
        check_task(Honest(POINTS, POINTS, metrics=("found", "found")))
