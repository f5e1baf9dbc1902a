"""Choosing a plan by measurement: candidates are built, searched at ever larger points, and compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule, check_vectors
from nestling.encoders.matrix import Sizes, read_sizes
from nestling.encoders.vector_files import write_npy
from nestling.errors import ConfigError, DataError
from nestling.search.exact import Metric, nearest
from nestling.search.frontier import Frontier, Trial
from nestling.search.index import AdaptiveIndex
from nestling.search.plan import Plan, Point
from nestling.search.race import Questions, Race, climb, time_search

# Below so many rows an exact scan takes well under a millisecond, and what must be trained saves nothing.
_FEW_ROWS = 10_000


def candidate_plans(rows: int, sizes: Sequence[int]) -> tuple[Plan, ...]:
    """A small family of plans for so many vectors, the cheapest for a query first.

    Args:
        rows: vectors to be searched.
        sizes: prefixes that may be read, the last one the full size.
    """
    full = sizes[-1]
    near = {min(sizes, key=lambda size: abs(size - target)) for target in (full // 4, full // 2, full)}
    texts, short = ["flat@full"], sorted(near)
    texts += [f"int4@{dim} > rerank@full" for dim in short if dim % 2 == 0]
    if rows >= _FEW_ROWS:
        lists = 1 << round(math.log2(4 * math.sqrt(rows)))
        texts += [f"rabitq@{full} > rerank@full"]
        texts += [f"pq{dim // 4}x4@{dim} > rerank@full" for dim in short[-2:] if dim % 4 == 0]
        texts += [f"ivf{lists}@{dim} > int8@{dim} > rerank@full" for dim in short[-2:]]
        texts += [f"hnsw32@{dim} > int8@{dim} > rerank@full" for dim in short[-2:]]
    return tuple(sorted(map(Plan.parse, texts), key=lambda plan: plan.cost(rows, full).mflops))


def tune(
    vectors: Any,
    *,
    queries: Any = None,
    k: int = 10,
    recall: float | None = 0.95,
    max_bytes: float | None = None,
    max_ms: float | None = None,
    plans: Sequence[Plan | str] | None = None,
    sizes: Sequence[int] | None = None,
    rule: CutRule = CutRule(),
    metric: Metric = "dot",
    seed: int = 0,
    workers: int | None = None,
) -> tuple[Trial, Frontier]:
    """The plan and point that meet the targets fastest, and all that was measured on the way.

    Candidates are first built over a sample of the rows, then the best few over all. Each is searched at
    growing points, one parameter doubled at a time, always the one that finds most for the time it takes.

    Args:
        vectors: ``Float[n, dim]``; may be a memory map.
        queries: ``Float[m, dim]``, held out from the vectors; rows of the vectors by default, each of which
            must then find its nearest others.
        k: neighbours wanted.
        recall: share of the exact ``k`` nearest to be found; the lower end of its 95 % interval counts.
            None takes the most that fits ``max_bytes`` and ``max_ms``.
        max_bytes: in memory for each vector.
        max_ms: median latency of a single query.
        plans: what to compare; :func:`candidate_plans` by default.
        sizes: prefixes that plans may read, the full size last; quarters of it by default.
        rule: what happens before and after a cut.
        metric: ``"dot"`` or ``"euclidean"``.
        seed: of samples, queries and builds.
        workers: threads.

    Raises:
        ConfigError: if no plan meets the targets; the nearest is named.
        DataError: for vectors or queries that cannot be used.
    """
    vectors = check_vectors(vectors)
    if not 1 <= k < len(vectors):
        raise DataError(f"k={k} neighbours cannot be found among {len(vectors)} vectors; choose fewer")
    full = vectors.shape[1]
    sizes = tuple(sizes or range(-(-full // 4), full, -(-full // 4))) + ((full,) if not sizes else ())
    family = candidate_plans(len(vectors), sizes) if plans is None else tuple(map(_read, plans))
    if not family:
        raise ConfigError(
            "there are no plans to compare; give at least one, or none at all for the usual ones"
        )
    race = Race(vectors, queries, k, rule, metric, seed, workers)
    trials = race.run(family, lambda frontier: _rank(frontier, recall, max_bytes))
    frontier = Frontier(tuple(trials), k, len(race.queries), queries is None, race.seconds)
    return frontier.choose(recall, max_bytes=max_bytes, max_ms=max_ms), frontier


def _read(plan: Plan | str) -> Plan:
    return Plan.parse(plan) if isinstance(plan, str) else plan


def _rank(frontier: Frontier, recall: float | None, max_bytes: float | None) -> list[Plan]:
    """The plans, the most promising first: the fastest to the target, then those that come nearest to it."""
    target = recall or 1.0

    def promise(plan: Plan) -> tuple[bool, bool, float]:
        trials = frontier.of(plan).trials
        reached = [trial.latency_ms for trial in trials if trial.recall >= target]
        too_large = max_bytes is not None and trials[0].row_bytes > max_bytes
        return too_large, not reached, min(reached) if reached else -max(trial.recall for trial in trials)

    return sorted({trial.plan: None for trial in frontier}, key=promise)


def build(
    folder: str | Path,
    vectors: Any,
    ids: Any = None,
    *,
    plan: Plan | str | None = None,
    recall: float | None = 0.95,
    k: int = 10,
    max_bytes: float | None = None,
    max_ms: float | None = None,
    queries: Any = None,
    nesting: Sizes = None,
    rule: CutRule | None = None,
    metric: Metric = "dot",
    encoder: str | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> AdaptiveIndex:
    """An index in ``folder``, its plan found by :func:`tune` unless given, with what was measured of it.

    The arguments are those of :func:`tune` and of :meth:`~nestling.search.index.AdaptiveIndex.create`.
    """
    stored = vectors if hasattr(vectors, "values") and hasattr(vectors, "nesting") else None
    matrix = check_vectors(vectors if stored is None else stored.values)
    found_rule = rule or (CutRule() if stored is None else stored.rule)
    given, table, k = plan, None, min(k, len(matrix) - 1)
    if plan is None and k:
        sizes = read_sizes(nesting if nesting or stored is None else stored.nesting, matrix.shape[1])
        chosen, frontier = tune(
            matrix,
            queries=queries,
            k=k,
            recall=recall,
            max_bytes=max_bytes,
            max_ms=max_ms,
            sizes=sizes.sizes("dim"),
            rule=found_rule,
            metric=metric,
            seed=seed,
            workers=workers,
        )
        given, table = chosen.plan, frontier.of(chosen.plan)
    index = AdaptiveIndex.create(
        folder,
        vectors,
        ids,
        plan=given or "flat@full",
        nesting=nesting,
        rule=rule,
        metric=metric,
        encoder=encoder,
        seed=seed,
        workers=workers,
    )
    if table is not None:
        index.write_table(trial.to_json() for trial in table.pareto())
    elif k:  # a single row has no neighbours to be measured by
        retune(index, queries=queries, k=k, recall=None, seed=seed, workers=workers)
    return index


def retune(
    index: AdaptiveIndex,
    *,
    queries: Any = None,
    k: int = 10,
    recall: float | None = 0.95,
    max_bytes: float | None = None,
    max_ms: float | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> tuple[Trial, Frontier]:
    """Measure an index as it stands at ever larger points, and keep the table in it.

    The table is what ``index.search(..., recall=)`` picks its point from. For the arguments see :func:`tune`.
    """
    with TemporaryDirectory(prefix="nestling-tune-") as folder:
        names, rows = index.rows()
        path = Path(folder) / "vectors.npy"
        write_npy(path, rows, (len(names), index.dim), np.dtype(np.float32))
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        race = Race(vectors, queries, k, index.rule, index.metric, seed, workers)
        questions = race.ask(vectors, race.own).named(names)

        def search(asked: NDArray[Any], wanted: int, point: Point) -> NDArray[Any]:
            return index.search(asked, wanted, point=point, workers=workers).ids

        trials = tuple(climb(search, index.plan, questions, len(names), index.dim, 0.0))
    frontier = Frontier(trials, k, len(race.queries), queries is None, race.seconds)
    index.write_table(trial.to_json() for trial in frontier.pareto())
    return frontier.choose(recall, max_bytes=max_bytes, max_ms=max_ms), frontier


def compare_with_exact(
    index: AdaptiveIndex, queries: Any, *, k: int = 10, target: float | None = None
) -> tuple[float, float, float]:
    """What an index finds of the exact nearest, and its median milliseconds a query beside those of a scan.

    Args:
        index: all its vectors are read into memory for the exact scan.
        queries: ``Float[queries, dim]``.
        k: neighbours of each.
        target: the recall whose measured point is used; None is the point of the plan.

    Returns:
        Recall, milliseconds of the index, milliseconds of the exact scan.
    """
    names, blocks = index.rows()
    vectors = np.concatenate(list(blocks))

    def exact(asked: NDArray[Any], wanted: int, _: Point) -> NDArray[Any]:
        found = nearest(asked, vectors, wanted, rule=index.rule.again, metric=index.metric)
        return np.asarray(names[found.indices])

    def ours(asked: NDArray[Any], wanted: int, _: Point) -> NDArray[Any]:
        return index.search(asked, wanted, recall=target).ids

    questions = Questions(queries, exact(queries, k, Point()))
    recalls, ours_ms, _ = time_search(ours, questions, Point())
    return float(recalls.mean()), ours_ms, time_search(exact, questions, Point())[1]
