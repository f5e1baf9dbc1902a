"""Pictures by matplotlib that leave its global state alone, and the heat map that several rooms draw."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nestling.artifact import write_file
from nestling.errors import ConfigError, require

Panel = Callable[[Any], None]
"""Draws on matplotlib axes."""
Labels = tuple[str, Sequence[object]]
"""What an axis is called, and its places in order."""

_FORMATS = ("png", "svg", "pdf")
_SIZE = (7.0, 4.5)  # inches, of a picture of one panel
_PANEL = (4.2, 3.8)
_ON_A_LINE = 3  # more panels than these stand in a square
_DARK = 0.6  # share of the range above which the colours of a heat map are light
_MOST_LABELS = 12
_MOST_VALUES = 144
_MOST_LETTERS = 24  # of all labels on a line


def draw(target: Any, *panels: Panel) -> None:
    """Draw panels, up to three side by side and more in a square, into a file, or one panel on axes.

    Args:
        target: a file (.png, .svg or .pdf) or, for one panel, matplotlib axes.
        panels: what to draw.

    Raises:
        ConfigError: for another kind of file, or several panels on one pair of axes.
        MissingExtraError: if matplotlib is not installed.
        StorageError: if the file cannot be written.
    """
    if not isinstance(target, (str, os.PathLike)):
        if len(panels) != 1:
            raise ConfigError(f"{len(panels)} panels need a file; axes hold one")
        panels[0](target)
        return
    path = Path(target)
    kind = path.suffix.lstrip(".").lower()
    if kind not in _FORMATS:
        raise ConfigError(f"{path} is no picture file; end its name in .{', .'.join(_FORMATS)}")
    across = len(panels) if len(panels) <= _ON_A_LINE else math.ceil(math.sqrt(len(panels)))
    down = math.ceil(len(panels) / across)
    size = _SIZE if len(panels) == 1 else (across * _PANEL[0], down * _PANEL[1])
    figure = require("matplotlib.figure", "train").Figure(figsize=size, layout="constrained")
    for place, panel in enumerate(panels, start=1):
        panel(figure.add_subplot(down, across, place))
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, dpi=150)
    write_file(path, picture.getvalue())


def heat_map(axes: Any, values: ArrayLike, down: Labels, across: Labels, title: str) -> None:
    """A table of values as colours on matplotlib axes; where there is room, each cell with its value.

    Args:
        axes: of matplotlib.
        values: ``Float[down, across]``; a cell that is NaN stays empty.
        down: what the lines are, the first at the bottom.
        across: what the columns are.
        title: of the panel.
    """
    table = np.asarray(values, np.float64)
    image = axes.imshow(table, cmap="viridis", aspect="auto", origin="lower")
    if table.size <= _MOST_VALUES:
        low, high = image.get_clim()
        for line, column in np.argwhere(np.isfinite(table)):
            value = table[line, column]
            light = high > low and (value - low) / (high - low) < _DARK
            axes.text(column, line, f"{value:.3f}", ha="center", va="center", color="w" if light else "k")
    else:
        axes.figure.colorbar(image, ax=axes)
    for (name, places), mark, label, most in (
        (across, axes.set_xticks, axes.set_xlabel, _MOST_LETTERS),
        (down, axes.set_yticks, axes.set_ylabel, math.inf),
    ):
        step = math.ceil(len(places) / _MOST_LABELS)
        shown = [str(place) for place in places[::step]]
        mark(range(0, len(places), step), shown, rotation=90 * (sum(map(len, shown)) > most))
        label(name)
    axes.set_title(title)
