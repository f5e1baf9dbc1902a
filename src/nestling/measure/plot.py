"""Curves as a picture drawn by matplotlib, without touching its global state."""

from __future__ import annotations

import io
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nestling.artifact import write_file
from nestling.errors import ConfigError, require
from nestling.measure.grid import Grid

if TYPE_CHECKING:
    from nestling.measure.choice import Row
    from nestling.measure.curve import Curve

_FORMATS = ("png", "svg", "pdf")
_MOST_LABELS = 20


def lines_of(curve: Curve, metric: str) -> Iterator[tuple[str, list[Row]]]:
    """The rows of a metric as named lines over bytes: one for each setting of the axes other than ``dim``."""
    lines: dict[str, list[Row]] = defaultdict(list)
    for row in curve.column(metric):
        others = row.granularity.replace(dim=None)
        lines[f"{curve.name}, {others}" if others and "dim" in row.granularity else curve.name].append(row)
    for name, rows in lines.items():
        yield name, sorted(rows, key=lambda row: row.vector_bytes)


def plot(curves: Sequence[Curve], target: Any, metric: str) -> None:
    """Draw a metric of every curve over the bytes of a vector, with intervals.

    Args:
        curves: the first gives title and labels.
        target: a file (.png, .svg or .pdf) or matplotlib axes.
        metric: that all curves have.

    Raises:
        ConfigError: for another kind of file, or a metric that a curve lacks.
        MissingExtraError: if matplotlib is not installed.
        StorageError: if the file cannot be written.
    """
    _into(target, lambda axes: _draw(curves, axes, metric))


def heatmap(curve: Curve, target: Any, metric: str) -> None:
    """Draw a metric of a curve over two axes as a heat map; the rest as :func:`plot`."""
    title = f"{curve.name} on {curve.task}: {metric}"
    grid = Grid.of(curve, metric)
    _into(target, lambda axes: grid.draw(axes, title))


def _into(target: Any, draw: Callable[[Any], None]) -> None:
    """Draw into a file by its name, or on axes."""
    if not isinstance(target, (str, os.PathLike)):
        draw(target)
        return
    path = Path(target)
    kind = path.suffix.lstrip(".").lower()
    if kind not in _FORMATS:
        raise ConfigError(f"{path} is no picture file; end its name in .{', .'.join(_FORMATS)}")
    figure = require("matplotlib.figure", "train").Figure(figsize=(7, 4.5), layout="constrained")
    draw(figure.add_subplot())
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, dpi=150)
    write_file(path, picture.getvalue())


def _draw(curves: Sequence[Curve], axes: Any, metric: str) -> None:
    sizes = set()
    for curve in curves:
        for name, rows in lines_of(curve, metric):
            x = [row.vector_bytes for row in rows]
            sizes.update(x)
            (line,) = axes.plot(x, [row.value for row in rows], marker="o", markersize=4, label=name)
            axes.fill_between(
                x, [row.low for row in rows], [row.high for row in rows], alpha=0.15, color=line.get_color()
            )
    axes.set_xscale("log", base=2)
    shown = _spread(sorted(sizes))
    axes.set_xticks(shown, [f"{size:,}" for size in shown], rotation=45 * (len(shown) > 8))
    axes.set_xticks([], minor=True)
    axes.set_xlabel("bytes of a vector")
    axes.set_ylabel(metric)
    axes.set_title(f"{curves[0].task}: {metric} with {curves[0].confidence:.0%} intervals")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)


def _spread(sizes: Sequence[int]) -> list[int]:
    """Sizes whose labels have room on a logarithmic axis, among them the last one."""
    room = math.log(sizes[-1] / sizes[0]) / _MOST_LABELS
    kept = [sizes[-1]]
    for size in reversed(sizes[:-1]):
        if math.log(kept[-1] / size) >= room:
            kept.append(size)
    return kept[::-1]
