"""Measuring plans: recall against the exact neighbours, latency and throughput, at growing points."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule, check_vectors
from nestling.process.progress import Progress
from nestling.process.timing import median_ms
from nestling.search.engine.engine import Engine, build
from nestling.search.exact.neighbours import Metric
from nestling.search.exact.recall import Names, Questions
from nestling.search.plan.frontier import Trial
from nestling.search.plan.plan import Plan, Point
from nestling.vectors.planes import BitPlanes
from nestling.vectors.precision import Values
from nestling.vectors.stored import StoredVectors

Search: TypeAlias = Callable[[NDArray[Any], int, Point], Names]

# Candidates are first compared on a part of the rows, the more promising then built over all.
_SAMPLE_SHARE, _FEWEST_SAMPLED, _MOST_SAMPLED = 1 / 8, 4_000, 20_000
_FINALISTS = 2
_QUERIES, _SAMPLE_QUERIES = 500, 200
_TIMED_QUERIES = 50
# In builds of the best candidate: when comparing ends, when climbing does, and all of planning. Each step
# of a climb takes about as long as all before it.
_COMPARED_BUILDS, _CLIMBED_BUILDS, _MOST_BUILDS = 0.5, 2.0, 3
_LARGEST_SHORTLIST_PER_K = 128
# A larger point that finds less than this much more is not followed further.
_SMALLEST_GAIN = 2e-4


class Comparison:
    """Builds candidates over a part of the rows, then the best over all, and measures them.

    Engines over all rows are kept until the comparison ends, so that the winner need not be built again.
    """

    def __init__(
        self,
        rows: StoredVectors | NDArray[Any],
        queries: Any,
        k: int,
        rule: CutRule,
        metric: Metric,
        seed: int,
        workers: int | None,
    ) -> None:
        vectors: Values = rows.values if isinstance(rows, StoredVectors) else rows
        self.rows, self.vectors, self.k, self.rule, self.metric = rows, vectors, k, rule, metric
        self.seed, self.workers, self.started = seed, workers, time.perf_counter()
        self.engines: dict[Plan, Engine] = {}
        self._folders = ExitStack()
        draw = np.random.default_rng(seed)
        self.own: NDArray[np.int64] | None = None
        if queries is None:
            self.own = np.sort(draw.choice(len(vectors), min(_QUERIES, len(vectors)), replace=False))
            self.queries = np.asarray(vectors[self.own])
        else:
            self.queries = check_vectors(queries, "queries", dim=vectors.shape[1])
        known = np.zeros(0, np.int64) if self.own is None else self.own
        others = np.setdiff1d(np.arange(len(vectors)), known)
        wanted = min(max(int(len(vectors) * _SAMPLE_SHARE), _FEWEST_SAMPLED), _MOST_SAMPLED)
        more = max(0, min(len(others), wanted - len(known)))
        # Rows that are queries come first, so that each knows its number in the sample.
        self.sample = np.concatenate([known, np.sort(draw.choice(others, more, replace=False))])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folders.close()

    @property
    def held(self) -> int | None:
        """Bits of each entry, of rows that are held as codes; None for floats."""
        return self.vectors.bits if isinstance(self.vectors, BitPlanes) else None

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.started

    def run(
        self,
        plans: Sequence[Plan],
        rank: Callable[[Sequence[Trial]], list[Plan]],
        enough: Callable[[Trial], bool],
        *,
        is_bounded: bool = True,
    ) -> Iterator[Trial]:
        """Trials over all rows.

        With many rows, candidates are first compared on a sample, for about half the time of building the
        best over all rows. A second finalist is built only where the first misses the targets, or while
        planning stays within three such builds. An exact scan, which needs no building, is always measured.

        Args:
            plans: candidates, the cheapest for a query first.
            rank: the plans of some trials, the most promising first.
            enough: whether a trial meets the targets.
            is_bounded: no longer than that; else each plan is built over all rows and measured.
        """
        is_bounded = is_bounded and len(self.sample) < len(self.vectors) and len(plans) > _FINALISTS
        if is_bounded:
            exact = [plan for plan in plans if plan.is_exact(self.vectors.shape[1])]
            finalists = self._compare(plans, rank, enough)[:_FINALISTS]
            plans = list(dict.fromkeys([*finalists, *exact]))
        questions, first_s, is_met = self.ask(self.rows, self.own), 0.0, False
        for number, plan in enumerate(_shown(plans, "planning on all rows")):
            is_late = is_met and self.seconds + first_s > _MOST_BUILDS * first_s
            if number and is_bounded and is_late and not plan.is_exact(self.vectors.shape[1]):
                continue
            for trial in self._measure(plan, self.vectors, questions, keep=True):
                yield trial
                first_s, is_met = first_s or trial.build_s, is_met or enough(trial)
                if is_bounded and is_met and self.seconds > _CLIMBED_BUILDS * first_s:
                    break

    def _compare(
        self,
        plans: Sequence[Plan],
        rank: Callable[[Sequence[Trial]], list[Plan]],
        enough: Callable[[Trial], bool],
    ) -> list[Plan]:
        """The plans, ranked by their trials on a sample of the rows, scaled to all rows."""
        held, some = self.vectors, self.sample
        part: Values = held.part(some) if isinstance(held, BitPlanes) else np.array(held[some], order="C")
        rows, dim = self.vectors.shape
        own = None if self.own is None else np.arange(min(len(self.own), _SAMPLE_QUERIES))
        questions, trials = self.ask(part, own, _SAMPLE_QUERIES), list[Trial]()
        for plan in _shown(plans, "planning on a sample"):
            for trial in self._measure(plan, part, questions):
                trials.append(_scaled(trial, rows, dim))
                if enough(trial):
                    break
            best = rank(trials)[0]
            build_s = next(trial.build_s for trial in trials if trial.plan == best)
            if self.seconds > _COMPARED_BUILDS * build_s and any(map(enough, trials)):
                break
        return rank(trials)

    def ask(self, rows: Values, own: NDArray[np.int64] | None, most: int | None = None) -> Questions:
        """The ground truth of the queries (or the first ``most``) among ``rows``."""
        return Questions.ask(
            self.queries[slice(most)],
            rows,
            self.k,
            rule=self.rule,
            metric=self.metric,
            own=own,
            workers=self.workers,
        )

    def _measure(
        self, plan: Plan, rows: Values, questions: Questions, *, keep: bool = False
    ) -> Iterator[Trial]:
        """Trials of one plan, built over ``rows``."""
        folder = TemporaryDirectory(prefix="nestling-plan-")
        self._folders.enter_context(folder)
        start = time.perf_counter()
        engine = build(
            plan,
            rows,
            rule=self.rule,
            metric=self.metric,
            seed=self.seed,
            workers=self.workers,
            folder=folder.name,
        )
        built_s = time.perf_counter() - start
        if keep:
            self.engines[plan] = engine

        def search(asked: NDArray[Any], wanted: int, point: Point) -> Names:
            return engine.search(asked, wanted, point, workers=self.workers).indices

        row_bytes = engine.cost().bytes_stored / len(rows)
        yield from climb(search, plan, questions, len(rows), row_bytes, built_s)


def _shown(plans: Sequence[Plan], label: str) -> Iterator[Plan]:
    with Progress(label, len(plans), "plans") as progress:
        for plan in plans:
            progress.note(str(plan))
            yield plan
            progress.update()


def _scaled(trial: Trial, rows: int, dim: int) -> Trial:
    """A trial on a sample, scaled to all rows in proportion to the bytes that a scan reads.

    The time per query in a batch is scaled, because half the time of a single query is overhead of the call.
    """
    some, all_ = (trial.plan.cost(count, dim, trial.point) for count in (trial.rows, rows))
    latency_ms = 1e3 / trial.qps * all_.bytes_read / some.bytes_read
    build_s = trial.build_s * rows / trial.rows
    unplanned = trial.row_bytes - some.bytes_stored / trial.rows
    row_bytes = all_.bytes_stored / rows + unplanned
    return replace(trial, rows=rows, latency_ms=latency_ms, build_s=build_s, row_bytes=row_bytes)


def climb(
    search: Search, plan: Plan, questions: Questions, rows: int, row_bytes: float, build_s: float
) -> Iterator[Trial]:
    """Trials of one plan from its smallest point up. Steps double the parameter that gains most for its time.

    Args:
        search: finds row numbers or ids of queries: ``search(queries, k, point)``.
        plan: of the search.
        questions: with the names that ``search`` finds.
        rows: vectors that are searched.
        row_bytes: bytes in memory for each row.
        build_s: seconds that building took.
    """

    def measured(point: Point) -> Trial:
        recalls, latency_ms, qps = time_search(search, questions, point)
        mean, half = float(recalls.mean()), 1.96 * float(recalls.std()) / math.sqrt(len(recalls))
        low, high = max(0.0, mean - half), min(1.0, mean + half)
        return Trial(plan, point, rows, mean, low, high, latency_ms, qps, row_bytes, build_s)

    best = measured(plan.smallest_point(rows, questions.wanted))
    yield best
    while best.recall < 1:
        larger = [measured(point) for point in _larger(plan, best.point, rows, questions.wanted)]
        yield from larger
        before = best
        gaining = [trial for trial in larger if trial.recall > before.recall + _SMALLEST_GAIN]
        if not gaining:
            return

        def pace(trial: Trial, before: Trial = before) -> float:
            return (trial.recall - before.recall) / max(trial.latency_ms - before.latency_ms, 1e-4)

        best = max(gaining, key=pace)


def time_search(
    search: Search, questions: Questions, point: Point
) -> tuple[NDArray[np.float64], float, float]:
    """Recall of each query, median milliseconds of a single one, and queries a second in one batch."""
    queries, wanted = questions.queries, questions.wanted
    start = time.perf_counter()
    found = search(queries, wanted, point)
    batch_s = time.perf_counter() - start
    singles = (partial(search, query[None], wanted, point) for query in queries[:_TIMED_QUERIES])
    return questions.recalls(found), median_ms(singles), len(queries) / batch_s


def _larger(plan: Plan, point: Point, rows: int, k: int) -> Iterator[Point]:
    """The point with each parameter doubled in turn, as far as that makes sense."""
    yield from plan.larger_points(point, rows)
    if point.shortlists and point.shortlists[0] < min(rows, _LARGEST_SHORTLIST_PER_K * k):
        doubled = tuple(min(rows, 2 * length) for length in point.shortlists)
        ef = None if point.ef is None else max(point.ef, doubled[0])  # a beam holds the shortlist
        yield replace(point, ef=ef, shortlists=doubled)
