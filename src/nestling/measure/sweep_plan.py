"""The plan of a sweep: inputs to encode, source of each granularity, and costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule
from nestling.errors import ConfigError
from nestling.granularity import AnyNesting, Granularity, Nesting
from nestling.measure.encode import encode_one, encoder_of_queries
from nestling.measure.precision import Bits, Encoded, bytes_of, with_precisions
from nestling.measure.tasks.scores import Floats, Scores
from nestling.measure.tasks.tasks import ComparesWithFull, RanksStored, Task, check_is_task, stored_inputs
from nestling.process.progress import watched
from nestling.process.timing import median_ms
from nestling.vectors.token_vectors import TokenVectors

_TIMINGS = 15


@dataclass(frozen=True)
class Costs:
    """Cost of one use at a granularity; see :class:`~nestling.measure.curve.choice.Row`."""

    vector_bytes: int
    flops: float | None
    latency_ms: float | None
    model_bytes: int | None


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


class SweepPlan:
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
        """``granularity`` as the model has it: axes that are not named in full, precisions if it has some."""
        if self.own is None:
            return granularity.replace(bits=None)
        wanted = self.own.full.replace(**granularity)
        if "bits" not in self.own.full:  # most compute floats
            wanted = wanted.replace(bits=None)
        if "dim" in wanted and "dim" not in granularity:
            dims = [g["dim"] for g in self.own if g.rest == wanted.rest]
            wanted = wanted.replace(dim=max(dims, default=wanted["dim"]))
        return wanted

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
        groups: dict[Granularity | None, dict[int, list[Granularity]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for granularity in self.nesting:
            groups[self.sources[granularity]][self._rounded_to(granularity)].append(granularity)
        task, parts, measured = self._against_full(codes), [], []
        for source, each in watched(groups.items(), "scoring", "sources"):
            encoded = self._encoded(codes, source)
            dims = {g: g.get("dim", encoded.width) for group in each.values() for g in group}
            in_order = {bits: sorted(group, key=dims.__getitem__) for bits, group in each.items()}
            wanted = {bits: [dims[g] for g in group] for bits, group in in_order.items()}
            for bits, scores in self._scored(task, encoded, wanted):
                parts.append(scores)
                measured += in_order[bits]
        return _Joined(parts, [measured.index(g) for g in self.nesting])

    def _scored(
        self, task: Task, encoded: Encoded, dims: Mapping[int, Sequence[int]]
    ) -> Iterator[tuple[int, Scores]]:
        """The scores at the sizes of each precision."""
        if isinstance(task, RanksStored):
            found = encoded.nearest(*task.searched, dims, task.k)
            if found is not None:
                yield from ((bits, task.judge([each.indices for each in found[bits]])) for bits in dims)
                return
        rule = replace(self.rule.again, code=None)
        for bits, sizes in watched(dims.items(), "scoring", "precisions"):
            yield bits, task.score(encoded.at(bits), sizes, rule)

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
        if not isinstance(self.task, ComparesWithFull):
            return self.task
        full = self.nesting.full
        matrices = self._encoded(codes, self.sources[full]).at(self._rounded_to(full))
        width = next(iter(matrices.values())).shape[1]
        rule = replace(self.rule.again, code=None)
        return self.task.with_full(matrices, full.get("dim", width), rule)

    def cost(self, granularity: Granularity, codes: Mapping[str, list[NDArray[Any]]], latency: bool) -> Costs:
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
            return Costs(_bytes(first, self.stored, dim, bits, 4 * dim), None, latency_ms, None)
        cost = self.thing.cost(used)
        in_floats = cost.output_bytes * dim // used.get("dim", dim)
        vector_bytes = _bytes(first, self.stored, dim, bits, in_floats)
        return Costs(vector_bytes, cost.flops, latency_ms, cost.size_bytes or None)

    def _used(self, granularity: Granularity) -> Granularity | None:
        """The smallest granularity of the model that covers the one measured."""
        if self.own is None:
            return None
        covered = self._of_thing(granularity)
        return next(g for g in self.own if g >= covered)

    def _one_use(
        self, used: Granularity | None, vectors: Mapping[str, NDArray[Any]], dim: int
    ) -> Callable[[], object]:
        name, x = next(iter(self.task.inputs.items()))
        encode = encode_one(self.thing if name in self.stored else encoder_of_queries(self.thing), x, used)
        answer = getattr(self.task, "answer_one", None)

        def use() -> None:
            encode()
            if answer is not None:
                answer(vectors, dim, self.rule)

        return use


def _bytes(
    vectors: Mapping[str, NDArray[Any]], stored: Sequence[str], dim: int, bits: int, in_floats: int
) -> int:
    """Bytes of one stored item: the mean over those measured, if items have several vectors."""
    first: Any = vectors[stored[0]]
    if isinstance(first, TokenVectors):
        return round(float(first.counts.mean()) * bytes_of(bits, dim, 4 * dim))
    return bytes_of(bits, dim, in_floats)
