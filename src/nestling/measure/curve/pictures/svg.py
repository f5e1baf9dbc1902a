"""Responsive SVG line charts: the width scales, the text does not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from nestling.measure.curve.pictures.lines import Chart, Line
from nestling.measure.curve.table import kept_text, value_text
from nestling.picture import Look, Scale, look_of
from nestling.picture.series import COLOURS

_EDGE = 2.5  # percent of the width that points keep from the sides
_GRID = 1000  # units of the stretched part of the picture
_WIDTHS = (250, 380, 780)  # pixels of a plot on a phone, beside another one, and by itself
_LETTER = 8  # pixels
_STROKE = 2
# Around (0, 0), in pixels, by matplotlib's letters.
_MARKERS = {
    "o": "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "s": "M-3.5,-3.5h7v7h-7z",
    "^": "M0,-4.5L4.3,3.5H-4.3z",
    "D": "M0,-4.8L4.8,0L0,4.8L-4.8,0z",
    "v": "M0,4.5L4.3,-3.5H-4.3z",
    "P": "M-1.6,-4.5h3.2v2.9h2.9v3.2h-2.9v2.9h-3.2v-2.9h-2.9v-3.2h2.9z",
    "X": "M-4,-2l2,-2l2,2l2,-2l2,2l-2,2l2,2l-2,2l-2,-2l-2,2l-2,-2l2,-2z",
}


@dataclass(frozen=True)
class _Frame:
    """Turns values into percent of the plot, from its top left."""

    places: Sequence[int]
    scale: Scale
    logarithmic: bool

    @classmethod
    def of(cls, chart: Chart) -> _Frame:
        return cls(chart.places, chart.scale, chart.logarithmic)

    def x(self, place: float) -> float:
        low, high, here = (self._position(each) for each in (self.places[0], self.places[-1], place))
        share = (here - low) / (high - low) if high > low else 0.5
        return round(_EDGE + share * (100 - 2 * _EDGE), 2)

    def y(self, value: float) -> float:
        return round(100 * (self.scale.high - value) / (self.scale.high - self.scale.low), 2)

    def _position(self, place: float) -> float:
        return math.log2(place) if self.logarithmic else place


def line_chart(chart: Chart, number: int) -> str:
    """An SVG element: every line with its band and its own marker, and a tooltip on each point.

    Args:
        chart: the chart to draw.
        number: of the picture on its page; its names of parts hold it.
    """
    frame = _Frame.of(chart)
    title, described = f"chart-{number}-title", f"chart-{number}-description"
    parts = [
        f'<svg class="chart" role="img" aria-labelledby="{title} {described}">',
        f'<title id="{title}">{escape(chart.metric)} over {escape(chart.over)}</title>',
        f'<desc id="{described}">{escape(_description(chart))}</desc>',
        *_values(frame),
        *_costs(frame, chart.over, chart.chosen),
        f'<svg class="stretched" viewBox="0 0 {_GRID} {_GRID}" preserveAspectRatio="none">',
    ]
    if chart.front is not None:
        along = _joined(zip(chart.front.places, (row.value for row in chart.front.rows), strict=True), frame)
        parts.append(f'<polyline class="front" points="{along}"/>')
    for place, line in enumerate(chart.lines):
        parts += _stretched(line, frame, place)
    parts.append("</svg>")
    for place, line in enumerate(chart.lines):
        parts += _points(line, frame, place)
    if chart.chosen is not None and math.isfinite(value := chart.chosen.rows[0].value):
        x, y = frame.x(chart.chosen.places[0]), frame.y(value)
        parts.append(f'<circle class="ring" cx="{x}%" cy="{y}%" r="8"/>')
    return "\n".join([*parts, "</svg>"])


def front_key() -> str:
    """A piece of the Pareto front, for a legend."""
    return (
        '<svg class="key" width="38" height="14" aria-hidden="true"><path class="front" d="M4,7H34"/></svg>'
    )


def key(number: int) -> str:
    """A short line with the marker of a series, for a legend."""
    look = look_of(number)
    return (
        f'<svg class="key {_colour(number)}" width="38" height="14" aria-hidden="true">'
        f'<path class="line" d="M1,7H37"{_dashes(look)}/>'
        f'<svg x="19" y="7" class="at"><path class="dot" d="{_MARKERS[look.marker]}"/></svg></svg>'
    )


def _description(chart: Chart) -> str:
    """The picture in words, for screen readers: the ends of each line."""
    said = []
    for line in chart.lines:
        first, last = line.rows[0], line.rows[-1]
        ends = [f"{row.value:.3f} at {row.granularity}" for row in (first, last)]
        said.append(f"{line.name}: {' to '.join(dict.fromkeys(ends))}.")
    note = f"The {chart.scale.note}. " if chart.scale.cut else ""
    return f"{note}{' '.join(said)} The tables hold every value."


def _values(frame: _Frame) -> Iterator[str]:
    for tick, label in zip(frame.scale.ticks, frame.scale.labels, strict=True):
        y = frame.y(tick)
        yield f'<line class="grid" x1="0" x2="100%" y1="{y}%" y2="{y}%"/>'
        yield f'<text class="tick" x="-8" y="{y}%" dy="4" text-anchor="end">{label}</text>'
    if frame.scale.cut:
        yield '<svg y="100%" class="at"><path class="cut" d="M-6,-5l12,-5M-6,-10l12,-5"/></svg>'


def _costs(frame: _Frame, over: str, chosen: Line | None) -> Iterator[str]:
    if chosen is not None:
        x = frame.x(chosen.places[0])
        side = "end" if x > 80 else "start"
        shift = -6 if side == "end" else 6
        yield f'<line class="chosen" x1="{x}%" x2="{x}%" y1="0" y2="100%"/>'
        yield (
            f'<text class="tick" x="{x}%" y="100%" dx="{shift}" dy="-8" text-anchor="{side}">chosen</text>'
        )
    levels = _levels(frame)
    for place in frame.places:
        x = frame.x(place)
        yield f'<svg x="{x}%" y="100%" class="at"><path class="axis" d="M0,0V5"/></svg>'
        yield (
            f'<text class="tick w{levels[place]}" x="{x}%" y="100%" dy="20" text-anchor="middle">'
            f"{place:,}</text>"
        )
    yield '<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>'
    yield f'<text class="label" x="50%" y="100%" dy="42" text-anchor="middle">{escape(over)}</text>'


def _levels(frame: _Frame) -> dict[int, int]:
    """For each place the narrowest of the widths at which its label has room; one more where none has."""
    found: dict[int, int] = {}
    for level, width in enumerate(_WIDTHS):
        kept = [place for place, first in found.items() if first < level]
        for place in reversed(frame.places):
            room = _LETTER * (len(f"{place:,}") + 1)
            if all(
                abs(frame.x(place) - frame.x(other)) / 100 * width >= room for other in kept if other != place
            ):
                found.setdefault(place, level)
                kept.append(place)
    return {place: found.get(place, len(_WIDTHS)) for place in frame.places}


def _stretched(line: Line, frame: _Frame, number: int) -> Iterator[str]:
    """Band and line in a picture that is stretched to its place; strokes are not."""
    rows = [
        (place, row) for place, row in zip(line.places, line.rows, strict=True) if math.isfinite(row.value)
    ]
    banded = [(x, row) for x, row in rows if math.isfinite(row.low) and math.isfinite(row.high)]
    around = [(x, row.high) for x, row in banded] + [(x, row.low) for x, row in banded[::-1]]
    colour = _colour(number)
    yield f'<polygon class="band {colour}" points="{_joined(around, frame)}"/>'
    middle = _joined([(x, row.value) for x, row in rows], frame)
    yield f'<polyline class="line {colour}" points="{middle}"{_dashes(look_of(number))}/>'


def _points(line: Line, frame: _Frame, number: int) -> Iterator[str]:
    shape = _MARKERS[look_of(number).marker]
    for place, row in zip(line.places, line.rows, strict=True):
        if math.isfinite(row.value):
            text = f"{line.name} at {row.granularity}: {row.metric} {value_text(row)}, keeps {kept_text(row)}"
            yield (
                f'<svg x="{frame.x(place)}%" y="{frame.y(row.value)}%" class="at">'
                f'<path class="dot {_colour(number)}" d="{shape}"><title>{escape(text)}</title></path></svg>'
            )


def _joined(points: Iterable[tuple[float, float]], frame: _Frame) -> str:
    share = _GRID / 100
    return " ".join(f"{frame.x(x) * share:.1f},{frame.y(y) * share:.1f}" for x, y in points)


def _dashes(look: Look) -> str:
    if not look.dashes:
        return ""
    return f' stroke-dasharray="{" ".join(f"{_STROKE * each:g}" for each in look.dashes)}"'


def _colour(number: int) -> str:
    return f"s{number % len(COLOURS)}"
