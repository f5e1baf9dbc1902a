"""Quality and cost at every granularity, with each input encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Real, Whole, checked
from nestling.cut import CutRule
from nestling.elastic import Origin, origin_of
from nestling.gain import Gain
from nestling.granularity import AnyNesting, Granularity, Nesting
from nestling.measure.bootstrap import Estimate, Resampled
from nestling.measure.curve.choice import Row
from nestling.measure.curve.curve import Curve
from nestling.measure.curve.provenance import identity
from nestling.measure.encode import at_rest, encode_inputs, encode_task
from nestling.measure.machine import machine, today, versions
from nestling.measure.precision import Bits
from nestling.measure.sweep_plan import Costs, SweepPlan
from nestling.measure.tasks.tasks import Task, is_relative
from nestling.process.progress import watched

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
        rule: steps around a cut; by default the model's own, or L2 normalisation after it.
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
    plan = SweepPlan.read(thing, task, nesting, rule, bits, both_sides)
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
    plain_plan = SweepPlan(*plain, Nesting(both), sizes, replace(plan.rule, code=None), both_sides)
    other, other_drawn = _measured(plain_plan, how, _TRUNCATION)
    return _with_truncation(curve, drawn, other, other_drawn)


def _as_given(vectors: Any) -> Any:
    return vectors


def _both(nesting: Nesting, own: Nesting | None, task: Task) -> tuple[Granularity, ...]:
    """The granularities of ``nesting`` to which the starting point of training can be cut."""
    cuts = {g: g.replace(bits=None) for g in nesting}
    if own is not None:
        # An axis that is not named is used in full.
        return tuple(
            g for g, c in cuts.items() if any(set(c) <= set(o) and own.full.replace(**c) <= o for o in own)
        )
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
    plan: SweepPlan, how: _Settings, name: str, codes: Mapping[str, list[NDArray[Any]]] | None = None
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


def _rows(
    nesting: Nesting, task: Task, estimate: Estimate, costs: Sequence[Costs], seed: int
) -> tuple[Row, ...]:
    def figures(size: int, metric: int) -> dict[str, Any]:
        return {name: float(table[size, metric]) for name, table in vars(estimate).items()}

    return tuple(
        Row(g, metric, **figures(i, j), **asdict(cost), seed=seed)
        for i, (g, cost) in enumerate(zip(nesting, costs, strict=True))
        for j, metric in enumerate(task.metrics)
    )
