"""Choosing a plan by measurement: candidates are built, searched at ever larger points, and compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling import kernels
from nestling.arguments.constraints import Whole, check
from nestling.bits import FEWEST_ROWS
from nestling.cut import CutRule, check_vectors
from nestling.errors import ConfigError, DataError
from nestling.granularity import At
from nestling.process.interrupts import on_interrupt
from nestling.search.exact.neighbours import Metric, nearest
from nestling.search.exact.recall import Questions
from nestling.search.index.index import AdaptiveIndex
from nestling.search.plan.frontier import Frontier, Trial, check_targets
from nestling.search.plan.plan import Plan, Point
from nestling.search.tuning.trials import Comparison, climb, time_search
from nestling.storage.artifact import open_array
from nestling.storage.npy import write_npy
from nestling.vectors.coding import with_code
from nestling.vectors.matrix import Sizes
from nestling.vectors.prefix import prepare
from nestling.vectors.stored import StoredVectors
from nestling.vectors.vectors_like import VectorsLike

# Below so many rows an exact scan takes well under a millisecond, and what must be trained saves nothing.
_FEW_ROWS = 10_000
# Codes of less than so small a part of the entries find too little of the neighbours by all of them.
_FEWEST_MIXED = 8


def candidate_plans(
    rows: int, sizes: Sequence[int], *, nested: bool = False, held: int | None = None
) -> tuple[Plan, ...]:
    """A small family of plans for so many vectors, those first that read the least for a query.

    Args:
        rows: vectors to be searched.
        sizes: prefixes that may be read, the last one the full size.
        nested: only plans that can be searched at every size: codes that mix entries, such as those of
            graphs, are then built at the first size.
        held: bits of each entry of rows that are held as codes, whose slices are then scanned and re-ranked.
    """
    full = sizes[-1]
    if held is not None:
        scans = ["bits1:binary", *(f"bits{few}" for few in (1, 2, 4) if few < held)]
        texts = [f"bits{held}@full", *(f"{scan}@full > rerank:bits{held}@full" for scan in scans)]
        return _cheapest_first(texts, rows, full)
    mixed = sizes[0] if nested else full
    near = {min(sizes, key=lambda size: abs(size - target)) for target in (full // 4, full // 2, full)}
    texts, short = ["flat@full"], sorted(near)
    texts += [f"int4@{dim} > rerank@full" for dim in short if dim % 2 == 0]
    # In numpy, codes are decoded for every query.
    bits = ("1", "2", "4") if rows >= FEWEST_ROWS and kernels.level() != "off" else ()
    texts += [f"bits{few}@full > rerank:bits8@full" for few in bits] + ["bits4@full" for _ in bits[:1]]
    if rows >= _FEW_ROWS:
        lists = 1 << round(math.log2(4 * math.sqrt(rows)))
        mixed_enough = [mixed] if _FEWEST_MIXED * mixed >= full else []
        texts += [f"rabitq@{dim} > rerank@full" for dim in mixed_enough]
        coded = mixed_enough if nested else short[-2:]
        texts += [f"pq{dim // 4}x4@{dim} > rerank@full" for dim in coded if dim % 4 == 0]
        texts += [f"ivf{lists}@{dim} > int8@{dim} > rerank@full" for dim in short[-2:]]
        # Without compiled kernels numpy searches our own graph row by row, and that of faiss is faster.
        links = ("graph32", "graph64") if kernels.level() != "off" else ()
        texts += [f"{graph}@{dim} > rerank@full" for graph in links for dim in mixed_enough]
        texts += [f"hnsw32@{dim} > int8@{dim} > rerank@full" for dim in short[-2:] if not links]
    return _cheapest_first(texts, rows, full)


def _cheapest_first(texts: Sequence[str], rows: int, full: int) -> tuple[Plan, ...]:
    """Plans, those first that read the least for a query."""
    return tuple(sorted(map(Plan.parse, texts), key=lambda plan: plan.cost(rows, full).bytes_read))


def tune(
    vectors: VectorsLike,
    *,
    queries: Any = None,
    k: int = 10,
    recall: float | None = 0.95,
    max_bytes: float | None = None,
    max_ms: float | None = None,
    plans: Sequence[Plan | str] | None = None,
    sizes: Sequence[int] | None = None,
    nested: bool = False,
    rule: CutRule | None = None,
    metric: Metric = "dot",
    seed: int = 0,
    workers: int | None = None,
) -> tuple[Trial, Frontier]:
    """The fastest plan and point that meet the targets, and all measurements.

    Candidates are first compared on a sample of the rows, for about half the time of a full build. The best
    candidate is then built in full; others are tried only if it misses the target and the time budget of
    three builds allows. Each is searched at growing points: one parameter is doubled at a time, the one that
    gains most recall for its time.

    Args:
        vectors: ``Float[n, dim]``; may be a memory map, or stored vectors, also such as are held in codes:
            the exact nearest are then those of the codes.
        queries: ``Float[m, dim]``, held out from the vectors; rows of the vectors by default, each of which
            must then find its nearest others.
        k: neighbours wanted; all others where there are fewer.
        recall: share of the exact ``k`` nearest to be found; the lower end of its 95 % interval counts.
            None takes the most that fits ``max_bytes`` and ``max_ms``.
        max_bytes: in memory for each vector.
        max_ms: median latency of a single query.
        plans: plans to compare, each built over all rows; by default some of :func:`candidate_plans`.
        sizes: prefixes that plans may read, the full size last; quarters of it by default.
        nested: compare only plans that can be searched at every size, unless plans are named.
        rule: steps around a cut; None is that of stored vectors, and cosines for others.
        metric: ``"dot"`` or ``"euclidean"``.
        seed: of samples, queries and builds.
        workers: threads.

    Raises:
        ConfigError: if no plan meets the targets; the nearest is named.
        DataError: for vectors or queries that cannot be used.
    """
    check_targets(recall, max_bytes=max_bytes, max_ms=max_ms)
    rows = StoredVectors.of(vectors, rule=rule)
    k = _as_many(k, len(rows))
    family = None if plans is None else tuple(dict.fromkeys(map(_read, plans)))
    with Comparison(rows, queries, k, rows.rule, metric, seed, workers) as comparison:
        return _run(comparison, family, sizes, nested, recall, max_bytes, max_ms)


def _as_many(k: int, rows: int) -> int:
    """``k``, or all other rows if there are fewer: a search finds no more either."""
    if rows < 2:
        raise DataError("measuring recall needs at least two vectors; give more vectors")
    return min(check("k", k, Whole(1)), rows - 1)


def _run(
    comparison: Comparison,
    family: Sequence[Plan] | None,
    sizes: Sequence[int] | None,
    nested: bool,
    recall: float | None,
    max_bytes: float | None,
    max_ms: float | None,
) -> tuple[Trial, Frontier]:
    rows, full = comparison.vectors.shape
    sizes = tuple(sizes or range(-(-full // 4), full, -(-full // 4))) + ((full,) if not sizes else ())
    is_bounded = family is None  # plans that were named are all to be seen
    if family is None:
        family = candidate_plans(rows, sizes, nested=nested, held=comparison.held)
    if not family:
        raise ConfigError(
            "there are no plans to compare; give at least one, or none at all for the usual ones"
        )

    if max_bytes is not None:  # plans too large are not built, unless all are; the error then says so
        small = [plan for plan in family if plan.cost(rows, full).bytes_stored <= max_bytes * rows]
        family = small or family

    def enough(trial: Trial) -> bool:
        fits = (max_bytes is None or trial.row_bytes <= max_bytes) and (
            max_ms is None or trial.latency_ms <= max_ms
        )
        return fits and recall is not None and trial.low >= recall

    ranked = partial(_rank, recall=recall, max_bytes=max_bytes)
    trials = tuple(comparison.run(family, ranked, enough, is_bounded=is_bounded))
    reason = _reason(trials, recall, sizes if nested and is_bounded else None)
    frontier = Frontier(
        trials, comparison.k, len(comparison.queries), comparison.own is not None, comparison.seconds, reason
    )
    return frontier.choose(recall, max_bytes=max_bytes, max_ms=max_ms), frontier


def _reason(trials: Sequence[Trial], recall: float | None, sizes: Sequence[int] | None) -> str:
    """Reason for the choice of a plan, in words."""
    count = len({trial.plan for trial in trials})
    wanted = "that finds most" if recall is None else f"whose recall is at least {recall:g}"
    measured = f"the fastest of {count} plans {wanted}, measured on these vectors"
    if sizes is None or len(sizes) < 2:
        return measured
    return (
        f"{measured}; only plans that can be searched at each of dim={','.join(map(str, sizes))} were "
        f"compared, so none whose codes mix more than {sizes[0]} entries"
    )


def _read(plan: Plan | str) -> Plan:
    return Plan.parse(plan) if isinstance(plan, str) else plan


def _rank(trials: Sequence[Trial], recall: float | None, max_bytes: float | None) -> list[Plan]:
    """The plans, the most promising first: the fastest to the target, then those that come nearest to it."""
    target = recall or 1.0

    def promise(plan: Plan) -> tuple[bool, bool, float]:
        own = [trial for trial in trials if trial.plan == plan]
        reached = [trial.latency_ms for trial in own if trial.recall >= target]
        too_large = max_bytes is not None and own[0].row_bytes > max_bytes
        return too_large, not reached, min(reached) if reached else -max(trial.recall for trial in own)

    return sorted({trial.plan: None for trial in trials}, key=promise)


def build(
    folder: str | Path,
    vectors: VectorsLike,
    ids: Any = None,
    *,
    at: At = None,
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
    fields: Any = None,
) -> AdaptiveIndex:
    """An index in ``folder``, its plan found by :func:`tune` unless given, with what was measured of it.

    The arguments are those of :func:`tune` and of
    :meth:`~nestling.search.index.index.AdaptiveIndex.create`. If sizes are given, by ``nesting`` or by stored
    vectors that were given theirs, the plan can be searched at each of them. ``nesting="dim=256"``, the full
    size alone, allows all plans. Searches that name no point use the one that was chosen for ``recall``;
    ``index.info().reason`` says why this plan was chosen. With ``at="dim=256,bits=2"`` the index keeps codes;
    recall is then that of a search among them, and :func:`~nestling.measure.sweep` says what they cost.
    """
    check_targets(recall, max_bytes=max_bytes, max_ms=max_ms)
    given: Any = {"rule": rule, "ids": ids, "encoder": encoder, "fields": fields}
    rows = with_code(StoredVectors.of(vectors, nesting, **given), at)
    k = min(check("k", k, Whole(1)), len(rows) - 1)  # recall needs at least two vectors
    create = partial(
        AdaptiveIndex.create, folder, rows, at=at, nesting=nesting, metric=metric, seed=seed, workers=workers
    )
    if plan is not None or not k:
        index = create(plan=plan)
        if k:
            options: Any = {"queries": queries, "k": k, "seed": seed, "workers": workers}
            with suppress(ConfigError):  # a plan that was given stays, whatever it finds
                retune(index, recall=recall, max_bytes=max_bytes, max_ms=max_ms, **options)
        return index
    sizes = rows.sizes.sizes("dim")
    with TemporaryDirectory(prefix="nestling-cut-") as place:
        kept = rows if at is None else rows.extract(at, Path(place) / "vectors")
        dims = [dim for dim in sizes if dim <= kept.values.shape[1]]
        if queries is not None and kept is not rows:
            queries = prepare(check_vectors(queries, "queries"), dims[-1], rows.rule)
        with Comparison(kept, queries, k, kept.rule, metric, seed, workers) as comparison:
            chosen, frontier = _run(comparison, None, dims, rows.is_nested, recall, max_bytes, max_ms)
            # Steps before a cut are done to the vectors of an index, not to those that were measured.
            built = comparison.engines[chosen.plan] if kept.rule.before == "none" else None
            index = create(plan=chosen.plan, engine=built)
    _keep(index, frontier.of(chosen.plan), chosen)
    return index


def _keep(index: AdaptiveIndex, frontier: Frontier, chosen: Trial) -> None:
    """Write what was measured of an index into it; searches that name no point use the chosen one."""
    table = list(frontier.pareto())
    table += [] if chosen in table else [chosen]
    point = chosen.point if str(chosen.point) else None
    rows = (trial.to_json() for trial in table)
    settings: Any = {"k": frontier.k, "sampled": frontier.sampled, "reason": frontier.reason}
    index.write_table(rows, point=point, **settings)


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
    """Measure an index as it is at ever larger points, and keep the table in it.

    The table is what ``index.search(..., recall=)`` picks its point from, and searches that name none use the
    point that is chosen here. For the arguments see :func:`tune`.
    """
    check_targets(recall, max_bytes=max_bytes, max_ms=max_ms)
    is_kept = on_interrupt(
        lambda: f"the index {index.folder} is as it was; run it again to measure its points"
    )
    with is_kept, TemporaryDirectory(prefix="nestling-tune-") as folder:
        names, rows, _ = index.rows()
        k = _as_many(k, len(names))
        path = Path(folder) / "vectors.npy"
        write_npy(path, rows, (len(names), index.dim), np.dtype(np.float32))
        vectors = open_array(path)
        comparison = Comparison(vectors, queries, k, index.rule, index.metric, seed, workers)
        questions = comparison.ask(vectors, comparison.own).named(names)

        def search(asked: NDArray[Any], wanted: int, point: Point) -> NDArray[Any]:
            return index.search(asked, wanted, point=point, workers=workers).ids

        row_bytes = index.info().kept_bytes / len(names)
        trials = tuple(climb(search, index.plan, questions, len(names), row_bytes, 0.0))
    frontier = Frontier(
        trials, k, len(comparison.queries), queries is None, comparison.seconds, index.info().reason
    )
    wanted = frontier.closest(recall, max_bytes=max_bytes, max_ms=max_ms)
    _keep(index, frontier, wanted)
    return frontier.choose(recall, max_bytes=max_bytes, max_ms=max_ms), frontier


def compare_with_exact(
    index: AdaptiveIndex, queries: Any, *, k: int = 10, target: float | None = None
) -> tuple[float, float, float]:
    """Recall of an index against exact search, and the median latency of both.

    Args:
        index: all its vectors are read into memory for the exact scan.
        queries: ``Float[queries, dim]``.
        k: neighbours of each.
        target: the recall whose measured point is used; None is the point of the plan.

    Returns:
        Recall, milliseconds of the index, milliseconds of the exact scan.
    """
    names, blocks, _ = index.rows()
    vectors = np.concatenate(list(blocks))

    def exact(asked: NDArray[Any], wanted: int, _: Point) -> NDArray[Any]:
        found = nearest(asked, vectors, wanted, rule=index.rule.again, metric=index.metric)
        return np.asarray(names[found.indices])

    def ours(asked: NDArray[Any], wanted: int, _: Point) -> NDArray[Any]:
        return index.search(asked, wanted, recall=target).ids

    asked = check_vectors(queries, "queries", dim=index.dim)
    questions = Questions.ask(asked, vectors, k, rule=index.rule.again, metric=index.metric).named(names)
    recalls, ours_ms, _ = time_search(ours, questions, Point())
    return float(recalls.mean()), ours_ms, time_search(exact, questions, Point())[1]
