"""Series styles: colour, marker and dashes together, so that grey prints remain readable."""

from __future__ import annotations

from typing import NamedTuple

COLOURS = ("#1257c9", "#dd6b00", "#0a9c70", "#c95cbd", "#6a3a10", "#33353b")
"""On white: at least 3:1 of contrast, apart under every common colour blindness (a test computes it)."""
DARK_COLOURS = ("#6b9cff", "#e8802e", "#3ddc9c", "#d47fb6", "#f7d354", "#e4e6ea")
"""The same on a dark page."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""By matplotlib's letters. One more than there are colours: 42 series pass before a look comes again."""
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.8), (1.2, 1.4), (6, 1.6, 1.2, 1.6))
"""Lengths of strokes and gaps in widths of the line; none for a solid line."""


class Look(NamedTuple):
    """Colour, marker and dashes of one series.

    Args:
        colour: on white.
        dark_colour: on a dark page.
        marker: as matplotlib names it.
        dashes: strokes and gaps in widths of the line.
    """

    colour: str
    dark_colour: str
    marker: str
    dashes: tuple[float, ...]


def look_of(number: int) -> Look:
    """The look of a series by its number, from 0; neighbours differ in colour, marker and dashes."""
    colour = number % len(COLOURS)
    return Look(
        COLOURS[colour],
        DARK_COLOURS[colour],
        MARKERS[number % len(MARKERS)],
        DASHES[number % len(DASHES)],
    )


LOOKS = len(COLOURS) * len(MARKERS)
"""Number of series that look different."""
