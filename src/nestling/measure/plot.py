"""Curves as a picture drawn by matplotlib, without touching its global state."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nestling.measure.grid import Grid
from nestling.picture import draw

if TYPE_CHECKING:
    from nestling.measure.choice import Row
    from nestling.measure.curve import Curve

_MOST_LABELS = 20
_BYTES = "bytes of a vector"


def lines_of(curve: Curve, metric: str) -> Iterator[tuple[str, list[Row]]]:
    """The rows of a metric as named lines over bytes: one for each setting of the axes other than ``dim``."""
    lines: dict[str, list[Row]] = defaultdict(list)
    for row in curve.column(metric):
        others = row.granularity.replace(dim=None)
        lines[f"{curve.name}, {others}" if others and "dim" in row.granularity else curve.name].append(row)
    for name, rows in lines.items():
        yield name, sorted(rows, key=lambda row: row.vector_bytes)


def plot(curves: Sequence[Curve], target: Any, metric: str) -> None:
    """Draw a metric of every curve over the bytes of a vector, or their only other axis, with intervals.

    Args:
        curves: the first gives title and labels.
        target: a file (.png, .svg or .pdf) or matplotlib axes.
        metric: that all curves have.

    Raises:
        ConfigError: for another kind of file, or a metric that a curve lacks.
        MissingExtraError: if matplotlib is not installed.
        StorageError: if the file cannot be written.
    """
    draw(target, lambda axes: _draw(curves, axes, metric))


def heatmap(curve: Curve, target: Any, metric: str) -> None:
    """Draw a metric of a curve over two axes as a heat map; the rest as :func:`plot`."""
    title = f"{curve.name} on {curve.task}: {metric}"
    grid = Grid.of(curve, metric)
    draw(target, lambda axes: grid.draw(axes, title))


def _draw(curves: Sequence[Curve], axes: Any, metric: str) -> None:
    over, place = _scale(curves)
    places = set()
    for curve in curves:
        for name, rows in lines_of(curve, metric):
            rows = sorted(rows, key=place)
            x = [place(row) for row in rows]
            places.update(x)
            (line,) = axes.plot(x, [row.value for row in rows], marker="o", markersize=4, label=name)
            axes.fill_between(
                x, [row.low for row in rows], [row.high for row in rows], alpha=0.15, color=line.get_color()
            )
    if over == _BYTES:
        axes.set_xscale("log", base=2)
    shown = _spread(sorted(places)) if over == _BYTES else sorted(places)[:: -(-len(places) // _MOST_LABELS)]
    axes.set_xticks(shown, [f"{each:,}" for each in shown], rotation=45 * (len(shown) > 8))
    axes.set_xticks([], minor=True)
    axes.set_xlabel(over)
    axes.set_ylabel(metric)
    axes.set_title(f"{curves[0].task}: {metric} with {curves[0].confidence:.0%} intervals")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)


def _scale(curves: Sequence[Curve]) -> tuple[str, Callable[[Row], int]]:
    """What to draw over: the bytes of a vector, or the only axis of all curves if it is not ``dim``."""
    axes = {curve.nesting.axes for curve in curves}
    if len(axes) == 1 and "dim" not in (only := axes.pop()) and len(only) == 1:
        return only[0], lambda row: row.granularity[only[0]]
    return _BYTES, lambda row: row.vector_bytes


def _spread(sizes: Sequence[int]) -> list[int]:
    """Sizes whose labels have room on a logarithmic axis, among them the last one."""
    room = math.log(sizes[-1] / sizes[0]) / _MOST_LABELS
    kept = [sizes[-1]]
    for size in reversed(sizes[:-1]):
        if math.log(kept[-1] / size) >= room:
            kept.append(size)
    return kept[::-1]
