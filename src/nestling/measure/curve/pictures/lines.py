"""Lines of quality over cost, independent of the plotting backend."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nestling.picture import Scale

if TYPE_CHECKING:
    from nestling.granularity import Granularity
    from nestling.measure.curve.choice import Row
    from nestling.measure.curve.curve import Curve

_BYTES = "bytes per vector"


class Line(NamedTuple):
    """A named line of rows, left to right.

    Args:
        name: of the curve, and of the setting of its other axes where there are several.
        places: on the axis of costs.
        rows: the rows of the curve.
    """

    name: str
    places: tuple[int, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Chart:
    """One metric of some curves over bytes, or over the only axis of all if that is not ``dim``.

    Args:
        metric: the metric on the vertical axis.
        over: the cost on the horizontal axis.
        logarithmic: whether the axis of costs is.
        lines: in the order of the curves.
        front: best quality of the first curve at each number of bytes, if it has precisions.
        chosen: a line of one row, which is marked.
    """

    metric: str
    over: str
    logarithmic: bool
    lines: tuple[Line, ...]
    front: Line | None = None
    chosen: Line | None = None

    @classmethod
    def of(cls, curves: Sequence[Curve], metric: str, chosen: Granularity | None = None) -> Chart:
        """The chart of curves that all have the metric.

        The first is one line per precision. Others with precisions are drawn in full precision, and as the
        front of all their sizes and precisions.

        Args:
            curves: the curves to draw.
            metric: of the vertical axis.
            chosen: a granularity of the first.

        Raises:
            ConfigError: for a metric that a curve lacks.
        """
        over, place = _scale(curves)
        first, *others = curves
        lines = [
            *_lines(first, metric, place, first.name if others else ""),
            *(line for other in others for line in _beside(other, metric, place)),
        ]
        point = None if chosen is None else Line("chosen", *_placed([first.row(chosen, metric)], place))
        front = _front(first, metric, place, "Pareto front") if "bits" in first.nesting.axes else None
        return cls(metric, over, over == _BYTES, tuple(lines), front, point)

    @property
    def places(self) -> list[int]:
        """Every place where something was measured, rising."""
        return sorted({place for line in self.lines for place in line.places})

    @property
    def scale(self) -> Scale:
        """The axis of the metric."""
        rows = [row for line in self.lines for row in line.rows]
        return Scale.of(end for row in rows for end in (row.low, row.value, row.high))


def _lines(curve: Curve, metric: str, place: Callable[[Row], int], name: str) -> Iterator[Line]:
    """A line for each setting of the axes other than ``dim``, such as a precision, after ``name``."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in curve.column(metric):
        others = row.granularity.replace(dim=None)
        setting = f"{name}, {others}" if name else str(others)
        found[setting if others and "dim" in row.granularity else curve.name].append(row)
    for name, rows in found.items():
        rows.sort(key=place)
        yield Line(name, *_placed(rows, place))


def _beside(curve: Curve, metric: str, place: Callable[[Row], int]) -> Iterator[Line]:
    if "bits" not in curve.nesting.axes:
        yield from _lines(curve, metric, place, curve.name)
        return
    full = curve.nesting.full["bits"]
    yield from _lines(curve.part(g for g in curve.nesting if g["bits"] == full), metric, place, curve.name)
    yield _front(curve, metric, place, f"{curve.name}, best dim and bits")


def _front(curve: Curve, metric: str, place: Callable[[Row], int], name: str) -> Line:
    """The rows that are better than all that take no more bytes."""
    best: list[Row] = []
    for row in sorted(curve.column(metric), key=lambda row: (place(row), -row.value)):
        if not best or row.value > best[-1].value:
            best.append(row)
    return Line(name, *_placed(best, place))


def _placed(rows: Sequence[Row], place: Callable[[Row], int]) -> tuple[tuple[int, ...], tuple[Row, ...]]:
    return tuple(map(place, rows)), tuple(rows)


def _scale(curves: Sequence[Curve]) -> tuple[str, Callable[[Row], int]]:
    axes = {curve.nesting.axes for curve in curves}
    if len(axes) == 1 and "dim" not in (only := axes.pop()) and len(only) == 1:
        return only[0], lambda row: row.granularity[only[0]]
    return _BYTES, lambda row: row.vector_bytes
