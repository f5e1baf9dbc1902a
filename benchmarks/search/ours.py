"""Nestling's own methods. To add one, write a function that builds it and give it a line in :func:`ours`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from methods import Built, Floats, Ints, Method
from peers import EF, NPROBE, SHORTLISTS, lists

from nestling.cut import CutRule
from nestling.search.engine.engine import build
from nestling.search.exact.neighbours import nearest
from nestling.search.plan.plan import Plan, Point

UNIT = CutRule("none", "l2")
FROM_DISK = ", vectors on disk"


def ours(rows: int, dim: int) -> Iterator[Method]:
    """The methods of this version of nestling."""
    yield Method("nestling exact", _exact, ours=True)
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
    kept = [Point(ef=ef, shortlists=(min(100, max(10, ef * 3 // 4)),)) for ef in EF]
    for links, store in product((32, 48, 64), ("fp16", "int8")):
        yield _plan(f"graph{links}@full > rerank:{store}@full", kept)
    yield _plan("graph64@full > rerank@full", kept)
    twice = [Point(ef=ef, shortlists=(min(200, ef), 20)) for ef in EF if ef >= 20]
    yield _plan("graph64@full > rerank:int8@full > rerank@full", twice)
    yield _plan(f"pq{dim // 4}x4@full > rerank@full", shorts, FROM_DISK)
    yield _plan("graph32@full > rerank@full", kept, FROM_DISK)


def _exact(base: Floats, folder: Path) -> Built:
    def search(queries: Floats, k: int, point: Any) -> Ints:
        return nearest(queries, base, k, workers=1).indices

    return Built(search, base.nbytes, read_bytes=lambda point: base.nbytes)


def _plan(text: str, points: list[Point], suffix: str = "") -> Method:
    return Method(f"nestling {text}{suffix}", _planned(text, suffix == FROM_DISK), points, ours=True)


def _planned(text: str, from_disk: bool) -> Callable[[Floats, Path], Built]:
    def planned(base: Floats, folder: Path) -> Built:
        if from_disk:  # a memory map, whose pages the system may drop; here it has room for them
            np.save(folder / "base.npy", base)
            base = np.load(folder / "base.npy", mmap_mode="r")
        engine = build(text, base, rule=UNIT, workers=1)
        plan = Plan.parse(text)
        cost = engine.cost(Point() if plan.certify else None)
        # Stages that compare with the vectors themselves need these in memory, or on disk.
        reads_vectors = plan.certify or any(stage.store == "flat" for stage in plan.reranks)
        size_bytes = cost.bytes_stored + (base.nbytes if reads_vectors and not from_disk else 0)

        def search(queries: Floats, k: int, point: Point) -> Ints:
            return engine.search(queries, k, point, workers=1).indices

        return Built(search, size_bytes, read_bytes=lambda point: engine.cost(point).bytes_read)

    return planned
