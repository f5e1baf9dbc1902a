"""Self-contained HTML report of curves: the choice, its savings, plots and tables; prints well."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from nestling.errors import ConfigError
from nestling.granularity import Granularity
from nestling.measure.curve.pictures.lines import Chart
from nestling.measure.curve.pictures.svg import front_key, key, line_chart
from nestling.measure.curve.summary import Choice, headline, unit
from nestling.measure.curve.table import by_bytes, cells, percent, short
from nestling.picture.series import COLOURS, DARK_COLOURS

if TYPE_CHECKING:
    from nestling.measure.curve.curve import Curve

_INTERVAL = re.compile(r"(.+?) \[(.+), (.+)\]")
_UNIT = re.compile(r"(?<=\d) (?=%|[kMGTP]?B\b)")
_LETTER, _PADDING = 7.6, 21.0  # pixels, of a table on a screen
_PAPER = 900.0  # pixels of a table that fits across a sheet of A4, in the smaller letters of print


def report(curve: Curve, others: Sequence[Curve], chosen: Granularity | None, vectors: int) -> str:
    """The page as text; it asks nothing of any other place.

    Args:
        curve: the curve of the choice and the tables.
        others: curves drawn beside it where they have the same metric.
        chosen: the granularity to show as chosen; by default the cheapest that keeps 99 %.
        vectors: number of vectors to count the bytes of.
    """
    choice = _choice(curve, chosen)
    curves = [curve, *others]
    tables = [_table(each, number, choice) for number, each in enumerate(curves, start=1)]
    sentences = [*headline(curve, others, chosen, vectors), *filter(None, [curve.verdict])]
    title = f"{curve.name} on {' of '.join(filter(None, (curve.task, curve.source)))}"
    body = [
        f"<header><h1>{escape(title)}</h1>",
        *(f'<p class="lead">{_unbroken(sentence)}</p>' for sentence in sentences),
        *_cards(choice, vectors),
        _facts(curve),
        "</header>",
        "<section><h2>Quality and size</h2>",
        _figure(curves, curve.metrics[0], 1, choice),
        '<div class="pair">',
        *(_figure(curves, metric, n, choice) for n, metric in enumerate(curve.metrics[1:], start=2)),
        "</div></section>",
        f"<section{_paper([width for width, _ in tables])}><h2>Every granularity</h2>",
        *(text for _, text in tables),
        _stamp(curve),
        "</section>",
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<meta name="generator" content="nestling">',
            f"<title>{escape(title)}: {escape(curve.metrics[0])} at every size, {escape(curve.date)}</title>",
            f"<style>{_style([width for width, _ in tables])}</style></head><body><main>",
            *body,
            "</main></body></html>\n",
        ]
    )


def _choice(curve: Curve, chosen: Granularity | None) -> Choice | None:
    try:
        return Choice.of(curve, chosen)
    except ConfigError:  # the headline says so
        return None


def _style(widths: Sequence[float]) -> str:
    """The sheet, the colours of series, and below which width each table has to be scrolled."""
    css = (files("nestling.measure.curve") / "report.css").read_text(encoding="utf-8")
    light, dark = (
        " ".join(f"--c{number}: {colour};" for number, colour in enumerate(colours))
        for colours in (COLOURS, DARK_COLOURS)
    )
    hints = (
        f"@container (max-width: {width:.0f}px) {{ #hint-{number} {{ display: block; }} }}"
        for number, width in enumerate(widths, start=1)
    )
    series = (f".s{number} {{ --c: var(--c{number}); }}" for number in range(len(COLOURS)))
    return "\n".join(
        [
            f":root {{ {light} }}",
            f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}",
            *series,
            css,
            *hints,
        ]
    )


def _cards(choice: Choice | None, vectors: int) -> Iterator[str]:
    """The granularity that was chosen, at a glance."""
    if choice is None:
        return
    row, full = choice.row, choice.full
    before, after = full.vector_bytes * vectors, row.vector_bytes * vectors
    interval = f"of the full {row.metric}: {percent(row.kept_low)} to {percent(row.kept_high)}"
    if math.isnan(row.kept):
        interval = f"the full {row.metric} is not above 0, so no share of it is kept"
    cards = [
        (escape(str(row.granularity)), choice.why),
        (percent(row.kept), interval),
        (f"{short(before)}B &rarr; {short(after)}B", f"for {vectors:,} {unit(row)}s"),
        (f"{before / after:.3g}&times;", "fewer bytes than in full"),
    ]
    yield '<div class="cards">'
    yield from (f"<div><b>{figure}</b><span>{escape(text)}</span></div>" for figure, text in cards)
    yield "</div>"


def _unbroken(sentence: str) -> str:
    """A sentence whose numbers stay on one line with their units."""
    return _UNIT.sub("&nbsp;", escape(sentence))


def _facts(curve: Curve) -> str:
    """The task, data, machine and settings of the measurement."""
    intervals = f"{curve.confidence:.0%}, {curve.resamples:,} resamples"
    facts = {
        "model": curve.name,
        "task": curve.task,
        "data": " ".join(filter(None, (curve.source, curve.data and f"({curve.data})"))),
        "cut rule": curve.rule,
        "metrics": ", ".join(curve.metrics),
        "examples": f"{curve.examples:,}",
        "sizes": f"{len(curve.nesting)}, {next(iter(curve.nesting))} to {curve.nesting.full}",
        "intervals": f"lowest to highest of {curve.runs} runs" if curve.runs > 1 else intervals,
        "date": curve.date,
        "seed": ", ".join(map(str, sorted({row.seed for row in curve.rows}))),
    }
    items = (f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items() if value)
    return f'<dl class="facts">{"".join(items)}</dl>'


def _figure(curves: Sequence[Curve], metric: str, number: int, choice: Choice | None) -> str:
    """The picture of one metric and the names of its lines."""
    chosen = None if choice is None else choice.row.granularity
    chart = Chart.of([curve for curve in curves if metric in curve.metrics], metric, chosen)
    names = "".join(f"<li>{key(n)}{escape(line.name)}</li>" for n, line in enumerate(chart.lines))
    if chart.front is not None:
        names += f"<li>{front_key()}{chart.front.name}</li>"
    note = f'<span class="note">{chart.scale.note}</span>' if chart.scale.cut else ""
    return (
        f"<figure><figcaption><b>{escape(metric)}</b>{note}</figcaption>"
        f'<div class="plot">{line_chart(chart, number)}</div><ul class="legend">{names}</ul></figure>'
    )


def _table(curve: Curve, number: int, choice: Choice | None) -> tuple[float, str]:
    """A table, the smallest vectors first, in a frame that scrolls; and its width on a screen in pixels."""
    head, *lines = cells(curve)
    width = sum(_LETTER * max(map(_longest, column)) + _PADDING for column in zip(head, *lines, strict=True))
    rows = []
    for row, (first, *rest) in zip(by_bytes(curve.column()), lines, strict=True):
        is_chosen = number == 1 and choice is not None and row.granularity == choice.row.granularity
        badge = ' <span class="badge">chosen</span>' if is_chosen else ""
        cells_of = "".join(f"<td>{_cell(text)}</td>" for text in rest)
        mark = ' class="chosen"' if is_chosen else ""
        rows.append(f'<tr{mark}><th scope="row">{escape(first)}{badge}</th>{cells_of}</tr>')
    names = "".join(f'<th scope="col"{_sorted(name)}>{escape(name)}</th>' for name in head)
    return width, (
        f'<div class="table"><h3 id="table-{number}">{escape(curve.name)}</h3>'
        f'<p class="hint" id="hint-{number}">Scroll sideways for all columns &rarr;</p>'
        f'<div class="wide" role="region" tabindex="0" aria-labelledby="table-{number}">'
        f"<table><thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _paper(widths: Sequence[float]) -> str:
    """Tables that are too wide for a sheet turn it."""
    return ' data-paper="landscape"' if max(widths) > _PAPER else ""


def _sorted(name: str) -> str:
    return ' aria-sort="ascending"' if name == "bytes" else ""


def _cell(text: str) -> str:
    """A value, and its interval in small letters below."""
    found = _INTERVAL.fullmatch(text)
    if found is None:
        return escape(text)
    value, low, high = map(escape, found.groups())
    return f"{value}<small>{low} to {high}</small>"


def _longest(text: str) -> int:
    """Letters of the longer line of a cell."""
    found = _INTERVAL.fullmatch(text)
    return len(text) if found is None else max(len(found[1]), len(f"{found[2]} to {found[3]}"))


def _stamp(curve: Curve) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in curve.versions.items())
    return f"<footer>Measured on {escape(curve.date)}: {escape(curve.machine)}; {escape(versions)}.</footer>"
