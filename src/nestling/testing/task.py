"""Conformance suite for tasks: run it on your own with ``check_task``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, CutRule, cut
from nestling.errors import NestlingError
from nestling.measure.tasks.tasks import Task, with_full
from nestling.testing.laws import LawError, as_laws, check_refused, random_state

Codes = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]

_RULES = (CutRule(), RAW)


@dataclass(frozen=True)
class TaskExample:
    """A task under test, made from inputs that are already perfect vectors.

    Args:
        task: its ``inputs`` are matrices ``Float[n, dim]`` on which the main metric is at its best: for
            retrieval, queries that equal their documents. A task that needs answers has inputs
            ``Float[n, outputs]``, which count as the answers at every granularity.
        dims: prefixes to score, increasing; a quarter, a half and the whole by default.
        limits: the range of every metric.
        best: score of perfect vectors on the main metric, the upper limit by default.
        spoil: the inputs whose rows are exchanged to make a bad encoding, the last one by default.
        tolerance: largest difference between scores that counts as equal.
    """

    task: Any
    dims: Sequence[int] | None = None
    limits: tuple[float, float] = (0.0, 1.0)
    best: float | None = None
    spoil: Sequence[str] | None = None
    tolerance: float = 1e-5

    @cached_property
    def perfect(self) -> Codes:
        """The inputs as what an encoder gives."""
        return {name: np.array(x) for name, x in self.task.inputs.items()}

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The prefixes that are scored."""
        if self.dims is not None:
            return tuple(self.dims)
        full = min(x.shape[1] for x in self.perfect.values())
        return tuple(sorted({max(full // 4, 1), max(full // 2, 1), full}))

    @cached_property
    def spoilt(self) -> Codes:
        """An encoding in which rows have changed places, so that they belong to other rows."""
        rng = np.random.default_rng(0)
        names = tuple(self.perfect)[-1:] if self.spoil is None else self.spoil
        moved = {name: rng.permutation(self.perfect[name]) for name in names}
        return self.perfect | moved

    @cached_property
    def half_spoilt(self) -> Codes:
        """An encoding of which every other row is the one of ``spoilt``."""
        return {
            name: np.where(np.arange(len(x))[:, None] % 2, x, self.spoilt[name])
            for name, x in self.perfect.items()
        }

    @cached_property
    def noisy(self) -> Codes:
        """An encoding with noise, so that no two distances are equal and scores differ by size."""
        rng = np.random.default_rng(1)
        return {name: x + 0.5 * x.std() * rng.normal(size=x.shape) for name, x in self.perfect.items()}

    def bound(self, rule: CutRule = CutRule()) -> Task:
        """The task, with the perfect vectors as the full granularity where it compares with that."""
        return with_full(self.task, self.perfect, self.sizes[-1], rule)

    def scored(
        self,
        codes: Codes,
        sizes: Sequence[int] | None = None,
        rule: CutRule = CutRule(),
        task: Task | None = None,
    ) -> Any:
        """The scores of the task for an encoding."""
        sizes = self.sizes if sizes is None else sizes
        task = self.bound(rule) if task is None else task
        if task.needs != "answers":
            return task.score(codes, sizes, rule)
        answers = {name: np.stack([x] * len(sizes)) for name, x in codes.items()}
        return task.score(answers, range(len(sizes)), rule)

    def values(self, scores: Any) -> Floats:
        """``Float[sizes, metrics]`` where every example counts once."""
        found: Floats = scores.statistic(np.ones((1, sum(scores.groups))))
        return np.asarray(found[0])


def protocol(example: TaskExample) -> None:
    """Law 1: the task has the members of :class:`~nestling.measure.tasks.tasks.Task`, and its scores fit."""
    task = example.task
    if not isinstance(task, Task):
        missing = [name for name in _MEMBERS if not hasattr(task, name)]
        raise LawError(f"protocol: {type(task).__name__} is no task: it lacks {', '.join(missing)}")
    if task.needs not in ("vectors", "answers"):
        raise LawError(f"protocol: needs must be 'vectors' or 'answers', not {task.needs!r}")
    names = tuple(task.metrics)
    if not names or len(set(names)) < len(names) or not all(name and isinstance(name, str) for name in names):
        raise LawError(f"protocol: metrics must be different names, the main one first, not {names}")
    scores = example.scored(example.perfect)
    if tuple(scores.metrics) != names:
        raise LawError(f"protocol: the task measures {names}, its scores {tuple(scores.metrics)}")
    shape = np.shape(scores.statistic(np.ones((2, sum(scores.groups)))))
    if shape != (2, len(example.sizes), len(names)):
        raise LawError(
            f"protocol: statistic() gives shape {shape}; two resamples of {len(example.sizes)} sizes and "
            f"{len(names)} metrics have (2, {len(example.sizes)}, {len(names)})"
        )


def limits(example: TaskExample) -> None:
    """Law 2: every size has a score, and every score lies in its range."""
    low, high = example.limits
    for what, codes in (
        ("perfect", example.perfect),
        ("noisy", example.noisy),
        ("exchanged", example.spoilt),
    ):
        values = example.values(example.scored(codes))
        for size, row in zip(example.sizes, values, strict=True):
            for metric, value in zip(example.task.metrics, row, strict=True):
                if not low - example.tolerance <= value <= high + example.tolerance:
                    raise LawError(
                        f"limits: {metric} is {value:.6g} at dim={size} for {what} vectors; it must lie from "
                        f"{low:g} to {high:g}"
                    )


def perfection(example: TaskExample) -> None:
    """Law 3: perfect vectors score best, and vectors of the wrong rows score lower: higher is better."""
    best = example.limits[1] if example.best is None else example.best
    metric = example.task.metrics[0]
    perfect, spoilt = (
        float(example.values(example.scored(codes))[-1, 0]) for codes in (example.perfect, example.spoilt)
    )
    if abs(perfect - best) > example.tolerance:
        raise LawError(f"perfection: {metric} of perfect vectors is {perfect:.6g}, not {best:g}")
    if not spoilt < perfect - example.tolerance:
        raise LawError(
            f"perfection: {metric} is {perfect:.6g} for perfect vectors and {spoilt:.6g} when rows are "
            "exchanged; higher must be better"
        )


def sizes(example: TaskExample) -> None:
    """Law 4: the score of a size is that of vectors cut by hand, whichever other sizes are scored."""
    for rule in _RULES if example.task.needs == "vectors" else _RULES[:1]:
        together = example.values(example.scored(example.noisy, rule=rule))
        for size, expected in zip(example.sizes, together, strict=True):
            alone = example.values(example.scored(example.noisy, [size], rule))[0]
            _same(f"sizes: scored alone, dim={size} under {rule.words}", alone, expected, example)
            if example.task.needs == "vectors":
                by_hand = {name: cut(x, size, rule) for name, x in example.noisy.items()}
                task = example.bound(rule)
                found = example.values(example.scored(by_hand, [size], rule.again, task))[0]
                _same(f"sizes: cut by hand, dim={size} under {rule.words}", found, expected, example)


def lengths(example: TaskExample) -> None:
    """Law 5: the rule is obeyed: without normalisation the lengths of vectors count, with it they do not."""
    if example.task.needs != "vectors":
        return
    rng = np.random.default_rng(3)
    longer = {name: x * np.exp(2 * rng.normal(size=(len(x), 1))) for name, x in example.noisy.items()}
    (under_l2, plain_l2), (under_raw, plain_raw) = (
        [example.values(example.scored(codes, rule=rule)) for codes in (longer, example.noisy)]
        for rule in _RULES
    )
    _same("lengths: vectors of other lengths under l2", under_l2, plain_l2, example)
    if np.allclose(under_raw, plain_raw, rtol=0, atol=example.tolerance):
        raise LawError(
            f"lengths: vectors of other lengths score the same under {RAW.words}; compare them by the rule "
            "that score() is given"
        )


def resampling(example: TaskExample) -> None:
    """Law 6: each resample is scored by itself, examples differ, and weights are relative to each other."""
    scores = example.scored(example.noisy)
    rng = np.random.default_rng(2)
    weights = np.concatenate([_drawn(rng, scores.groups) for _ in range(3)])
    together = np.asarray(scores.statistic(weights))
    for row, expected in zip(weights, together, strict=True):
        _same("resampling: a resample alone", scores.statistic(row[None])[0], expected, example)
        _same("resampling: weights that are doubled", scores.statistic(2 * row[None])[0], expected, example)
    mixed = example.scored(example.half_spoilt)
    many = np.concatenate([_drawn(rng, mixed.groups) for _ in range(30)])  # so that few examples differ too
    drawn = np.asarray(mixed.statistic(many))[:, -1, 0]
    perfect, found = (example.values(each)[-1, 0] for each in (example.scored(example.perfect), mixed))
    if found < perfect - example.tolerance and np.ptp(drawn) <= example.tolerance * 1e-3:
        raise LawError(
            f"resampling: {example.task.metrics[0]} is {found:.6g} in every resample where half of the rows "
            "are exchanged; give each example its own score, not their mean"
        )


def inputs(example: TaskExample) -> None:
    """Law 7: ``with_inputs`` gives the same task on other inputs, and leaves the first as it is."""
    task = example.bound()
    other = task.with_inputs(example.noisy)
    if set(other.inputs) != set(task.inputs) or tuple(other.metrics) != tuple(task.metrics):
        raise LawError("inputs: with_inputs() gives a task of other inputs or metrics")
    for name, x in task.inputs.items():
        if not np.array_equal(other.inputs[name], example.noisy[name]):
            raise LawError(f"inputs: with_inputs() does not take {name!r}")
        if not np.array_equal(x, example.perfect[name]):
            raise LawError(f"inputs: with_inputs() changes {name!r} of the task that it is called on")
    found = example.values(example.scored(example.perfect, task=other))
    _same("inputs: scored by with_inputs()", found, example.values(example.scored(example.perfect)), example)


def refusal(example: TaskExample) -> None:
    """Law 8: inputs of the wrong length are an error of nestling, and so are vectors with NaN."""
    task = example.bound()
    for name, x in example.perfect.items():
        spoilt = x.astype(np.float64)
        spoilt[:, 0] = np.nan
        cases: dict[str, Callable[[], Any]] = {
            f"{name} with a row too few": partial(task.with_inputs, {**task.inputs, name: x[:-1]}),
            f"{name} without rows": partial(task.with_inputs, {**task.inputs, name: x[:0]}),
        }
        if task.needs == "vectors":
            cases[f"{name} with NaN"] = partial(_values, example, example.perfect | {name: spoilt})
        for case, action in cases.items():
            check_refused(f"refusal: {case}", action, NestlingError, _ADVICE)


def innocence(example: TaskExample) -> None:
    """Law 9: scoring twice gives the same; vectors and the global random state do not change."""
    codes, state = copy.deepcopy(example.noisy), random_state()
    first, second = (example.values(example.scored(codes)) for _ in range(2))
    if not np.array_equal(first, second, equal_nan=True):
        raise LawError("innocence: the same vectors were scored twice with different results; take a seed")
    if random_state() != state:
        raise LawError("innocence: the global random state was changed; take a seed instead")
    if not all(np.array_equal(codes[name], x) for name, x in example.noisy.items()):
        raise LawError("innocence: the vectors were changed")


TASK_LAWS: tuple[Callable[[TaskExample], None], ...] = as_laws(
    protocol,
    limits,
    perfection,
    sizes,
    lengths,
    resampling,
    inputs,
    refusal,
    innocence,
)
"""The laws one by one, for a parametrised test; :func:`check_task` runs them all."""


def check_task(
    task: Any,
    *,
    dims: Sequence[int] | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
    best: float | None = None,
    spoil: Sequence[str] | None = None,
    tolerance: float = 1e-5,
) -> None:
    """Check a task that is to be measured by ``sweep(thing, task)``.

    Args:
        task: made from inputs that are perfect vectors, ``Float[n, dim]``: for retrieval, queries that equal
            their documents.
        dims: prefixes to score, increasing; a quarter, a half and the whole by default.
        limits: the range of every metric.
        best: score of perfect vectors on the main metric, the upper limit by default.
        spoil: the inputs whose rows are exchanged to make a bad encoding, the last one by default.
        tolerance: largest difference between scores that counts as equal.

    Raises:
        LawError: for the first law that is broken.

    >>> from nestling.measure import Retrieval
    >>> x = np.random.default_rng(0).normal(size=(30, 16))
    >>> check_task(Retrieval(x, x, range(30)))
    """
    example = TaskExample(task, dims, limits, best, spoil, tolerance)
    for law in TASK_LAWS:
        law(example)


_ADVICE = "raise a nestling.errors.DataError that says what is wrong"
_MEMBERS = ("name", "needs", "metrics", "inputs", "with_inputs", "score")


def _same(what: str, found: Any, expected: Any, example: TaskExample) -> None:
    if not np.allclose(found, expected, rtol=0, atol=example.tolerance, equal_nan=True):
        raise LawError(f"{what}, gives {np.round(found, 6)}, not {np.round(expected, 6)}")


def _values(example: TaskExample, codes: Codes) -> Floats:
    return example.values(example.scored(codes))


def _drawn(rng: np.random.Generator, groups: Iterable[int]) -> Floats:
    """Draws of each example, each group by itself, ``Float[1, examples]``."""
    counts = [rng.multinomial(count, np.full(count, 1 / count)) for count in groups]
    return np.concatenate(counts)[None].astype(np.float64)
