"""Axes of a quantity, and legends; panels of one quantity share a scale."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from nestling.errors import require
from nestling.picture.scale import Scale

_QUANTITY = "quantity: "
_CUT = "_cut"  # matplotlib leaves names with an underscore out of legends
_MOST_INSIDE = 7  # series of a legend inside of a panel
_LONGEST = 40  # letters of a name on a line
_LETTER = 0.52  # width of a letter in its size


def tag(artist: Any, quantity: str) -> None:
    """Note on an artist which quantity it shows; nothing of it is drawn."""
    artist.set_label(_QUANTITY + quantity)


def quantity_of(artist: Any) -> str | None:
    """The quantity noted on an artist."""
    label = str(artist.get_label())
    return label.removeprefix(_QUANTITY) if label.startswith(_QUANTITY) else None


def value_axis(axes: Any, quantity: str, along: Literal["x", "y"] = "y") -> None:
    """Format an axis after drawing: it starts at 0, or shows that it is cut.

    Args:
        axes: of matplotlib.
        quantity: its name.
        along: direction of the axis.
    """
    axis = axes.yaxis if along == "y" else axes.xaxis
    tag(axis.label, quantity)
    as_they_are(axis.label)
    _apply(axis, Scale.of(_reach(axis)))


def log_axis(axes: Any, name: str) -> None:
    """Make the upright axis logarithmic, with plain numbers at 1, 2 and 5 times each power of ten."""
    ticker = require("matplotlib.ticker", "plot")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.set_ylabel(name)


def share_value_axes(panels: Iterable[Any]) -> None:
    """Give all axes of one quantity the same ends."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for axes in panels:
        for axis in (axes.xaxis, axes.yaxis):
            quantity = quantity_of(axis.label)
            if quantity is not None:
                groups[f"{axis.axis_name} {quantity}"].append(axis)
    for group in groups.values():
        scale = Scale.of(end for axis in group for end in _reach(axis))
        for axis in group:
            _apply(axis, scale)


def _reach(axis: Any) -> tuple[float, float]:
    """The least and the greatest value drawn along an axis."""
    reach = axis.axes.dataLim
    return tuple(reach.intervaly if axis.axis_name == "y" else reach.intervalx)


def _apply(axis: Any, scale: Scale) -> None:
    axes, upright = axis.axes, axis.axis_name == "y"
    for mark in [line for line in axes.lines if line.get_label() == f"{_CUT}{axis.axis_name}"]:
        mark.remove()
    axis.set_ticks(scale.ticks, scale.labels)
    # A little air, so that points at the ends are seen whole; none below 0, where nothing can be.
    air = 0.02 * (scale.high - scale.low)
    ends = (scale.low - air * (scale.low != 0), scale.high + air)
    (axes.set_ylim if upright else axes.set_xlim)(*ends)
    quantity = quantity_of(axis.label) or ""
    axis.set_label_text(quantity + (f"\n({scale.note})" if scale.cut else ""))
    if scale.cut:
        _mark_cut(axes, upright)


def _mark_cut(axes: Any, upright: bool) -> None:
    """Two short strokes across the start of an axis, the sign that it does not start at 0."""
    along, across = (0.02, 0.045), (0.0, 0.0)
    places = (across, along) if upright else (along, across)
    axes.plot(
        *places,
        transform=axes.transAxes,
        marker=[(-1, -0.5), (1, 0.5)] if upright else [(-0.5, -1), (0.5, 1)],
        linestyle="none",
        markersize=0.9 * axes.title.get_fontsize(),
        color="k",
        markeredgewidth=0.12 * axes.title.get_fontsize(),
        clip_on=False,
        label=f"{_CUT}{'y' if upright else 'x'}",
        scalex=False,
        scaley=False,
    )


def title_of(axes: Any, text: str) -> None:
    """Set a title, broken into lines as wide as the panel."""
    size = axes.title.get_fontsize() / 72
    width = axes.get_position().width * axes.figure.get_size_inches()[0]
    axes.set_title("\n".join(textwrap.wrap(text, max(12, int(width / (_LETTER * size)))) or [""]))
    as_they_are(axes.title)


def as_they_are(*texts: Any) -> None:
    """Show names as they are: matplotlib would read text between dollars as a formula."""
    for text in texts:
        text.set_parse_math(False)


def legend(axes: Any, handles: Sequence[Any], names: Sequence[str], **where: Any) -> None:
    """A legend of named series, beside the panel where it would cover much of it.

    A name may start with an underscore, which matplotlib leaves out; a long one is broken into lines.
    """
    if len(names) > _MOST_INSIDE and not where:
        where = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    whole = [f" {name}" if name.startswith("_") else name for name in names]
    shown = axes.legend(
        handles, ["\n".join(textwrap.wrap(name, _LONGEST, drop_whitespace=False)) for name in whole], **where
    )
    as_they_are(*shown.get_texts())


def share_legend(figure: Any, panels: Sequence[Any]) -> None:
    """One legend below several panels where all of them have the same."""
    legends = [axes.get_legend() for axes in panels]
    said = {tuple(text.get_text() for text in each.get_texts()) for each in legends if each is not None}
    if len(panels) < 2 or None in legends or len(said) != 1:
        return
    (names,) = said
    handles = legends[0].legend_handles
    for each in legends:
        each.remove()
    shared = figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 4))
    as_they_are(*shared.get_texts())
