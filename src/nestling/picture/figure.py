"""Panels of a figure, written to a file or drawn on given matplotlib axes."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from nestling.arguments.formatting import shown
from nestling.arguments.paths import home_path
from nestling.errors import ConfigError, require
from nestling.picture.axes import share_legend, share_value_axes
from nestling.picture.heat import share_colours
from nestling.picture.style import Style, panels_across, styled
from nestling.storage.artifact import write_result

Panel = Callable[[Any], None]
"""Draws on matplotlib axes."""

# Metadata that differ between two runs are left out, so that the same picture is the same file.
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": "nestling"},
    "svg": {"Creator": "nestling", "Date": None},
    "pdf": {"Creator": "nestling", "CreationDate": None},
}


def draw(target: Any, *panels: Panel, style: Style | None = None) -> None:
    """Draw panels, up to three side by side and more in a square, into a file, or one panel on axes.

    Panels that show the same quantity share its scale: the ends of an axis, or colours and one colour bar.

    Args:
        target: a file (.png, .svg or .pdf) or, for one panel, matplotlib axes.
        panels: functions that draw on axes.
        style: size, font and resolution of the file; axes keep the style that they have.

    Raises:
        ConfigError: for another kind of file, a style that cannot be, one that is given with axes, no
            panel, or several panels on one pair of axes.
        ArtifactError: if a file is there that nestling did not write.
        MissingExtraError: if matplotlib is not installed.
        StorageError: if the file cannot be written.
    """
    if not panels:
        raise ConfigError("there is nothing to draw; give at least one panel")
    if style is not None and not isinstance(style, Style):
        raise ConfigError(f"style must be a Style, such as Style(width=3.3, font_size=7), not {shown(style)}")
    if not isinstance(target, (str, os.PathLike)):
        _draw_on(target, panels, style)
        return
    path = home_path(target)
    kind = path.suffix.lstrip(".").lower()
    if kind not in _METADATA:
        raise ConfigError(f"{path} is no picture file; end its name in .{', .'.join(_METADATA)}")
    style = style or Style()
    across = panels_across(len(panels))
    down = math.ceil(len(panels) / across)
    size = style.size(across, down)
    picture = io.BytesIO()
    with styled(style):
        figure = require("matplotlib.figure", "plot").Figure(figsize=size, layout="constrained")
        places = [figure.add_subplot(down, across, place + 1) for place in range(len(panels))]
        for panel, axes in zip(panels, places, strict=True):
            panel(axes)
        _settle(places)
        share_legend(figure, places)
        figure.savefig(picture, format=kind, metadata=_METADATA[kind])
    write_result(path, picture.getvalue())


def _draw_on(axes: Any, panels: Sequence[Panel], style: Style | None) -> None:
    if not hasattr(axes, "dataLim"):
        raise ConfigError(
            f"{type(axes).__name__} is nothing to draw on; give the name of a file, or matplotlib axes"
        )
    if len(panels) != 1:
        raise ConfigError(f"{len(panels)} panels need a file; axes hold one")
    if style is not None:
        raise ConfigError("axes keep the style that they have; give style= with the name of a file")
    panels[0](axes)
    _settle([axes])


def _settle(panels: Sequence[Any]) -> None:
    """Share value axes and colours, once all panels are drawn."""
    share_value_axes(panels)
    share_colours(panels)
