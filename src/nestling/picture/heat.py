"""Heat maps; those of one quantity share a colour scale and one colour bar."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nestling.errors import require
from nestling.picture.axes import as_they_are, quantity_of, tag, title_of

Labels = tuple[str, Sequence[object]]
"""Name of an axis, and its places in order."""

_COLOURS = "viridis"  # even steps to the eye, for colour-blind readers and in grey, too
_MISSING = "#d0d0d0"
_DARK = 0.18  # relative luminance at which white and black letters have the same contrast, 4.6:1
_MOST_LABELS = 12
_MOST_VALUES = 144
_MOST_LETTERS = 24  # of all labels on a line
_BAR = 0.12  # width of a colour bar with its numbers, as a share of a panel
_CELL = "cell"


def heat_map(
    axes: Any, values: ArrayLike, down: Labels, across: Labels, title: str, quantity: str = "value"
) -> None:
    """A table of values as colours on matplotlib axes; where there is room, each cell with its value.

    Args:
        axes: of matplotlib.
        values: ``Float[down, across]``; a cell that is not finite is grey.
        down: labels of the rows, the first at the bottom.
        across: labels of the columns.
        title: of the panel.
        quantity: the name of the values; maps of the same quantity share a colour scale.
    """
    table = np.ma.masked_invalid(np.asarray(values, np.float64))
    colours = require("matplotlib", "plot").colormaps[_COLOURS].with_extremes(bad=_MISSING)
    image = axes.imshow(table, cmap=colours, aspect="auto", origin="lower")
    tag(image, quantity)
    for (name, places), mark, label, most in (
        (across, axes.set_xticks, axes.set_xlabel, _MOST_LETTERS),
        (down, axes.set_yticks, axes.set_ylabel, math.inf),
    ):
        step = math.ceil(len(places) / _MOST_LABELS)
        shown = [str(place) for place in places[::step]]
        mark(range(0, len(places), step), shown, rotation=90 * (sum(map(len, shown)) > most))
        label(name)
    as_they_are(axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels())
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    title_of(axes, title)


def share_colours(panels: Iterable[Any]) -> None:
    """Give all maps of one quantity the same colours, one bar, and letters that can be read on them."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for axes in panels:
        for image in axes.images:
            quantity = quantity_of(image)
            if quantity is not None:
                groups[quantity].append(image)
    for quantity, images in groups.items():
        ends = [end for image in images for end in _reach(image)]
        for image in images:
            image.set_clim(min(ends, default=0.0), max(ends, default=1.0))
            if image.colorbar is not None:  # of a panel that was drawn by itself before
                image.colorbar.remove()
            _write_values(image)
        if len(images) > 1 or images[0].get_array().size > _MOST_VALUES:
            panels = [image.axes for image in images]
            across = panels[0].get_subplotspec().get_gridspec().ncols if panels[0].get_subplotspec() else 1
            bar = panels[0].figure.colorbar(
                images[0], ax=panels, fraction=_BAR / across, pad=_BAR / 4 / across, aspect=28, shrink=0.9
            )
            bar.set_label(quantity)
            as_they_are(bar.ax.yaxis.label)
            bar.outline.set_visible(False)


def _reach(image: Any) -> list[float]:
    shown = image.get_array().compressed()
    return [float(shown.min()), float(shown.max())] if shown.size else []


def _write_values(image: Any) -> None:
    """Each cell's value, light on dark colours and dark on light ones; none in a large table."""
    axes, table = image.axes, image.get_array()
    for text in [text for text in axes.texts if text.get_label() == _CELL]:
        text.remove()
    if table.size > _MOST_VALUES:
        return
    for line, column in np.argwhere(~np.ma.getmaskarray(table)):
        value = float(table[line, column])
        red, green, blue = (part**2.2 for part in image.cmap(image.norm(value))[:3])  # as light, not as code
        colour = "w" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < _DARK else "k"
        cell = axes.text(
            column, line, f"{value:.3f}", ha="center", va="center", color=colour, fontsize="small"
        )
        cell.set_label(_CELL)
