"""Line charts as SVG that takes its colours from the page it stands in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 14, 52
COLOURS = 6
_BETWEEN_TICKS = 50


@dataclass(frozen=True)
class Point:
    """A value with its interval at a place on the axis, and what to say of it."""

    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Line:
    """A named line of points, left to right."""

    name: str
    points: Sequence[Point]


class _Frame:
    """Turns values into places of the picture; the x axis is logarithmic."""

    def __init__(self, lines: Sequence[Line]) -> None:
        points = [point for line in lines for point in line.points]
        self.sizes = sorted({point.x for point in points})
        ends = [end for point in points for end in (point.low, point.high, point.y) if math.isfinite(end)]
        self.ticks = _round_steps(min(ends, default=0.0), max(ends, default=1.0))

    def x(self, value: float) -> float:
        low, high = math.log2(self.sizes[0]), math.log2(self.sizes[-1])
        share = (math.log2(value) - low) / (high - low) if high > low else 0.5
        return round(_LEFT + 12 + share * (_WIDTH - _LEFT - _RIGHT - 24), 1)

    def y(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return round(_HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM), 1)


def line_chart(lines: Sequence[Line], x_label: str, y_label: str) -> str:
    """An SVG element: every line with its band, ticks where there are points, a tooltip on each point."""
    frame = _Frame(lines)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(y_label)} over {escape(x_label)}">',
        *_grid(frame, x_label, y_label),
    ]
    for place, line in enumerate(lines):
        parts += _drawn(line, frame, f"s{place % COLOURS}")
    return "\n".join([*parts, "</svg>"])


def _grid(frame: _Frame, x_label: str, y_label: str) -> Iterable[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    digits = max(0, -math.floor(math.log10(frame.ticks[1] - frame.ticks[0]) + 1e-9))
    for tick in frame.ticks:
        y = frame.y(tick)
        yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{tick:.{digits}f}</text>'
    last = -math.inf
    for size in frame.sizes:
        x = frame.x(size)
        yield f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}"/>'
        if x - last >= _BETWEEN_TICKS:
            yield f'<text class="tick" x="{x}" y="{bottom + 19}" text-anchor="middle">{size:,.0f}</text>'
            last = x
    middle = (_LEFT + right) / 2
    yield f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
    yield f'<text class="label" x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>'
    across = f'transform="rotate(-90 14 {bottom / 2})" text-anchor="middle"'
    yield f'<text class="label" x="14" y="{bottom / 2}" {across}>{escape(y_label)}</text>'


def _drawn(line: Line, frame: _Frame, colour: str) -> Iterable[str]:
    points = [point for point in line.points if math.isfinite(point.y)]
    banded = [point for point in points if math.isfinite(point.low) and math.isfinite(point.high)]
    around = [(point.x, point.high) for point in banded] + [(point.x, point.low) for point in banded[::-1]]
    yield f'<polygon class="band {colour}" points="{_places(around, frame)}"/>'
    yield f'<polyline class="line {colour}" points="{_places([(p.x, p.y) for p in points], frame)}"/>'
    for point in points:
        place = f'cx="{frame.x(point.x)}" cy="{frame.y(point.y)}"'
        yield f'<circle class="dot {colour}" {place} r="3.5"><title>{escape(point.text)}</title></circle>'


def _places(points: Iterable[tuple[float, float]], frame: _Frame) -> str:
    return " ".join(f"{frame.x(x)},{frame.y(y)}" for x, y in points)


def _round_steps(low: float, high: float) -> list[float]:
    """About five steps of 1, 2 or 5 times a power of ten that span ``low`` to ``high``."""
    rough = max(high - low, 1e-6) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [step * count for count in range(first, last + 1)]
