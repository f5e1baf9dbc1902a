"""Figure size, font and resolution, and the settings of all figures saved to files."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nestling.arguments.constraints import Real, checked
from nestling.errors import ConfigError, require, unknown

_INCHES = Real(least=0.5, most=100.0) | None
_MOST_PIXELS = 2**15  # a side; above it a picture takes gigabytes
_SETTINGS = {
    "pdf.fonttype": 42,  # TrueType, whole: journals refuse Type 3
    "ps.fonttype": 42,
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud and edited
    "svg.hashsalt": "nestling",  # the same picture is the same file
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "grid.color": "#d9dce1",
    "axes.axisbelow": True,
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
    "legend.fontsize": "small",
    "legend.frameon": False,
    "legend.handlelength": 3.2,  # room to see the dashes
}
_IN_LETTERS = {  # as shares of the size of the letters: a small picture is a small copy of a large one
    "axes.linewidth": 0.08,
    "grid.linewidth": 0.06,
    "lines.linewidth": 0.16,
    "lines.markersize": 0.5,
    "xtick.major.width": 0.08,
    "ytick.major.width": 0.08,
    "xtick.major.size": 0.35,
    "ytick.major.size": 0.35,
}
_drawing = threading.RLock()  # matplotlib's settings belong to the process


def _renew_lock() -> None:
    """Give a forked child a free lock: the thread that held it does not exist there."""
    global _drawing
    _drawing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@dataclass(frozen=True)
@checked(width=_INCHES, height=_INCHES, font_size=Real(least=2, most=100), dpi=Real(least=20, most=2400))
class Style:
    """Size, font and resolution of a figure in a file.

    Args:
        width: inches; by default 7, or 4.2 a panel where there are several side by side.
        height: inches; by default 4.5, or 3.8 a panel.
        font_size: points.
        font: a family that is installed, such as ``"Arial"``; by default DejaVu Sans, which comes with
            matplotlib.
        dpi: dots an inch of a ``.png``.

    Raises:
        ConfigError: for a value out of range.

    >>> Style(width=3.3, font_size=7)  # one column of a journal
    Style(width=3.3, height=None, font_size=7, font=None, dpi=150)
    """

    width: float | None = None
    height: float | None = None
    font_size: float = 10
    font: str | None = None
    dpi: int = 150

    def size(self, across: int, down: int) -> tuple[float, float]:
        """Size in inches of a figure with these panels.

        Raises:
            ConfigError: if a side has too many pixels.
        """
        one = across == down == 1
        width = self.width or (7.0 if one else 4.2 * across)
        height = self.height or (4.5 if one else 3.8 * down)
        if max(width, height) * self.dpi > _MOST_PIXELS:
            raise ConfigError(
                f"{width:g} x {height:g} inches of {self.dpi} dpi are more than {_MOST_PIXELS:,} pixels a "
                "side; lower dpi, or write a .pdf or .svg"
            )
        return width, height


@contextmanager
def styled(style: Style) -> Iterator[None]:
    """Set matplotlib's defaults and ours inside the block; restore the previous settings afterwards.

    Raises:
        ConfigError: for a font that is not installed.
        MissingExtraError: if matplotlib is not installed.
    """
    settings: dict[str, Any] = {**_SETTINGS, "font.size": style.font_size, "savefig.dpi": style.dpi}
    settings.update({name: share * style.font_size for name, share in _IN_LETTERS.items()})
    if style.font is not None:
        _check_font(style.font)
        settings["font.family"] = [style.font, "DejaVu Sans"]
    with _drawing, require("matplotlib.style", "plot").context(["default", settings]):
        yield


def _check_font(family: str) -> None:
    manager = require("matplotlib.font_manager", "plot")
    try:
        manager.findfont(family, fallback_to_default=False)
    except ValueError as error:
        installed = sorted({entry.name for entry in manager.fontManager.ttflist})
        raise ConfigError(unknown("font", family, installed)) from error


def panels_across(count: int) -> int:
    """Number of panels side by side on a sheet: up to three in a line, more in a square."""
    return count if count <= 3 else math.ceil(math.sqrt(count))
