"""Quality and cost of a thing at every granularity, from encoding each input once."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule
from nestling.errors import ConfigError, GranularityError
from nestling.granularity import Granularity, Nesting
from nestling.measure.bootstrap import Estimate, bootstrap
from nestling.measure.choice import Row
from nestling.measure.curve import Curve
from nestling.measure.encode import at_rest, encode_inputs, encode_one
from nestling.measure.machine import machine, today, versions
from nestling.measure.scores import Floats, Scores
from nestling.measure.tasks import Task, with_full
from nestling.progress import watched

_TIMINGS = 15


def sweep(
    thing: Any,
    task: Task,
    nesting: Nesting | None = None,
    *,
    rule: CutRule | None = None,
    seed: int = 0,
    name: str | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    batch_size: int = 256,
    latency: bool = False,
) -> Curve:
    """Quality of ``thing`` on ``task`` at every granularity, with intervals and costs.

    Each input is encoded once (over axes other than ``dim`` by one ``forward_each``); all sizes of an
    embedding are scored from running sums over its coordinates. The intervals resample examples, the
    same at all granularities.

    Args:
        thing: an elastic thing, or any callable (or object with ``encode``) from inputs to a matrix
            ``Float[n, dim]``, for which ``nesting`` is given.
        task: what it is for.
        nesting: the granularities to measure, those of the thing by default. Sizes on ``dim`` that the
            thing was not made for are measured by plain cutting.
        rule: what happens around the cut; by default the thing's own, or L2 normalisation after it.
        seed: draws the resamples, and stands in the rows.
        name: what the curve is called, by default the type of the thing.
        confidence: of the intervals.
        resamples: of the examples.
        batch_size: inputs encoded at a time, unless the thing has an ``encode`` of its own.
        latency: measure also the time of one use: one input encoded and, in retrieval, one search.

    Raises:
        ConfigError: for a thing that has no nesting where none is given, or that cannot do the task.
        GranularityError: for granularities that the thing does not have.
        DataError: for inputs that cannot be encoded or scored.

    >>> from nestling.measure.tasks import Retrieval
    >>> x = np.random.default_rng(0).normal(size=(50, 16))
    >>> task = Retrieval(x + 0.1, x, range(50))
    >>> sweep(lambda vectors: vectors, task, Nesting.parse("dim=2..16")).choose(keep=0.99)
    Granularity(dim=8)
    """
    own = getattr(thing, "nesting", None)
    nesting = nesting or own
    if nesting is None:
        raise ConfigError(
            f"{type(thing).__name__} has no nesting of its own; say which sizes to measure, as in "
            'nesting=Nesting.parse("dim=8..256")'
        )
    if rule is None:
        # What an elastic thing answers in full was prepared for the cut already.
        rule = CutRule(after=thing.rule.after) if hasattr(thing, "rule") else CutRule()
    plan = _Plan(thing, task, nesting, own, rule)
    with at_rest(thing):
        codes = encode_inputs(thing, task, plan.asked, batch_size)
        costs = [plan.cost(g, codes, latency) for g in watched(nesting, "measuring costs", "granularities")]
    scores = plan.score(codes)
    estimate = bootstrap(scores, full=len(nesting) - 1, confidence=confidence, resamples=resamples, seed=seed)
    return Curve(
        rows=_rows(nesting, task, estimate, costs, seed),
        name=name or str(getattr(thing, "__name__", type(thing).__name__)),
        task=task.name,
        examples=sum(scores.groups),
        confidence=confidence,
        resamples=resamples,
        versions=versions(),
        machine=machine(),
        date=today(),
    )


@dataclass(frozen=True)
class _Costs:
    vector_bytes: int
    flops: float | None
    latency_ms: float | None
    model_bytes: int | None


def _rows(
    nesting: Nesting, task: Task, estimate: Estimate, costs: Sequence[_Costs], seed: int
) -> tuple[Row, ...]:
    def figures(size: int, metric: int) -> dict[str, Any]:
        return {name: float(table[size, metric]) for name, table in vars(estimate).items()}

    return tuple(
        Row(g, metric, **figures(i, j), **asdict(cost), seed=seed)
        for i, (g, cost) in enumerate(zip(nesting, costs, strict=True))
        for j, metric in enumerate(task.metrics)
    )


@dataclass(frozen=True, eq=False)
class _Joined:
    """Scores of several groups of granularities as those of one nesting, resampled together."""

    parts: Sequence[Scores]
    order: Sequence[int]

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.parts[0].metrics

    @property
    def groups(self) -> tuple[int, ...]:
        return self.parts[0].groups

    def statistic(self, weights: Floats) -> Floats:
        joined = np.concatenate([part.statistic(weights) for part in self.parts], axis=1)
        return np.asarray(joined[:, self.order])


class _Plan:
    """Which granularities the thing is asked for, and which of those each measured one is cut from."""

    def __init__(self, thing: Any, task: Task, nesting: Nesting, own: Nesting | None, rule: CutRule) -> None:
        self.thing, self.task, self.nesting, self.own, self.rule = thing, task, nesting, own, rule
        if task.needs == "answers":
            if own is None:
                raise ConfigError(
                    f"{task.name} needs what a thing answers at each granularity, so it needs an elastic "
                    f"thing, not a plain {type(thing).__name__}"
                )
            self.sources: dict[Granularity, Granularity | None] = {g: own.resolve(g) for g in nesting}
        else:
            self.sources = {g: self._source(g) for g in nesting}
        self.asked = list(dict.fromkeys(self.sources.values()))

    def _source(self, granularity: Granularity) -> Granularity | None:
        """The granularity that is encoded; its vectors are cut to ``granularity``."""
        if self.own is None:
            if self.nesting.axes != ("dim",):
                raise GranularityError(
                    f"a plain callable can be cut on the axis dim alone, not on {self.nesting}"
                )
            return None
        others = granularity.replace(dim=None)
        members = [g for g in self.own if g.replace(dim=None) == others and g >= granularity]
        return members[-1] if members else self.own.resolve(granularity)

    def score(self, codes: Mapping[str, list[NDArray[Any]]]) -> Scores:
        """What the task finds at every granularity of the nesting."""
        if self.task.needs == "answers":
            answers = {name: np.stack(each) for name, each in codes.items()}
            return self.task.score(answers, range(len(self.nesting)), self.rule)
        cut_from: dict[Granularity | None, list[Granularity]] = defaultdict(list)
        for granularity, source in self.sources.items():
            cut_from[source].append(granularity)
        task, parts, measured = self._against_full(codes), [], []
        for place, source in enumerate(watched(self.asked, "scoring", "encodings")):
            matrices = {name: each[place] for name, each in codes.items()}
            width = next(iter(matrices.values())).shape[1]
            group = sorted(cut_from[source], key=lambda g: g.get("dim", width))
            parts.append(task.score(matrices, [g.get("dim", width) for g in group], self.rule))
            measured += group
        return _Joined(parts, [measured.index(g) for g in self.nesting])

    def _against_full(self, codes: Mapping[str, list[NDArray[Any]]]) -> Task:
        """The task, comparing with the full granularity of the nesting if it compares."""
        full = self.nesting.full
        place = self.asked.index(self.sources[full])
        matrices = {name: each[place] for name, each in codes.items()}
        width = next(iter(matrices.values())).shape[1]
        return with_full(self.task, matrices, full.get("dim", width), self.rule)

    def cost(
        self, granularity: Granularity, codes: Mapping[str, list[NDArray[Any]]], latency: bool
    ) -> _Costs:
        """What one use at ``granularity`` takes; one in between costs what the next larger one computes."""
        source = self.sources[granularity]
        first = {name: each[self.asked.index(source)] for name, each in codes.items()}
        width = next(iter(first.values())).shape[1]
        dim = granularity.get("dim", width)
        used = self._used(granularity)
        seconds = None
        if latency:
            seconds = _median_seconds(self._one_use(used, first, dim))
        if used is None or not hasattr(self.thing, "cost"):
            return _Costs(4 * dim, None, seconds and 1e3 * seconds, None)
        cost = self.thing.cost(used)
        vector_bytes = cost.output_bytes * dim // used.get("dim", dim)
        return _Costs(vector_bytes, cost.flops, seconds and 1e3 * seconds, cost.size_bytes or None)

    def _used(self, granularity: Granularity) -> Granularity | None:
        """The smallest granularity of the thing that covers the one measured."""
        if self.own is None:
            return None
        return next(g for g in self.own if g >= granularity)

    def _one_use(
        self, used: Granularity | None, vectors: Mapping[str, NDArray[Any]], dim: int
    ) -> Callable[[], object]:
        encode = encode_one(self.thing, next(iter(self.task.inputs.values())), used)
        answer = getattr(self.task, "answer_one", None)

        def use() -> None:
            encode()
            if answer is not None:
                answer(vectors, dim, self.rule)

        return use


def _median_seconds(use: Callable[[], object]) -> float:
    """Of several uses, after one that warms up."""
    use()
    seconds = []
    for _ in range(_TIMINGS):
        start = time.perf_counter()
        use()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
