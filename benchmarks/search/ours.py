"""Nestling's own ways. To add one, write a function that builds it and give it a line in :func:`ours`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ways import Built, Floats, Ints, Way


def ours(rows: int, dim: int) -> list[Way]:
    """The ways that stand in this version of nestling."""
    return [Way("nestling exact", _exact, ours=True), *_plans(rows, dim)]


def _exact(base: Floats, folder: Path) -> Built:
    from nestling.search.exact import nearest

    def search(queries: Floats, k: int, point: Any) -> Ints:
        return nearest(queries, base, k, workers=1).indices

    return Built(search, base.nbytes, read_bytes=lambda point: base.nbytes)


def _plans(rows: int, dim: int) -> Iterator[Way]:
    try:
        from nestling.search.engine import Point
    except ImportError:
        return
    half = dim // 2
    shorts = [Point(None, None, (k,)) for k in (20, 50, 100, 200, 500, 1000)]
    for plan in (f"pq{half}x4@full > rerank:int8@full", "rabitq@full > rerank:int8@full"):
        yield Way(f"nestling {plan}", _planned(plan), shorts, ours=True)


def _planned(text: str) -> Callable[[Floats, Path], Built]:
    def build(base: Floats, folder: Path) -> Built:
        from nestling.search.engine import build as build_engine

        from nestling.cut import CutRule
        from nestling.search.plan import Plan

        plan = Plan.parse(text).resolve(base.shape[1])
        engine = build_engine(plan, base, rule=CutRule("none", "l2"), workers=1, folder=folder)

        def search(queries: Floats, k: int, point: Any) -> Ints:
            return engine.search(queries, k, point, workers=1).indices

        default = plan.default_point(len(base), 10)
        stored = plan.cost(len(base), base.shape[1], default).bytes_stored
        return Built(
            search, stored, read_bytes=lambda point: plan.cost(len(base), base.shape[1], point).bytes_read
        )

    return build
