"""Quality and cost at every granularity as a tidy table that chooses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from nestling.artifact import write_file
from nestling.errors import ArtifactError, ConfigError, DataError, require, unknown
from nestling.granularity import At, Granularity, Nesting
from nestling.measure.choice import CostName, Row, Targets, choose, pareto
from nestling.picture import Style

SCHEMA_VERSION = 1
KIND = "curve"


@dataclass(frozen=True)
class Curve:
    """What a sweep found: one row for each granularity and metric.

    Args:
        rows: granularities coarse to fine, the full one last; the metrics of each, the main one first.
        name: of what was measured.
        task: what it was measured on.
        examples: number of examples.
        confidence: of the intervals.
        resamples: that they come from.
        versions: of the libraries in use.
        machine: where it was measured.
        date: when.

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

    def __post_init__(self) -> None:
        cells = [(row.granularity, row.metric) for row in self.rows]
        expected = {(g, metric) for g in {g for g, _ in cells} for metric in {metric for _, metric in cells}}
        if not cells or len(set(cells)) != len(cells) or set(cells) != expected:
            raise DataError("a curve needs every metric once at every granularity, and at least one")

    @cached_property
    def nesting(self) -> Nesting:
        """The granularities that were measured, coarse to fine."""
        return Nesting(tuple(dict.fromkeys(row.granularity for row in self.rows)))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of what was measured, the main one first."""
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
        metric: str | None = None,
        cheapest: CostName = "vector_bytes",
    ) -> Granularity:
        """The cheapest granularity that meets every target, by the lower end of its interval.

        With limits alone (``max_...``, as many as are given) it is the best granularity within all of them.

        Args:
            keep: share of the full quality to keep, above 0 and at most 1.
            at_least: quality to reach.
            max_bytes: most bytes of one answer.
            max_ms: most milliseconds of one use.
            max_flops: most multiply-adds for one input.
            max_model_bytes: most bytes of what answers, such as weights.
            metric: what quality is, the main metric by default.
            cheapest: the cost that is compared first; the others decide between equals.

        Raises:
            ConfigError: for no or impossible targets, or when none meets them; the message names the best
                that can be reached.

        Example:
            ``encoder.extract(curve.choose(keep=0.99))``
        """
        targets = Targets(keep, at_least, max_bytes, max_ms, max_flops, max_model_bytes)
        return choose(self.column(metric), targets, cheapest).granularity

    def pareto(self, metric: str | None = None) -> tuple[Row, ...]:
        """The rows of a metric that no other beats by being no worse in any cost and in quality."""
        return pareto(self.column(metric))

    def table(self) -> str:
        """The curve as text: costs, values with their intervals, and shares of the full quality."""
        from nestling.measure.table import table

        return table(self)

    def chart(self, metric: str | None = None, *, width: int = 40) -> str:
        """The curve as bars of text, for a terminal."""
        from nestling.measure.table import chart

        return chart(self, metric, width)

    def grid(self, metric: str | None = None, *, cost: CostName | None = None) -> str:
        """A curve over two axes as a square of values, or of what each cell costs.

        Raises:
            ConfigError: for a curve of other than two axes, or a cost that was not measured.
        """
        from nestling.measure.table import grid

        return grid(self, metric, cost)

    def heatmap(
        self,
        target: Any,
        *,
        others: Sequence[Curve] = (),
        metric: str | None = None,
        style: Style | None = None,
    ) -> None:
        """Draw a curve over two axes as a heat map into a file (.png, .svg, .pdf) or matplotlib axes.

        Args:
            target: a file, or axes for a single curve.
            others: curves to draw beside it in the same colours, such as the one after training.
            metric: what is drawn, the main metric by default.
            style: size, font and resolution of the file.

        Raises:
            ConfigError: for a curve of other than two axes, or another kind of file.
            MissingExtraError: if matplotlib is not installed.
            StorageError: if the file cannot be written.
        """
        from nestling.measure.plot import heatmap

        heatmap([self, *others], target, self._metric(metric), style)

    def plot(
        self,
        target: Any,
        *,
        others: Sequence[Curve] = (),
        metric: str | None = None,
        style: Style | None = None,
    ) -> None:
        """Draw the curve over bytes, with intervals, into a file (.png, .svg, .pdf) or matplotlib axes.

        Its axis starts at 0, unless the values would fill less than a quarter of it; it is marked then.

        Args:
            target: a file or axes.
            others: curves to draw in the same picture, such as baselines.
            metric: what is drawn, the main metric by default.
            style: size, font and resolution of the file, such as ``Style(width=3.3, font_size=7)``.

        Raises:
            ConfigError: for another kind of file.
            MissingExtraError: if matplotlib is not installed.
            StorageError: if the file cannot be written.
        """
        from nestling.measure.plot import plot

        plot([self, *others], target, self._metric(metric), style)

    def to_html(
        self, path: str | Path, *, others: Sequence[Curve] = (), chosen: At = None, examples: int = 1_000_000
    ) -> None:
        """Write a page that stands by itself: picture, table, the choice, and what it saves.

        Args:
            path: of the page.
            others: curves to show beside this one, such as baselines.
            chosen: the granularity that was chosen; by default that which keeps 99 %.
            examples: how many vectors to count the bytes of.

        Raises:
            StorageError: if the file cannot be written.
        """
        from nestling.measure.report import report

        write_file(path, report(self, others, self.nesting.resolve(chosen) if chosen else None, examples))

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
        write_file(path, self.to_json() + "\n")

    def to_json(self) -> str:
        """The curve as ``save`` writes it."""
        rows = [{field.name: _plain(getattr(row, field.name)) for field in fields(Row)} for row in self.rows]
        rest = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "rows"}
        record = {"schema_version": SCHEMA_VERSION, "kind": KIND, **rest, "rows": rows}
        return json.dumps(record, indent=1, allow_nan=False, default=dict)

    @classmethod
    def load(cls, path: str | Path) -> Curve:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: for a file that is missing, torn, no curve, or of a newer schema.
        """
        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read as a curve: {error}") from error
        if not isinstance(raw, dict) or raw.get("kind") != KIND:
            raise ArtifactError(f"{path} holds no curve; give a file that Curve.save wrote")
        version = raw.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ArtifactError(
                f"{path} was written with schema {version}, and this nestling reads up to {SCHEMA_VERSION}; "
                "update it with: pip install -U nestling"
            )
        try:
            return _CurveRecord.model_validate(raw).curve()
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ArtifactError(f"{path} is malformed at {place}: {first['msg']}") from error
        except (DataError, ConfigError, ValueError) as error:
            raise ArtifactError(f"{path} is malformed: {error}") from error

    @cached_property
    def _cells(self) -> dict[tuple[Granularity, str], Row]:
        return {(row.granularity, row.metric): row for row in self.rows}

    def _metric(self, metric: str | None) -> str:
        if metric is not None and metric not in self.metrics:
            raise ConfigError(unknown("metric", metric, self.metrics))
        return self.metrics[0] if metric is None else metric


def _plain(value: object) -> object:
    """``value`` as JSON has it: granularities as text, and nothing for NaN, which JSON does not know."""
    if isinstance(value, Granularity):
        return str(value)
    return None if isinstance(value, float) and math.isnan(value) else value


class _RowRecord(BaseModel):
    """A row as it stands in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    granularity: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    kept: float | None
    kept_low: float | None
    kept_high: float | None
    vector_bytes: int
    flops: float | None
    latency_ms: float | None
    model_bytes: int | None = None
    seed: int

    def row(self) -> Row:
        """The row that was saved."""
        figures = {
            name: math.nan if value is None else value
            for name, value in self.model_dump().items()
            if name in ("value", "low", "high", "kept", "kept_low", "kept_high")
        }
        return Row(**{**self.model_dump(), **figures, "granularity": Granularity.parse(self.granularity)})


class _CurveRecord(BaseModel):
    """A curve as it stands in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int
    kind: str
    name: str
    task: str
    examples: int
    confidence: float
    resamples: int
    versions: dict[str, str]
    machine: str
    date: str
    rows: list[_RowRecord]

    def curve(self) -> Curve:
        """The curve that was saved."""
        rest = self.model_dump(exclude={"schema_version", "kind", "rows"})
        return Curve(rows=tuple(record.row() for record in self.rows), **rest)
