"""Pictures in one style: looks of series, honest scales, heat maps that share their colours, files."""

from nestling.picture.axes import legend, title_of, value_axis
from nestling.picture.heat import Labels, heat_map
from nestling.picture.looks import DASHES, LOOKS, Look, look_of
from nestling.picture.scale import Scale
from nestling.picture.sheet import Panel, draw
from nestling.picture.style import Style

__all__ = [
    "DASHES",
    "LOOKS",
    "Labels",
    "Look",
    "Panel",
    "Scale",
    "Style",
    "draw",
    "heat_map",
    "legend",
    "look_of",
    "title_of",
    "value_axis",
]
