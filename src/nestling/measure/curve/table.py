"""Curves as text: tables in several formats, bars for the terminal, side-by-side comparison."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Literal, get_args

from nestling.arguments.constraints import OneOf, check
from nestling.axes import FLOAT_BITS
from nestling.errors import ConfigError, DataError
from nestling.granularity import Granularity
from nestling.measure.curve.choice import Row
from nestling.measure.curve.grid import Grid
from nestling.measure.curve.provenance import check_same_data
from nestling.text_table import aligned

if TYPE_CHECKING:
    from nestling.measure.curve.choice import CostName
    from nestling.measure.curve.curve import Curve

Format = Literal["text", "markdown", "latex", "csv"]

_COSTS = {"flops": "FLOPs", "model_bytes": "model bytes", "latency_ms": "ms"}
_BYTES_WIDE = 7
_FRONT = "* on the Pareto front: no other costs as little and is as good."
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def table(curve: Curve, format: Format = "text") -> str:  # noqa: A002 - see Curve.table
    """Costs, values with their intervals, and shares of the full quality, one line per granularity."""
    check_format(format)
    if format == "csv":
        return tidy([curve])
    if format != "text":
        return formatted(cells(curve), format)
    lines = cells(curve)
    notes = [_FRONT] if "front" in lines[0] else []
    return "\n".join([caption(curve), aligned(lines), *notes, *filter(None, [curve.verdict])])


def check_format(given: str) -> None:
    """Refuse a format that there is not.

    Raises:
        ConfigError: for another one; the nearest is named.
    """
    check("format", given, OneOf(get_args(Format)))


def cells(curve: Curve) -> list[list[str]]:
    """The table's header and lines, cell by cell; costs that are not known have no column."""
    main, *rest = curve.metrics
    costs = [name for name in _COSTS if getattr(curve.rows[0], name) is not None]
    gains = {gain.granularity: gain for gain in curve.gains if gain.metric == main}
    beside = ["truncation", "gain"] if gains else []
    front = set(curve.pareto())
    marked = ["front"] if len(front) < len(curve.nesting) else []
    header = [
        "granularity",
        "bytes",
        *(_COSTS[name] for name in costs),
        main,
        "kept",
        *marked,
        *beside,
        *rest,
    ]

    def line(row: Row) -> list[str]:
        spent = [f"{row.vector_bytes:,}", *(_cost(name, row) for name in costs)]
        others = [value_text(curve.row(row.granularity, metric)) for metric in rest]
        plain = _beside(curve, row) if beside else []
        mark = ["*" if row in front else ""] if marked else []
        return [str(row.granularity), *spent, value_text(row), kept_text(row), *mark, *plain, *others]

    return [header, *map(line, by_bytes(curve.column()))]


def by_bytes(column: Iterable[Row]) -> list[Row]:
    """Rows in the order of tables: the smallest vectors first, of equal ones the fastest."""
    return sorted(column, key=lambda row: (row.vector_bytes, row.flops or 0, row.granularity.get("dim", 0)))


def _beside(curve: Curve, row: Row) -> list[str]:
    """Plain truncation and what training gains over it at one granularity."""
    found = [g for g in curve.gains if (g.granularity, g.metric) == (row.granularity, row.metric)]
    if not found or curve.truncation is None:
        return ["-", "-"]
    plain, gain = curve.truncation.row(row.granularity, row.metric), found[0]
    return [f"{plain.value:.3f}", f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"]


def tidy(curves: Sequence[Curve]) -> str:
    """CSV in full precision: one line per curve, granularity and metric, NaN left empty."""
    text = io.StringIO()
    names = [field.name for field in fields(Row)]
    gained = ("truncation", "gain", "gain_low", "gain_high")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["curve", "task", *names, *(gained if any(curve.gains for curve in curves) else ())])
    for curve in curves:
        gains = {(gain.granularity, gain.metric): gain for gain in curve.gains}
        for row in curve.rows:
            gain = gains.get((row.granularity, row.metric))
            more = [] if gain is None else [row.value - gain.value, gain.value, gain.low, gain.high]
            figures = [getattr(row, name) for name in names]
            figures = ["" if isinstance(each, float) and math.isnan(each) else each for each in figures]
            lines.writerow([curve.name, curve.task, *figures, *more])
    return text.getvalue().rstrip("\n")


def formatted(lines: Sequence[Sequence[str]], format: Format) -> str:  # noqa: A002 - see Curve.table
    """A header and lines as a table of Markdown or LaTeX, the first column flush left."""
    header, *rest = lines
    if format == "markdown":
        marks = ["---", *["---:"] * (len(header) - 1)]
        rows = [[cell.replace("|", "\\|") for cell in line] for line in (header, marks, *rest)]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    body = [" & ".join(map(_latex, line)) + " \\\\" for line in lines]
    columns = "l" + "r" * (len(header) - 1)
    start, end = f"\\begin{{tabular}}{{{columns}}}\n\\toprule", "\\bottomrule\n\\end{tabular}"
    return "\n".join([start, body[0], "\\midrule", *body[1:], end])


def _latex(text: str) -> str:
    """Text with what LaTeX reads as commands written out."""
    for letter in "\\{}&%$#_":
        text = text.replace(letter, "\\textbackslash " if letter == "\\" else f"\\{letter}")
    return text.replace("~", "\\textasciitilde ").replace("^", "\\textasciicircum ")


def chart(curve: Curve, metric: str | None = None, width: int = 40) -> str:
    """One bar a granularity, as long as its quality."""
    column = by_bytes(curve.column(metric))
    most = max((row.value for row in column if row.value > 0), default=1.0)
    lines = [
        [
            str(row.granularity),
            f"{row.vector_bytes:,} B".rjust(_BYTES_WIDE),
            _bar(row.value / most, width),
            f"{row.value:.3f}",
            percent(row.kept),
        ]
        for row in column
    ]
    return f"{column[0].metric} of {curve.name} ({curve.task})\n{aligned(lines, left=3)}"


def grid(curve: Curve, metric: str | None = None, cost: CostName | None = None) -> str:
    """The values of a metric, or a cost, as lines and columns of two axes."""
    found = Grid.of(curve, metric)
    if cost is not None and any(getattr(row, cost) is None for row in found.cells.values()):
        raise ConfigError(f"{cost} was not measured; sweep with latency=True, or choose another cost")
    text = (lambda row: f"{row.value:.3f}") if cost is None else (lambda row: short(getattr(row, cost)))
    what = cost or next(iter(found.cells.values())).metric
    return f"{what} of {curve.name} ({curve.task})\n{aligned(found.lines(text))}"


def compare(
    curves: Sequence[Curve],
    metric: str | None = None,
    *,
    format: Format = "text",  # noqa: A002 - see Curve.table
    mixed: bool = False,
) -> str:
    """One metric of several curves side by side, one line per granularity, a dash where one has no such.

    Args:
        curves: at least one.
        metric: the main one of the first by default.
        format: see :meth:`Curve.table`; CSV holds all metrics.
        mixed: let the curves be of different data; their values then say nothing about each other.

    Raises:
        DataError: for no curves, or curves of different data unless ``mixed``.
        ConfigError: for a metric that a curve lacks, or another format.

    >>> compare([])
    Traceback (most recent call last):
        ...
    nestling.errors.DataError: there are no curves to compare; give at least one
    """
    if not curves:
        raise DataError("there are no curves to compare; give at least one")
    check_format(format)
    check_same_data(curves, mixed=mixed)
    if format == "csv":
        return tidy(curves)
    metric = metric or curves[0].metrics[0]
    has_bits = {"bits" in curve.nesting.axes for curve in curves}
    columns = [
        {_in_floats(row.granularity, has_bits): row for row in curve.column(metric)} for curve in curves
    ]
    merged = {g: row.vector_bytes for column in reversed(columns) for g, row in column.items()}
    lines = [["granularity", "bytes", *(curve.name for curve in curves)]]
    for granularity, size in sorted(merged.items(), key=lambda item: (item[1], str(item[0]))):
        cells = [value_text(column[granularity]) if granularity in column else "-" for column in columns]
        lines.append([str(granularity), f"{size:,}", *cells])
    if format != "text":
        return formatted(lines, format)
    return f"{metric} on {curves[0].task}, {curves[0].confidence:.0%} intervals\n{aligned(lines)}"


def _in_floats(granularity: Granularity, has_bits: set[bool]) -> Granularity:
    """The granularity; beside curves without the axis ``bits``, those in float32 name no bits either."""
    both = len(has_bits) > 1 and granularity.get("bits") == max(FLOAT_BITS)
    return granularity.replace(bits=None) if both else granularity


def caption(curve: Curve) -> str:
    """The task, and its number of examples."""
    if curve.runs > 1:
        return (
            f"{curve.name} on {curve.task}: {curve.examples:,} examples, mean of {curve.runs} runs, from the "
            "lowest to the highest"
        )
    return (
        f"{curve.name} on {curve.task}: {curve.examples:,} examples, {curve.confidence:.0%} intervals of "
        f"{curve.resamples:,} resamples"
    )


def value_text(row: Row) -> str:
    """A quality with its interval."""
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"


def kept_text(row: Row) -> str:
    """A share of the full quality with its interval; a dash where there is none."""
    if math.isnan(row.kept):
        return percent(row.kept)
    return f"{percent(row.kept)} [{100 * row.kept_low:.1f}, {100 * row.kept_high:.1f}]"


def percent(share: float) -> str:
    """A share in percent; a dash for NaN."""
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def short(number: float) -> str:
    """A large number with a unit.

    >>> short(1_536_000_000)
    '1.54 G'
    """
    for size, unit in _UNITS:
        if abs(number) >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def _cost(name: str, row: Row) -> str:
    value = getattr(row, name) or 0
    return f"{value:.3g}" if name == "latency_ms" else short(value)


def _bar(share: float, width: int) -> str:
    eighths = round(8 * width * min(max(share, 0.0), 1.0))
    bar = _EIGHTHS[8] * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return bar.ljust(width)
