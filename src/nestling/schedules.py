"""Schedules: the granularities that each training step uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np

from nestling.arguments.constraints import Whole, checked
from nestling.arguments.formatting import shown
from nestling.errors import ConfigError
from nestling.granularity import Granularity, Nesting

Draw: TypeAlias = dict[Granularity, float]
"""The granularities of one training step, each with the factor that keeps the expected loss the same."""

Reduction = Literal["sum", "mean"]


class Schedule(Protocol):
    """Chooses the granularities of each training step."""

    def draw(self, nesting: Nesting, generator: np.random.Generator) -> Draw:
        """Granularities, coarse to fine, each with 1 / (its probability of being sampled)."""
        ...


@dataclass(frozen=True)
class Every:
    """Every granularity in every step (MRL)."""

    def draw(self, nesting: Nesting, generator: np.random.Generator) -> Draw:
        """All of the nesting, each with factor 1."""
        return dict.fromkeys(nesting, 1.0)


@dataclass(frozen=True)
@checked(k=Whole(0))
class RandomSome:
    """The full granularity, and ``k`` others at random; ``k`` is at least 0."""

    k: int

    def draw(self, nesting: Nesting, generator: np.random.Generator) -> Draw:
        """The full one with factor 1, the others with (number of others) / k."""
        return _draw_some(nesting, self.k, frozenset({nesting.full}), generator)


@dataclass(frozen=True)
@checked(k=Whole(0))
class Sandwich:
    """The smallest, the largest and ``k`` others at random (sandwich rule of slimmable networks)."""

    k: int

    def draw(self, nesting: Nesting, generator: np.random.Generator) -> Draw:
        """The two ends with factor 1, the others with (number between) / k."""
        return _draw_some(nesting, self.k, frozenset({nesting[0], nesting.full}), generator)


@dataclass(frozen=True)
class RandomPrefix:
    """One granularity at random, all equally likely, as in MQT."""

    def draw(self, nesting: Nesting, generator: np.random.Generator) -> Draw:
        """One granularity, with factor ``len(nesting)``."""
        return {nesting[int(generator.integers(len(nesting)))]: float(len(nesting))}


@dataclass(frozen=True)
class Cross:
    """The full granularity, a random smaller size on each axis, and all these sizes at once (2DMSE).

    All factors are 1, as published, whatever the probability. On one axis it is the full granularity and
    one other.

    Source: 2DMSE, arXiv 2402.14776, its first public implementation.
    """

    def draw(self, nesting: Nesting, generator: np.random.Generator) -> Draw:
        """One, two or four granularities with factor 1."""
        full, some = nesting.full, {}
        for axis in nesting.axes:
            below = [size for size in nesting.sizes(axis) if size < full[axis]]
            if below:
                some[axis] = below[int(generator.integers(len(below)))]
        crossed = [full, *(full.replace(**{axis: size}) for axis, size in some.items()), full.replace(**some)]
        wanted = {nesting.resolve(each) for each in crossed}
        return {g: 1.0 for g in nesting if g in wanted}


@dataclass
class Draws:
    """The granularities of one training step after another, with their weights in the total.

    Sampled from seed and step, so that all processes, and a resumed run, sample the same.

    Args:
        nesting: the granularities.
        weights: the importance of each.
        schedule: chooses the granularities of a step.
        reduction: ``"sum"``, or ``"mean"``, which divides by the sum of the weights.
        seed: of the schedule.
        steps: number of steps drawn; state to be saved.
    """

    nesting: Nesting
    weights: Mapping[Granularity, float]
    schedule: Schedule
    reduction: Reduction
    seed: int
    steps: int = 0

    def __post_init__(self) -> None:
        if not callable(getattr(self.schedule, "draw", None)):
            raise ConfigError(
                f"schedule={shown(self.schedule)} has no draw(nesting, generator); give one of "
                "nestling.schedules, such as Every() or RandomPrefix()"
            )

    def every(self) -> Draw:
        """All granularities, as outside of training."""
        return self._weighted(dict.fromkeys(self.nesting, 1.0))

    def next(self, nesting: Nesting | None = None) -> Draw:
        """The granularities of the next step, from the whole nesting or a part of it."""
        generator = np.random.default_rng([self.seed, self.steps])
        self.steps += 1
        allowed = nesting or self.nesting
        draw = self.schedule.draw(allowed, generator)
        for g in draw:
            if g not in allowed:
                raise ConfigError(
                    f"the schedule {type(self.schedule).__name__} drew {g}, which is outside the nesting "
                    f"{allowed}; draw from the nesting that draw() is given"
                )
        if not draw:
            raise ConfigError(
                f"the schedule {type(self.schedule).__name__} drew no granularity; draw at least one"
            )
        return self._weighted(draw)

    def _weighted(self, draw: Draw) -> Draw:
        scale = 1.0 if self.reduction == "sum" else 1.0 / sum(self.weights.values())
        return {g: factor * self.weights[g] * scale for g, factor in draw.items()}


def _draw_some(
    nesting: Nesting, k: int, kept: frozenset[Granularity], generator: np.random.Generator
) -> Draw:
    others = [g for g in nesting if g not in kept]
    k = min(k, len(others))
    picked = {others[i] for i in generator.choice(len(others), size=k, replace=False)} if k else set()
    return {g: 1.0 if g in kept else len(others) / k for g in nesting if g in kept or g in picked}
