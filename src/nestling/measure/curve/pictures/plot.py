"""Curves drawn with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nestling.measure.curve.grid import Grid
from nestling.measure.curve.pictures.lines import Chart
from nestling.picture import Panel, Style, draw, legend, look_of, title_of, value_axis

if TYPE_CHECKING:
    from nestling.granularity import Granularity
    from nestling.measure.curve.curve import Curve

_MOST_LABELS = 20
_FRONT = {"color": "#33353b", "alpha": 0.22, "linewidth": 7, "solid_capstyle": "round", "zorder": 1}
_RING = {
    "marker": "o",
    "markersize": 13,
    "markerfacecolor": "none",
    "markeredgecolor": "k",
    "linestyle": "none",
}


def plot(
    curves: Sequence[Curve],
    target: Any,
    metric: str,
    style: Style | None = None,
    chosen: Granularity | None = None,
) -> None:
    """Plot a metric of every curve against bytes per vector, or against their only other axis.

    Args:
        curves: the first gives title and labels.
        target: a file (.png, .svg or .pdf) or matplotlib axes.
        metric: one of all curves.
        style: of the file.
        chosen: a granularity of the first, to ring.

    Raises:
        ConfigError: for another kind of file, or a metric that a curve lacks.
        MissingExtraError: if matplotlib is not installed.
        StorageError: if the file cannot be written.
    """
    chart = Chart.of(curves, metric, chosen)
    of = f"{curves[0].name} on " if len(curves) == 1 else ""
    title = f"{of}{curves[0].task}: {metric} with {curves[0].confidence:.0%} CI"
    draw(target, lambda axes: _draw(chart, axes, title), style=style)


def heatmap(curves: Sequence[Curve], target: Any, metric: str, style: Style | None = None) -> None:
    """Draw a metric of curves over two axes as heat maps of one scale; the rest as :func:`plot`."""
    draw(target, *(_map(curve, metric) for curve in curves), style=style)


def _map(curve: Curve, metric: str) -> Panel:
    grid, title = Grid.of(curve, metric), f"{curve.name} on {curve.task}: {metric}"
    return lambda axes: grid.draw(axes, title, metric)


def _draw(chart: Chart, axes: Any, title: str) -> None:
    if chart.logarithmic:
        axes.set_xscale("log", base=2)
    drawn, names = [], [line.name for line in chart.lines]
    for number, line in enumerate(chart.lines):
        look = look_of(number)
        axes.fill_between(
            line.places,
            [row.low for row in line.rows],
            [row.high for row in line.rows],
            alpha=0.15,
            linewidth=0,
            color=look.colour,
        )
        drawn += axes.plot(
            line.places,
            [row.value for row in line.rows],
            color=look.colour,
            marker=look.marker,
            dashes=look.dashes or (None, None),
            label=line.name,
        )
    for mark, settings in ((chart.front, _FRONT), (chart.chosen, _RING)):
        if mark is not None:
            drawn += axes.plot(mark.places, [row.value for row in mark.rows], label=mark.name, **settings)
            names.append(mark.name)
    places = chart.places
    shown = _ticks(chart) if chart.logarithmic else places[:: -(-len(places) // _MOST_LABELS)]
    axes.set_xticks(shown, [f"{each:,}" for each in shown], rotation=45 * (len(shown) > 8))
    axes.set_xticks([], minor=True)
    axes.set_xlabel(chart.over)
    value_axis(axes, chart.metric)
    title_of(axes, title)
    axes.grid(visible=True)
    legend(axes, drawn, names)


def _ticks(chart: Chart) -> list[int]:
    """The places that were measured; of many precisions the powers of two, as they are budgets."""
    places = chart.places
    if chart.front is None:
        return _spread(places)
    return [1 << power for power in range(places[0].bit_length() - 1, places[-1].bit_length())]


def _spread(sizes: Sequence[int]) -> list[int]:
    """Sizes whose labels have room on a logarithmic axis, among them the last one."""
    room = math.log(sizes[-1] / sizes[0]) / _MOST_LABELS
    kept = [sizes[-1]]
    for size in reversed(sizes[:-1]):
        if math.log(kept[-1] / size) >= room:
            kept.append(size)
    return kept[::-1]
