"""A page that shows curves by itself: picture, table, the choice and what it saves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from nestling.errors import ConfigError
from nestling.granularity import Granularity
from nestling.measure.lines import Chart
from nestling.measure.svg import COLOURS, Line, Point, line_chart
from nestling.measure.table import caption, cells, kept_text, percent, short, value_text

if TYPE_CHECKING:
    from nestling.measure.choice import Row
    from nestling.measure.curve import Curve

_KEEP = 0.99


def report(curve: Curve, others: Sequence[Curve], chosen: Granularity | None, vectors: int) -> str:
    """The page as text; it asks nothing of any other place.

    Args:
        curve: whose choice and tables are shown.
        others: curves drawn beside it where they have the same metric.
        chosen: the granularity to show as chosen; by default the cheapest that keeps 99 %.
        vectors: how many vectors to count the bytes of.
    """
    body = [
        f"<h1>{escape(curve.name)}</h1>",
        f'<p class="lead">{escape(caption(curve))}</p>',
        *_choice(curve, chosen, vectors),
        _figure([curve, *others], curve.metrics[0]),
        '<div class="pair">',
        *(_figure([curve, *others], metric) for metric in curve.metrics[1:]),
        "</div>",
        "<h2>Every granularity</h2>",
        _table(curve),
        *(part for other in others for part in (f"<h2>{escape(other.name)}</h2>", _table(other))),
        _stamp(curve),
    ]
    style = (files("nestling.measure") / "report.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(curve.name)}: {escape(curve.task)}</title>",
            f"<style>{style}</style></head><body><main>",
            *body,
            "</main></body></html>\n",
        ]
    )


def _choice(curve: Curve, chosen: Granularity | None, vectors: int) -> Iterable[str]:
    """The granularity that was chosen, as cards."""
    why = "chosen"
    if chosen is None:
        try:
            chosen = curve.choose(keep=_KEEP)
        except ConfigError as error:
            yield f'<p class="lead">{escape(str(error))}</p>'
            return
        why = f"cheapest that surely keeps {_KEEP:.0%}"
    row, full = curve.row(chosen), curve.row()
    before, after = full.vector_bytes * vectors, row.vector_bytes * vectors
    cards = [
        (str(row.granularity), why),
        (percent(row.kept), f"of the full {row.metric}: {row.kept_low:.1%} to {row.kept_high:.1%}"),
        (f"{short(before)}B &rarr; {short(after)}B", f"for {vectors:,} vectors"),
        (f"{before / after:.3g}&times;", "fewer bytes than in full"),
    ]
    yield '<div class="cards">'
    yield from (f"<div><b>{figure}</b><span>{escape(text)}</span></div>" for figure, text in cards)
    yield "</div>"


def _figure(curves: Sequence[Curve], metric: str) -> str:
    """The picture of one metric and the names of its lines."""
    chart = Chart.of([curve for curve in curves if metric in curve.metrics], metric)
    lines = [Line(line.name, [_point(line.name, row) for row in line.rows]) for line in chart.lines]
    names = "".join(
        f'<span class="s{i % COLOURS}">{escape(line.name)}</span>' for i, line in enumerate(lines)
    )
    drawn = line_chart(lines, "bytes of a vector", metric)
    return f'<figure>{drawn}<figcaption class="legend">{names}</figcaption></figure>'


def _point(name: str, row: Row) -> Point:
    text = f"{name} at {row.granularity}: {row.metric} {value_text(row)}, keeps {kept_text(row)}"
    return Point(row.vector_bytes, row.value, row.low, row.high, text)


def _table(curve: Curve) -> str:
    head, *lines = cells(curve)
    rows = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines]
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    table = f"<table><thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _stamp(curve: Curve) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in curve.versions.items())
    return f"<footer>Measured on {escape(curve.date)}: {escape(curve.machine)}; {escape(versions)}.</footer>"
