"""Nestling's own ways. To add one, write a function that builds it and give it a line in :func:`ours`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import EF, NPROBE, SHORTLISTS, lists
from ways import Built, Floats, Ints, Way

from nestling.cut import CutRule
from nestling.search.engine import build
from nestling.search.exact import nearest
from nestling.search.plan import Plan, Point
from nestling.search.walk import GraphScan

UNIT = CutRule("none", "l2")


def ours(rows: int, dim: int) -> Iterator[Way]:
    """The ways that stand in this version of nestling."""
    yield Way("nestling exact", _exact, ours=True)
    yield _plan("int4@full > certify@full", [Point()])
    yield _plan("int4@full > certify@full", [Point(confidence=0.9999)], " at 0.9999")
    shorts = [Point(shortlists=(shortlist,)) for shortlist in SHORTLISTS]
    for scan in (f"pq{dim // 4}x4@full", f"pq{dim // 2}x4@full"):
        for rerank in ("rerank:int8@full", "rerank:fp16@full"):
            yield _plan(f"{scan} > {rerank}", shorts)
    probes = [Point(nprobe=nprobe, shortlists=(k,)) for nprobe in NPROBE for k in (40, 160)]
    yield _plan(f"ivf{lists(rows)}@{dim // 2} > pq{dim // 4}x4@full > rerank:int8@full", probes)
    walks = [Point(ef=ef, shortlists=(max(20, ef // 2),)) for ef in EF]
    yield _plan(f"hnsw32@full > int8@{dim // 2} > rerank:int8@full", walks)
    for links, stored in ((32, np.float16), (64, np.float16), (64, np.float32)):
        name = f"nestling graph{links}, {np.dtype(stored).name} vectors"
        yield Way(name, partial(_graph, links=links, stored=stored), EF, ours=True)


def _exact(base: Floats, folder: Path) -> Built:
    def search(queries: Floats, k: int, point: Any) -> Ints:
        return nearest(queries, base, k, workers=1).indices

    return Built(search, base.nbytes, read_bytes=lambda point: base.nbytes)


def _graph(base: Floats, folder: Path, *, links: int, stored: type[np.floating[Any]]) -> Built:
    vectors = base.astype(stored)
    scan = GraphScan.build(vectors, rule=UNIT, links=links, workers=1)

    def search(queries: Floats, k: int, ef: int) -> Ints:
        return scan.search(queries, k, ef=max(ef, k), workers=1).indices

    return Built(search, scan.cost().size_bytes + vectors.nbytes)


def _plan(text: str, points: list[Point], suffix: str = "") -> Way:
    return Way(f"nestling {text}{suffix}", _planned(text), points, ours=True)


def _planned(text: str) -> Callable[[Floats, Path], Built]:
    def planned(base: Floats, folder: Path) -> Built:
        engine = build(text, base, rule=UNIT, workers=1)
        plan = Plan.parse(text)
        cost = engine.cost(Point() if plan.certify else None)
        # What is compared with the vectors themselves needs them in memory.
        reads_vectors = plan.certify or any(stage.store == "flat" for stage in plan.reranks)
        size_bytes = cost.bytes_stored + (base.nbytes if reads_vectors else 0)

        def search(queries: Floats, k: int, point: Point) -> Ints:
            return engine.search(queries, k, point, workers=1).indices

        return Built(search, size_bytes, read_bytes=lambda point: engine.cost(point).bytes_read)

    return planned
