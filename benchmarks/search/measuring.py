"""Measures one method: build time, bytes, and at each operating point recall and queries a second."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from methods import Built, Floats, Method

from data import VectorSet

K, BATCH = 10, 100
# Scores this close to the tenth are as good as the tenth: float32 sums in another order differ by less.
TIE = 1e-6
FOUND_ALL = 0.99995
_ROUNDS = 3
_BANDWIDTH_BYTES = 1 << 28


@dataclass(frozen=True)
class Measured:
    """One operating point. QPS are queries per second of processor time, of all threads together."""

    data: str
    method: str
    ours: bool
    point: str
    recall: float
    qps_single: float
    qps_batch: float
    bytes_per_vector: float
    resident_bytes_per_vector: float
    build_s: float
    share_of_bandwidth: float | None
    wall_over_cpu: float

    def row(self) -> dict[str, object]:
        return {
            name: float(f"{value:.5g}") if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def measure(method: Method, vectors: VectorSet, truth: Floats, seconds: float = 1.0) -> list[Measured]:
    """Build ``method`` and go through its points, until one finds all.

    Args:
        method: the method to measure.
        vectors: the base and the queries that are reported on.
        truth: score of the ``K``-th neighbour of every query.
        seconds: for each timing of a point, at least one pass over a batch.
    """
    rows = len(vectors.base)
    bandwidth = _bandwidth()
    with tempfile.TemporaryDirectory() as folder:
        before, start = _resident_bytes(), time.process_time()
        built = method.build(vectors.base, Path(folder))
        build_s = time.process_time() - start
        gc.collect()
        resident = (_resident_bytes() - before) / rows
        found: list[Measured] = []
        for point in method.points:
            recall = _recall(built, vectors, truth, point)
            single, single_wall = _qps(_singles(built, vectors.queries, point), 1, seconds)
            batch, _ = _qps(_batches(built, vectors.queries, point), BATCH, seconds)
            read = None if built.read_bytes is None else built.read_bytes(point) * single / bandwidth
            found.append(
                Measured(
                    vectors.name, method.name, method.ours, str(point), recall, single, batch,
                    built.size_bytes / rows, resident, build_s, read, single / single_wall,
                )
            )  # fmt: skip
            if recall >= FOUND_ALL:
                break
    return found


def truth_of(vectors: VectorSet) -> Floats:
    """Full-size exact cosine: the score of the ``K``-th neighbour of every query."""
    from nestling.search.exact.neighbours import nearest

    return nearest(vectors.queries, vectors.base, K, workers=1).scores[:, -1]


def _recall(built: Built, vectors: VectorSet, truth: Floats, point: Any) -> float:
    """Share of the ``K`` best that are found; each row counts once, however often it is returned."""
    hits = 0
    for start in range(0, len(truth), BATCH):
        queries = vectors.queries[start : start + BATCH]
        found = np.asarray(built.search(queries, K, point)).astype(np.int64)
        for query, rows, kth in zip(queries, found, truth[start : start + BATCH], strict=True):
            distinct = np.unique(rows[(rows >= 0) & (rows < len(vectors.base))])
            hits += min(K, int((vectors.base[distinct] @ query >= kth - TIE).sum()))
    return hits / (K * len(truth))


def _singles(built: Built, queries: Floats, point: Any) -> Callable[[int], object]:
    if built.search_one is not None:
        one = built.search_one
        return lambda turn: one(queries[turn % len(queries)], K, point)
    return lambda turn: built.search(queries[turn % len(queries)][None], K, point)


def _batches(built: Built, queries: Floats, point: Any) -> Callable[[int], object]:
    parts = [queries[start : start + BATCH] for start in range(0, len(queries) - BATCH + 1, BATCH)]
    return lambda turn: built.search(parts[turn % len(parts)], K, point)


def _qps(call: Callable[[int], object], queries_a_call: int, seconds: float) -> tuple[float, float]:
    """Queries a second of processor, and of the clock: the best of some rounds, as noise only slows down."""
    start = time.process_time()
    call(0)
    calls = max(1, int(seconds / _ROUNDS / max(time.process_time() - start, 1e-6)))
    best = [0.0, 0.0]
    for number in range(_ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        for turn in range(number * calls, (number + 1) * calls):
            call(turn)
        spent = (time.process_time() - cpu, time.perf_counter() - wall)
        best = [
            max(old, calls * queries_a_call / max(new, 1e-9)) for old, new in zip(best, spent, strict=True)
        ]
    return best[0], best[1]


def _bandwidth() -> float:
    """Bytes a second that one thread reads from memory."""
    block = np.ones(_BANDWIDTH_BYTES // 4, np.float32)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        float(block @ block)
        best = max(best, block.nbytes / (time.perf_counter() - start))
    return best


def _resident_bytes() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return (
        int(fields["RssAnon"].split()[0]) * 1024
        if "RssAnon" in fields
        else int(fields["VmRSS"].split()[0]) * 1024
    )
