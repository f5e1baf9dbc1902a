"""Plots in one style: series styles, honest axes, heat maps with a shared colour scale, files."""

from nestling.picture.axes import as_they_are, legend, log_axis, title_of, value_axis
from nestling.picture.figure import Panel, draw
from nestling.picture.heat import Labels, heat_map
from nestling.picture.scale import Scale
from nestling.picture.series import DASHES, LOOKS, Look, look_of
from nestling.picture.style import Style

__all__ = [
    "DASHES",
    "LOOKS",
    "Labels",
    "Look",
    "Panel",
    "Scale",
    "Style",
    "as_they_are",
    "draw",
    "heat_map",
    "legend",
    "log_axis",
    "look_of",
    "title_of",
    "value_axis",
]
