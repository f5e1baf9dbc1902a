"""The curve: quality and cost at every granularity, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nestling.arguments.constraints import Whole, checked
from nestling.arguments.formatting import shown
from nestling.elastic import resolve_each
from nestling.errors import ConfigError, DataError, require, unknown
from nestling.gain import Gain, verdict_of
from nestling.granularity import At, Granularity, Nesting
from nestling.measure.curve import file, runs, table
from nestling.measure.curve.choice import CostName, Row, Targets, at_budgets, choose, of_precision, pareto
from nestling.measure.curve.pictures import plot, report
from nestling.measure.curve.provenance import check_same_data
from nestling.measure.curve.table import Format
from nestling.picture import Style
from nestling.storage.artifact import write_result


@dataclass(frozen=True, repr=False)
class Curve:
    """The result of a sweep: one row for each granularity and metric.

    A trained curve carries the plain truncation of its starting point as a baseline: tables,
    pictures and reports show both.

    Args:
        rows: granularities coarse to fine, the full one last; the metrics of each, the main one first.
        name: the name of the measured model.
        task: the name of the task.
        examples: number of examples.
        confidence: of the intervals.
        resamples: number of resamples for the intervals.
        versions: of the libraries in use.
        machine: machine of the measurement.
        date: date of the measurement.
        data: a digest of the task and its data; "" for curves of older files.
        truncation: the plain truncation of what this was trained from, on the same examples, if it is known.
        gains: of this over ``truncation``, at every granularity that both have.
        note: reason that there is no comparison with truncation.
        runs: number of runs (seeds) that this is the mean of; see :meth:`mean`.
        source: the name of the data, such as their file.
        rule: steps around a cut, in words.

    Raises:
        DataError: for no rows, or a metric that is not given once for every granularity.
    """

    rows: tuple[Row, ...]
    name: str
    task: str
    examples: int
    confidence: float
    resamples: int
    versions: Mapping[str, str]
    machine: str
    date: str
    data: str = ""
    truncation: Curve | None = None
    gains: tuple[Gain, ...] = ()
    note: str = ""
    runs: int = 1
    source: str = ""
    rule: str = ""

    def __post_init__(self) -> None:
        cells = [(row.granularity, row.metric) for row in self.rows]
        expected = {(g, metric) for g in {g for g, _ in cells} for metric in {metric for _, metric in cells}}
        if not cells or len(set(cells)) != len(cells) or set(cells) != expected:
            raise DataError("a curve needs every metric once at every granularity, and at least one")

    def __repr__(self) -> str:
        ends = [
            f"{row.value:.3f} at {row.granularity}" for row in self.column()[:: max(1, len(self.nesting) - 1)]
        ]
        return (
            f"Curve({self.name!r} on {self.task}, {self.examples:,} examples, {self.metrics[0]} "
            f"{' to '.join(ends)}, {len(self.nesting)} granularities)"
        )

    @property
    def verdict(self) -> str:
        """One sentence: where training pays against plain truncation, or why that is not known."""
        return verdict_of(self.gains, self.metrics[0]) if self.gains else self.note

    @cached_property
    def nesting(self) -> Nesting:
        """The granularities that were measured, coarse to fine."""
        return Nesting(tuple(dict.fromkeys(row.granularity for row in self.rows)))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics, the main one first."""
        return tuple(dict.fromkeys(row.metric for row in self.rows))

    def row(self, at: At = None, metric: str | None = None) -> Row:
        """The row of one granularity (the full one by default) and metric (the main one).

        Raises:
            GranularityError: for a granularity that was not measured.
            ConfigError: for a metric that was not.
        """
        return self._cells[self.nesting.resolve(at), self._metric(metric)]

    def column(self, metric: str | None = None) -> tuple[Row, ...]:
        """The rows of one metric (the main one by default), coarse to fine."""
        return tuple(self.row(g, metric) for g in self.nesting)

    def choose(
        self,
        *,
        keep: float | None = None,
        at_least: float | None = None,
        max_bytes: float | None = None,
        max_ms: float | None = None,
        max_flops: float | None = None,
        max_model_bytes: float | None = None,
        max_tokens: float | None = None,
        bits: int | Iterable[int] | str | None = None,
        metric: str | None = None,
        cheapest: CostName = "vector_bytes",
    ) -> Granularity:
        """The cheapest granularity that meets every target, by the lower end of its interval.

        With limits alone (``max_...``, as many as are given) it is the best granularity within all of them.

        Args:
            keep: share of the full quality to keep, above 0 and at most 1.
            at_least: quality to reach.
            max_bytes: most bytes of one output, such as a stored vector.
            max_ms: most milliseconds of one use.
            max_flops: most multiply-adds for one input.
            max_model_bytes: most bytes of the model (its weights).
            max_tokens: most tokens of one item, of all streams together.
            bits: precisions to choose among, such as those that a database holds; all by default.
            metric: measure of quality, the main metric by default.
            cheapest: the cost that is compared first; the others decide between equals.

        Raises:
            ConfigError: for no or impossible targets, or when none meets them; the message names the best
                that can be reached. Also for precisions that were not measured.
            GranularityError: for bits that no precision has.

        Example:
            ``encoder.extract(curve.choose(keep=0.99, bits=32))``, the smallest float vectors; or with
            ``at = curve.choose(keep=0.99)``, ``encoder.extract(at.replace(bits=None))`` and
            ``StoredVectors(x).calibrated().extract(at)``.
        """
        targets = Targets(keep, at_least, max_bytes, max_ms, max_flops, max_model_bytes, max_tokens)
        column = self.column(metric) if bits is None else of_precision(self.column(metric), bits)
        return choose(column, targets, cheapest).granularity

    def pareto(self, metric: str | None = None) -> tuple[Row, ...]:
        """The rows of a metric that no other beats by being no worse in any cost and in quality.

        On a curve over ``bits``, sizes and precisions of an embedding cost bytes alone; FLOPs and the other
        costs tell layers and such apart.
        """
        return pareto(self.column(metric))

    def at_budgets(self, metric: str | None = None) -> Curve:
        """The best size and precision within 1, 2, 4, 8, ... bytes a vector: a short curve for a terminal."""
        return self.part(row.granularity for row in at_budgets(self.pareto(metric)))

    def part(self, granularities: Iterable[At] | At) -> Curve:
        """The curve at some granularities alone; the full one is always among them, the verdict stays.

        Example:
            ``curve.part(row.granularity for row in curve.pareto())``, the Pareto front.

        Raises:
            GranularityError: for one that was not measured.
        """
        kept = {*resolve_each(self.nesting, granularities), self.nesting.full}
        plain = self.truncation
        if plain is not None:
            both = [g for g in plain.nesting if g in kept]
            plain = plain.part(both) if both else None
        return replace(
            self,
            rows=tuple(row for row in self.rows if row.granularity in kept),
            truncation=plain,
        )

    @classmethod
    def mean(cls, curves: Sequence[Curve], *, name: str | None = None) -> Curve:
        """Several runs, such as seeds, as one curve: means, from the lowest to the highest run.

        The ends of a row are those of the runs, not of resampled examples, so ``choose`` is as careful as
        the worst run. Costs are means too.

        Args:
            curves: of the same data and granularities, at least two.
            name: the name of the result, by default that of the first.

        Raises:
            DataError: for fewer than two curves, or curves of different data or granularities.
        """
        if not isinstance(curves, Sequence) or not all(isinstance(curve, Curve) for curve in curves):
            raise ConfigError(f"mean takes a list of curves, not {shown(curves)}")
        return runs.mean(curves, name)

    def table(self, format: Format = "text") -> str:  # noqa: A002 - pandas' and git's name for it
        """Costs, values with their intervals, shares of the full quality, and truncation beside.

        The smallest vectors come first. A column marks the Pareto front, unless all rows are on it.

        Args:
            format: ``"text"``, ``"markdown"``, ``"latex"`` (with booktabs), or ``"csv"``: one line a
                granularity and metric, in full precision.

        Raises:
            ConfigError: for another format.
        """
        return table.table(self, format)

    @checked(width=Whole(1))
    def chart(self, metric: str | None = None, *, width: int = 40) -> str:
        """The curve as bars of text, for a terminal."""
        return table.chart(self, self._metric(metric), width)

    def grid(self, metric: str | None = None, *, cost: CostName | None = None) -> str:
        """A curve over two axes as a square of values, or of what each cell costs.

        Raises:
            ConfigError: for a curve of other than two axes, or a cost that was not measured.
        """
        return table.grid(self, self._metric(metric), cost)

    def heatmap(
        self,
        target: Any,
        *,
        others: Sequence[Curve] = (),
        metric: str | None = None,
        style: Style | None = None,
        mixed: bool = False,
    ) -> None:
        """Draw a curve over two axes as a heat map into a file (.png, .svg, .pdf) or matplotlib axes.

        Args:
            target: a file, or axes for a single curve.
            others: curves to draw beside it in the same colours, such as the one after training.
            metric: the metric to draw, the main one by default.
            style: size, font and resolution of the file.
            mixed: let the others be of other data.

        Raises:
            ConfigError: for a curve of other than two axes, or another kind of file.
            DataError: for others that were measured on other data, unless ``mixed``.
            MissingExtraError: if matplotlib is not installed.
            StorageError: if the file cannot be written.
        """
        check_same_data([self, *others], mixed=mixed)
        plot.heatmap([self, *others], target, self._metric(metric), style)

    def plot(
        self,
        target: Any,
        *,
        others: Sequence[Curve] = (),
        metric: str | None = None,
        chosen: At = None,
        style: Style | None = None,
        mixed: bool = False,
    ) -> None:
        """Draw the curve over bytes, with intervals, into a file (.png, .svg, .pdf) or matplotlib axes.

        A curve over ``bits`` is one line per precision, with the Pareto front behind them; others are drawn
        in full precision and as their own front. The axis of values starts at 0, unless the values
        would fill less than a quarter of it; it is marked then.

        Args:
            target: a file or axes.
            others: curves to draw beside this one and its plain truncation, such as baselines.
            metric: the metric to draw, the main one by default.
            chosen: a granularity to ring.
            style: size, font and resolution of the file, such as ``Style(width=3.3, font_size=7)``.
            mixed: let the others be of other data.

        Raises:
            ConfigError: for another kind of file.
            DataError: for others that were measured on other data, unless ``mixed``.
            MissingExtraError: if matplotlib is not installed.
            StorageError: if the file cannot be written.
        """
        ringed = self.nesting.resolve(chosen) if chosen else None
        plot.plot([self, *self._beside(others, mixed=mixed)], target, self._metric(metric), style, ringed)

    @checked(examples=Whole(1))
    def to_html(
        self,
        path: str | Path,
        *,
        others: Sequence[Curve] = (),
        chosen: At = None,
        examples: int = 1_000_000,
        mixed: bool = False,
    ) -> None:
        """Write a self-contained HTML page: plot, table, the choice and its savings.

        Args:
            path: of the page.
            others: curves to show beside this one and its plain truncation, such as baselines.
            chosen: the granularity that was chosen; by default that which keeps 99 %.
            examples: number of vectors to count the bytes of.
            mixed: let the others be of other data.

        Raises:
            DataError: for others that were measured on other data, unless ``mixed``.
            StorageError: if the file cannot be written.
        """
        beside, at = self._beside(others, mixed=mixed), self.nesting.resolve(chosen) if chosen else None
        write_result(path, report.report(self, beside, at, examples))

    def to_pandas(self) -> Any:
        """The rows as a pandas data frame, granularities as text with a column for each axis.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        pandas = require("pandas", "pandas")
        records = [
            {**asdict(row), "granularity": str(row.granularity), **row.granularity} for row in self.rows
        ]
        return pandas.DataFrame.from_records(records)

    def save(self, path: str | Path) -> None:
        """Write the curve as JSON, atomically.

        Raises:
            StorageError: if writing fails; nothing half-written remains.
        """
        write_result(path, self.to_json() + "\n")

    def to_json(self) -> str:
        """The curve as ``save`` writes it."""
        return file.to_json(self)

    @classmethod
    def load(cls, path: str | Path) -> Curve:
        """Read what ``save`` wrote, by this version or an older one.

        Raises:
            ArtifactError: for a file that is missing, torn, no curve, or of a newer schema.
        """
        return file.load(path, cls)

    def _beside(self, others: Sequence[Curve], *, mixed: bool) -> list[Curve]:
        """The others, after the plain truncation unless it is one of them."""
        check_same_data([self, *others], mixed=mixed)
        known = self.truncation is None or self.truncation in others
        return [*others] if known or self.truncation is None else [self.truncation, *others]

    @cached_property
    def _cells(self) -> dict[tuple[Granularity, str], Row]:
        return {(row.granularity, row.metric): row for row in self.rows}

    def _metric(self, metric: str | None) -> str:
        if metric is not None and metric not in self.metrics:
            raise ConfigError(unknown("metric", metric, self.metrics))
        return self.metrics[0] if metric is None else metric
