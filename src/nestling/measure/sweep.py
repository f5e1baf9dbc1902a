"""Quality and cost at every granularity, with each input encoded once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Real, Whole, checked
from nestling.cut import CutRule
from nestling.elastic import Origin, origin_of
from nestling.errors import ConfigError
from nestling.gain import Gain
from nestling.granularity import AnyNesting, Granularity, Nesting
from nestling.measure.bootstrap import Estimate, Resampled
from nestling.measure.curve.choice import Row
from nestling.measure.curve.curve import Curve
from nestling.measure.curve.provenance import identity
from nestling.measure.encode import at_rest, encode_inputs, encode_one, encode_task
from nestling.measure.machine import machine, today, versions
from nestling.measure.tasks.scores import Floats, Scores
from nestling.measure.tasks.tasks import Task, check_is_task, is_relative, with_full
from nestling.process.progress import watched
from nestling.process.timing import median_ms

_TIMINGS = 15
_TRUNCATION = "truncation"


@checked(seed=Whole(0), confidence=Real(above=0, below=1), resamples=Whole(1), batch_size=Whole(1))
def sweep(
    thing: Any,
    task: Task,
    nesting: AnyNesting | None = None,
    *,
    rule: CutRule | None = None,
    seed: int = 0,
    name: str | None = None,
    source: str = "",
    confidence: float = 0.95,
    resamples: int = 1000,
    batch_size: int = 256,
    latency: bool = False,
    truncation: bool = True,
) -> Curve:
    """Quality of ``thing`` on ``task`` at every granularity, with intervals and costs.

    A trained model is compared with the plain truncation of its starting point,
    where that is known: the encoder under an adapter, the vectors under a map, the model that was
    trained whole if it can still be opened. ``Curve.gains`` holds the differences on the same examples, and
    ``Curve.verdict`` names the sizes at which training pays.

    Each input is encoded once (over axes other than ``dim`` by one ``forward_each``); all sizes of an
    embedding are scored from running sums over its coordinates. The intervals resample examples, the
    same at all granularities.

    Args:
        thing: an elastic model, or any callable (or object with ``encode``) from inputs to a matrix
            ``Float[n, dim]``, for which ``nesting`` is given.
        task: the evaluation task.
        nesting: the granularities to measure, or their text; those of the model by default. Sizes on
            ``dim`` that the model was not made for are measured by plain cutting.
        rule: what happens around the cut; by default the model's own, or L2 normalisation after it.
        seed: draws the resamples; recorded in the rows.
        name: the name of the curve, by default the type of ``thing``.
        source: the name of the data, such as their file; shown in reports.
        confidence: of the intervals.
        resamples: of the examples.
        batch_size: inputs encoded at a time, unless the model has an ``encode`` of its own.
        latency: measure also the time of one use: one input encoded and, in retrieval, one search.
        truncation: measure plain truncation too. A model that was trained whole then encodes twice.

    Raises:
        ConfigError: for a model that has no nesting where none is given, or that cannot do the task.
        GranularityError: for granularities that the model does not have.
        DataError: for inputs that cannot be encoded or scored.

    >>> from nestling.measure.tasks.tasks import Retrieval
    >>> x = np.random.default_rng(0).normal(size=(50, 16))
    >>> task = Retrieval(x + 0.1, x, range(50))
    >>> sweep(lambda vectors: vectors, task, "dim=2..16").choose(keep=0.99)
    Granularity(dim=8)
    """
    plan = _Plan.read(thing, task, nesting, rule)
    how = _Settings(
        seed,
        confidence,
        resamples,
        batch_size,
        latency,
        source,
    )
    name = name or str(getattr(thing, "__name__", type(thing).__name__))
    compares = truncation and task.needs == "vectors" and not is_relative(task)
    origin = origin_of(thing) if compares else Origin()
    if origin.thing is None:
        return replace(_measured(plan, how, name)[0], note=origin.note)
    codes = None
    if origin.lift is None:
        plain, sizes = (origin.thing, task), getattr(origin.thing, "nesting", None)
    else:
        encoded = encode_task(origin.thing, task)
        codes = {part: [origin.lift(vectors)] for part, vectors in encoded.inputs.items()}
        plain, sizes = (_as_given, encoded), None
    curve, drawn = _measured(plan, how, name, codes)
    both = _both(plan.nesting, sizes, plain[1])
    if not both:
        return curve
    other, other_drawn = _measured(_Plan(*plain, Nesting(both), sizes, plan.rule), how, _TRUNCATION)
    return _with_truncation(curve, drawn, other, other_drawn)


def _as_given(vectors: Any) -> Any:
    return vectors


def _both(nesting: Nesting, own: Nesting | None, task: Task) -> tuple[Granularity, ...]:
    """The granularities of ``nesting`` to which the starting point of training can be cut."""
    if own is not None:
        return tuple(g for g in nesting if any(set(g) == set(other) and g <= other for other in own))
    width = min(np.shape(x)[1] for x in task.inputs.values())
    return tuple(g for g in nesting if set(g) == {"dim"} and g["dim"] <= width)


@dataclass(frozen=True)
class _Settings:
    seed: int
    confidence: float
    resamples: int
    batch_size: int
    latency: bool
    source: str


def _measured(
    plan: _Plan, how: _Settings, name: str, codes: Mapping[str, list[NDArray[Any]]] | None = None
) -> tuple[Curve, Resampled]:
    """The curve of a planned sweep, and its bootstrap resamples."""
    thing, task, nesting = plan.thing, plan.task, plan.nesting
    with at_rest(thing):
        codes = codes or encode_inputs(thing, task, plan.asked, how.batch_size)
        costs = [
            plan.cost(g, codes, how.latency) for g in watched(nesting, "measuring costs", "granularities")
        ]
    scores = plan.score(codes)
    drawn = Resampled.of(scores, how.resamples, how.seed)
    curve = Curve(
        rows=_rows(nesting, task, drawn.estimate(len(nesting) - 1, how.confidence), costs, how.seed),
        name=name,
        task=task.name,
        examples=sum(scores.groups),
        confidence=how.confidence,
        resamples=how.resamples,
        versions=versions(),
        machine=machine(),
        date=today(),
        data=identity(task),
        source=how.source,
        rule=getattr(thing, "rule", plan.rule).words,
    )
    return curve, drawn


def _with_truncation(curve: Curve, drawn: Resampled, plain: Curve, plain_drawn: Resampled) -> Curve:
    """The curve with plain truncation beside it, and the gain over that on the same examples."""
    both = [g for g in curve.nesting if g in plain.nesting]
    places = [[one.nesting.index(g) for g in both] for one in (curve, plain)]
    found = drawn.at(places[0]).minus(plain_drawn.at(places[1]), curve.confidence)
    gains = tuple(
        Gain(g, metric, *(float(table[i, j]) for table in found))
        for i, g in enumerate(both)
        for j, metric in enumerate(curve.metrics)
    )
    return replace(curve, truncation=plain, gains=gains)


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
    """The granularities to encode, and which of them each measured one is cut from."""

    @classmethod
    def read(cls, thing: Any, task: Task, given: AnyNesting | None, rule: CutRule | None) -> Self:
        """The plan of a sweep, from its arguments."""
        check_is_task(task)
        own = getattr(thing, "nesting", None)
        wanted = own if given is None else Nesting.of(given)
        if wanted is None:
            raise ConfigError(
                f"{type(thing).__name__} has no nesting of its own; give the sizes to measure, such as "
                'nesting="dim=8..256"'
            )
        if rule is None:
            # The full output of an elastic model has been prepared for the cut already.
            rule = CutRule(after=thing.rule.after) if hasattr(thing, "rule") else CutRule()
        return cls(thing, task, wanted, own, rule)

    def __init__(self, thing: Any, task: Task, nesting: Nesting, own: Nesting | None, rule: CutRule) -> None:
        self.thing, self.task, self.nesting, self.own, self.rule = thing, task, nesting, own, rule
        if task.needs == "answers":
            if own is None:
                raise ConfigError(
                    f"{task.name} needs predictions at each granularity; pass an elastic model, got "
                    f"{type(thing).__name__}"
                )
            self.sources: dict[Granularity, Granularity | None] = {g: own.resolve(g) for g in nesting}
        else:
            self.sources = {g: self._source(g) for g in nesting}
        self.asked = list(dict.fromkeys(self.sources.values()))

    def _source(self, granularity: Granularity) -> Granularity | None:
        """The granularity that is encoded; its vectors are cut to ``granularity``."""
        if self.own is None:
            self.nesting.within("a plain callable", dim=None)
            return None
        members = [g for g in self.own if g.rest == granularity.rest and g >= granularity]
        return members[-1] if members else self.own.resolve(granularity)

    def score(self, codes: Mapping[str, list[NDArray[Any]]]) -> Scores:
        """The scores of the task at every granularity of the nesting."""
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
        """The cost of one use at ``granularity``; one between two sizes costs as the larger."""
        source = self.sources[granularity]
        first = {name: each[self.asked.index(source)] for name, each in codes.items()}
        width = next(iter(first.values())).shape[1]
        dim = granularity.get("dim", width)
        used = self._used(granularity)
        latency_ms = None
        if latency:
            use = self._one_use(used, first, dim)
            use()  # warms up
            latency_ms = median_ms(repeat(use, _TIMINGS))
        if used is None or not hasattr(self.thing, "cost"):
            return _Costs(4 * dim, None, latency_ms, None)
        cost = self.thing.cost(used)
        vector_bytes = cost.output_bytes * dim // used.get("dim", dim)
        return _Costs(vector_bytes, cost.flops, latency_ms, cost.size_bytes or None)

    def _used(self, granularity: Granularity) -> Granularity | None:
        """The smallest granularity of the model that covers the one measured."""
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
