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
from nestling.measure.precision import Bits, Encoded, bytes_of, with_precisions
from nestling.measure.tasks.scores import Floats, Scores
from nestling.measure.tasks.tasks import Task, check_is_task, is_relative, stored_inputs, with_full
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
    bits: Bits = "default",
    both_sides: bool = False,
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

    Each input is encoded once (over axes other than ``dim`` and ``bits`` by one ``forward_each``); all sizes
    of an embedding are scored from running sums over its coordinates. The intervals resample examples, the
    same at all granularities.

    Where vectors are stored, they are measured in few bits too: codes are calibrated on the stored inputs
    of the task, such as documents, or are those of the model's rule. Queries stay floats.

    Args:
        thing: an elastic model, or any callable (or object with ``encode``) from inputs to a matrix
            ``Float[n, dim]``, for which ``nesting`` is given.
        task: the evaluation task.
        nesting: the granularities to measure, or their text; those of the model by default. Sizes on
            ``dim`` that the model was not made for are measured by plain cutting.
        rule: what happens around the cut; by default the model's own, or L2 normalisation after it.
        bits: precisions of the stored vectors: 1, 2, 3, 4, 8 (codes), 16, 32 (floats; 32 is measured with
            any). None is floats alone. By default 1, 2, 4, 8 and 32 if no ``nesting`` is given and the task
            needs vectors and does not compare with the full ones; else floats alone.
        both_sides: hold all inputs in codes, queries too.
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
    plan = _Plan.read(thing, task, nesting, rule, bits, both_sides)
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
    plain_plan = _Plan(*plain, Nesting(both), sizes, replace(plan.rule, code=None), both_sides)
    other, other_drawn = _measured(plain_plan, how, _TRUNCATION)
    return _with_truncation(curve, drawn, other, other_drawn)


def _as_given(vectors: Any) -> Any:
    return vectors


def _both(nesting: Nesting, own: Nesting | None, task: Task) -> tuple[Granularity, ...]:
    """The granularities of ``nesting`` to which the starting point of training can be cut."""
    cuts = {g: g.replace(bits=None) for g in nesting}
    if own is not None:
        return tuple(g for g, c in cuts.items() if any(set(c) == set(o) and c <= o for o in own))
    width = min(np.shape(x)[1] for x in task.inputs.values())
    return tuple(g for g, c in cuts.items() if set(c) == {"dim"} and c["dim"] <= width)


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
        rule=getattr(thing, "rule", plan.rule).words + ("; all inputs in codes" if plan.both_sides else ""),
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
    def read(
        cls,
        thing: Any,
        task: Task,
        given: AnyNesting | None,
        rule: CutRule | None,
        bits: Bits,
        both_sides: bool,
    ) -> Self:
        """The plan of a sweep, from its arguments."""
        check_is_task(task)
        own = getattr(thing, "nesting", None)
        wanted = own if given is None else Nesting.of(given)
        if wanted is None:
            raise ConfigError(
                f"{type(thing).__name__} has no nesting of its own; give the sizes to measure, such as "
                'nesting="dim=8..256"'
            )
        wanted = with_precisions(wanted, bits, task, is_given=given is not None)
        if rule is None:
            # The full output of an elastic model has been prepared for the cut already.
            rule = thing.rule.again if hasattr(thing, "rule") else CutRule()
        return cls(thing, task, wanted, own, rule, both_sides)

    def __init__(
        self,
        thing: Any,
        task: Task,
        nesting: Nesting,
        own: Nesting | None,
        rule: CutRule,
        both_sides: bool = False,
    ) -> None:
        self.thing, self.task, self.nesting, self.own, self.rule = thing, task, nesting, own, rule
        self.both_sides, self.stored = both_sides, stored_inputs(task)
        self.coded = tuple(task.inputs) if both_sides else self.stored
        if task.needs == "answers":
            if own is None:
                raise ConfigError(
                    f"{task.name} needs predictions at each granularity; pass an elastic model, got "
                    f"{type(thing).__name__}"
                )
            self.sources: dict[Granularity, Granularity | None] = {g: own.resolve(g) for g in nesting}
        else:
            self.sources = {g: self._source(g) for g in nesting}
        self.asked = list(dict.fromkeys([*self.sources.values(), *map(self._floats, self.sources.values())]))

    def _source(self, granularity: Granularity) -> Granularity | None:
        """The granularity that is encoded; its vectors are cut to ``granularity``."""
        if self.own is None:
            self.nesting.within("a plain callable", dim=None, bits=None)
            return None
        covered = self._of_thing(granularity)
        members = [
            g
            for g in self.own
            if g.rest == covered.rest and g.get("bits") == covered.get("bits") and g >= covered
        ]
        return members[-1] if members else self.own.resolve(covered)

    def _of_thing(self, granularity: Granularity) -> Granularity:
        """``granularity`` as the thing has it: most compute floats, stored vectors may have precisions."""
        full = {} if self.own is None else self.own.full
        return granularity.replace(bits=granularity.get("bits", full["bits"]) if "bits" in full else None)

    def _floats(self, source: Granularity | None) -> Granularity | None:
        """The source of inputs that are not held in codes."""
        if source is None or self.own is None or "bits" not in source:
            return source
        return source.replace(bits=self.own.full["bits"])

    def score(self, codes: Mapping[str, list[NDArray[Any]]]) -> Scores:
        """The scores of the task at every granularity of the nesting."""
        if self.task.needs == "answers":
            answers = {name: np.stack(each) for name, each in codes.items()}
            return self.task.score(answers, range(len(self.nesting)), self.rule)
        cut_from: dict[Granularity | None, dict[int, list[Granularity]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for granularity, source in self.sources.items():
            cut_from[source][self._rounded_to(granularity)].append(granularity)
        rule = replace(self.rule.again, code=None)
        task, parts, measured = self._against_full(codes), [], []
        for source, by_bits in watched(cut_from.items(), "scoring", "encodings"):
            encoded = self._encoded(codes, source)
            for bits, group in by_bits.items():
                matrices = encoded.at(bits)
                width = next(iter(matrices.values())).shape[1]
                group.sort(key=lambda g, width=width: g.get("dim", width))
                parts.append(task.score(matrices, [g.get("dim", width) for g in group], rule))
                measured += group
        return _Joined(parts, [measured.index(g) for g in self.nesting])

    def _encoded(self, codes: Mapping[str, list[NDArray[Any]]], source: Granularity | None) -> Encoded:
        """The vectors of one source; a known code is that of the full output."""
        places = {name: source if name in self.coded else self._floats(source) for name in codes}
        matrices = {name: each[self.asked.index(places[name])] for name, each in codes.items()}
        is_full = source is None or self.own is None or source.rest == self.own.full.rest
        rule = self.rule if is_full else replace(self.rule, code=None)
        return Encoded(matrices, rule, self.stored, self.coded)

    def _rounded_to(self, granularity: Granularity) -> int:
        """The bits that vectors of the source are rounded to."""
        return 32 if self.own is not None and "bits" in self.own.axes else granularity.get("bits", 32)

    def _against_full(self, codes: Mapping[str, list[NDArray[Any]]]) -> Task:
        """The task, comparing with the full granularity of the nesting if it compares."""
        full = self.nesting.full
        matrices = self._encoded(codes, self.sources[full]).at(self._rounded_to(full))
        width = next(iter(matrices.values())).shape[1]
        return with_full(self.task, matrices, full.get("dim", width), replace(self.rule.again, code=None))

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
        bits = self._rounded_to(granularity)
        if used is None or not hasattr(self.thing, "cost"):
            return _Costs(bytes_of(bits, dim, 4 * dim), None, latency_ms, None)
        cost = self.thing.cost(used)
        in_floats = cost.output_bytes * dim // used.get("dim", dim)
        return _Costs(bytes_of(bits, dim, in_floats), cost.flops, latency_ms, cost.size_bytes or None)

    def _used(self, granularity: Granularity) -> Granularity | None:
        """The smallest granularity of the model that covers the one measured."""
        if self.own is None:
            return None
        covered = self._of_thing(granularity)
        return next(g for g in self.own if g >= covered)

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
