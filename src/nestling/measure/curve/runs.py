"""Several runs of one model, such as seeds, combined into one curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nestling.errors import DataError
from nestling.measure.curve.choice import Row
from nestling.measure.curve.provenance import check_same_data

if TYPE_CHECKING:
    from nestling.measure.curve.curve import Curve

_FEWEST = 2


def mean(curves: Sequence[Curve], name: str | None = None) -> Curve:
    """The mean of curves, from the lowest to the highest; see :meth:`Curve.mean`."""
    if len(curves) < _FEWEST:
        raise DataError(f"{len(curves)} curve has no spread; give the curves of at least {_FEWEST} runs")
    first = curves[0]
    check_same_data(curves, mixed=False)
    for other in curves[1:]:
        if (other.nesting, other.metrics) != (first.nesting, first.metrics):
            raise DataError(
                f"the curves are not of one kind: {', '.join(first.metrics)} at {first.nesting}, and "
                f"{', '.join(other.metrics)} at {other.nesting}"
            )
    rows = [_mean_row([curve.row(row.granularity, row.metric) for curve in curves]) for row in first.rows]
    beside = [curve.truncation for curve in curves if curve.truncation is not None]
    # Plain truncation has no seed: it is the same in all runs, unless each run was made of another model.
    truncation = beside[0] if len(beside) == len(curves) else None
    return replace(
        first,
        rows=tuple(rows),
        name=name or first.name,
        truncation=truncation,
        gains=(),
        note="",
        runs=sum(curve.runs for curve in curves),
    )


def _mean_row(rows: Sequence[Row]) -> Row:
    values, kept = (np.array([getattr(row, name) for row in rows]) for name in ("value", "kept"))
    return replace(
        rows[0],
        value=float(values.mean()),
        low=float(values.min()),
        high=float(values.max()),
        kept=float(kept.mean()),
        kept_low=float(kept.min()),
        kept_high=float(kept.max()),
        flops=_mean([row.flops for row in rows]),
        latency_ms=_mean([row.latency_ms for row in rows]),
    )


def _mean(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return float(np.mean(known)) if len(known) == len(costs) else None
