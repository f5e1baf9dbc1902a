"""Measurements of plans (recall with its CI, latency, bytes), and choosing by target."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from nestling import __version__
from nestling.arguments.constraints import Real, check
from nestling.errors import ConfigError, DataError
from nestling.picture import Style, draw, legend, log_axis, look_of, title_of, value_axis
from nestling.search.plan.plan import Plan, Point
from nestling.storage.artifact import write_result
from nestling.text_table import aligned

RECALL = Real(above=0, most=1, hint="0.95 is usual")


@dataclass(frozen=True)
class Trial:
    """One plan at one point, measured.

    Args:
        plan: the plan that was built.
        point: the operating point.
        rows: vectors that it was built over.
        recall: share of the exact ``k`` nearest that were found, or rows as near; mean over the queries.
        low: lower end of the 95 % interval of the recall over queries.
        high: upper end.
        latency_ms: median of single queries.
        qps: queries a second in one batch.
        row_bytes: bytes kept in memory for each vector.
        build_s: seconds that building took.
    """

    plan: Plan
    point: Point
    rows: int
    recall: float
    low: float
    high: float
    latency_ms: float
    qps: float
    row_bytes: float
    build_s: float

    def to_json(self) -> dict[str, Any]:
        """The fields by name, plan and point as text."""
        return {**asdict(self), "plan": str(self.plan), "point": str(self.point)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The inverse of ``to_json``.

        Raises:
            DataError: if fields are missing, unknown or cannot be read.
        """
        try:
            read = {"plan": Plan.parse(fields["plan"]), "point": Point.parse(fields["point"])}
            return cls(**{**fields, **read})
        except (TypeError, KeyError, ConfigError) as error:
            raise DataError(
                f"this is no measured trial: {error}; measure again with: nestling index tune"
            ) from error


@dataclass(frozen=True)
class Frontier:
    """Measured trials, and what they are measured on.

    Args:
        trials: in the order in which they were measured.
        k: neighbours that were asked for.
        queries: number of queries.
        sampled: whether the queries are rows of the data, as none were given.
        seconds: duration of planning.
        reason: reason for comparing these plans, and for the choice.
    """

    trials: tuple[Trial, ...]
    k: int
    queries: int
    sampled: bool
    seconds: float
    reason: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "trials", tuple(self.trials))

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.trials)

    def __len__(self) -> int:
        return len(self.trials)

    def pareto(self) -> tuple[Trial, ...]:
        """Trials that no other beats or equals in recall, latency and bytes at once; by rising recall."""
        ordered = sorted(self.trials, key=lambda each: (each.recall, -each.latency_ms))
        return tuple(trial for trial in ordered if not any(_beats(other, trial) for other in self.trials))

    def of(self, plan: Plan) -> Frontier:
        """The trials of one plan."""
        kept = tuple(trial for trial in self.trials if trial.plan == plan)
        return replace(self, trials=kept)

    def choose(
        self, recall: float | None = None, *, max_bytes: float | None = None, max_ms: float | None = None
    ) -> Trial:
        """The fastest trial that meets every target; without a recall, the one that finds most.

        Args:
            recall: the lower end of the interval must reach it.
            max_bytes: in memory for each vector.
            max_ms: median latency of a single query.

        Raises:
            ConfigError: if no trial does; the nearest is named.
        """
        check_targets(recall, max_bytes=max_bytes, max_ms=max_ms)
        fits = [
            trial
            for trial in self.trials
            if (max_bytes is None or trial.row_bytes <= max_bytes)
            and (max_ms is None or trial.latency_ms <= max_ms)
        ]
        if not fits:
            given = {"max_bytes": max_bytes, "max_ms": max_ms}
            asked = ", ".join(f"{name}={value:g}" for name, value in given.items() if value is not None)
            raise ConfigError(
                f"no plan fits {asked}: the smallest takes "
                f"{min(trial.row_bytes for trial in self.trials):.0f} bytes a vector, the fastest "
                f"{min(trial.latency_ms for trial in self.trials):.3g} ms; allow more"
            )
        if recall is None:
            return max(fits, key=lambda trial: (trial.recall, -trial.latency_ms))
        reached = [trial for trial in fits if trial.low >= recall]
        if not reached:
            best = max(fits, key=lambda trial: trial.low)
            place = f", at {best.point}," if str(best.point) else ""
            raise ConfigError(
                f"no plan within the limits reaches recall {recall:g} at the lower end of its 95 % CI: "
                f"{best.plan} comes nearest{place} with {best.recall:.4f} [{best.low:.4f}, {best.high:.4f}]; "
                "ask for less recall, allow more bytes or time, or give more queries, which narrows the CI"
            )
        return min(reached, key=lambda trial: trial.latency_ms)

    def closest(
        self, recall: float | None = None, *, max_bytes: float | None = None, max_ms: float | None = None
    ) -> Trial:
        """The choice of :meth:`choose`, or the trial with the highest recall if none meets the targets."""
        try:
            return self.choose(recall, max_bytes=max_bytes, max_ms=max_ms)
        except ConfigError:
            return self.choose()

    def table(self) -> str:
        """The Pareto front as aligned text."""
        head = ("plan", "point", f"recall@{self.k}", "", "ms", "queries/s", "bytes", "built in")
        rows = [
            (
                str(trial.plan),
                str(trial.point),
                f"{trial.recall:.4f}",
                f"[{trial.low:.4f}, {trial.high:.4f}]",
                f"{trial.latency_ms:.3g}",
                f"{trial.qps:,.0f}",
                f"{trial.row_bytes:.0f}",
                f"{trial.build_s:.1f} s",
            )
            for trial in self.pareto()
        ]
        whence = "rows of the data, as no queries were given" if self.sampled else "queries that were given"
        trials = f"{len(self.trials)} trial{'s' * (len(self.trials) != 1)}"
        note = f"{trials} on {self.queries:,} {whence}, in {self.seconds:.1f} s"
        built = self.trials[0] if self.trials else None
        if built is not None and built.build_s:
            times = self.seconds / built.build_s
            note += f"; building {built.plan} is {built.build_s:.1f} s of it, one part in {times:.1f}"
        return f"{aligned([head, *rows], left=2)}\n{note}"

    def plot(self, target: Any, *, style: Style | None = None) -> None:
        """Latency over recall, one line per plan, into a file (.png, .svg, .pdf) or matplotlib axes.

        Args:
            target: a file or axes.
            style: size, font and resolution of the file.

        Raises:
            ConfigError: for another kind of file.
            MissingExtraError: if matplotlib is not installed.
            StorageError: if the file cannot be written.
        """
        draw(target, self._draw, style=style)

    def _draw(self, axes: Any) -> None:
        plans, drawn = list(dict.fromkeys(trial.plan for trial in self.trials)), []
        for number, plan in enumerate(plans):
            look, front = look_of(number), self.of(plan).pareto()
            drawn += axes.plot(
                [trial.recall for trial in front],
                [trial.latency_ms for trial in front],
                color=look.colour,
                marker=look.marker,
                dashes=look.dashes or (None, None),
            )
        value_axis(axes, f"recall@{self.k}", "x")
        log_axis(axes, "ms a query")
        axes.grid(visible=True)
        title_of(axes, f"{len(self.trials)} trials on {self.queries:,} queries; lower right is better")
        legend(axes, drawn, list(map(str, plans)))

    def to_json(self) -> str:
        """All trials as JSON."""
        return json.dumps(
            {"nestling": __version__, **asdict(self), "trials": [trial.to_json() for trial in self.trials]},
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            DataError: for anything else.
        """
        try:
            found = json.loads(text)
            found.pop("nestling", None)  # the version that wrote it, since 0.1
            return cls(**{**found, "trials": tuple(map(Trial.from_json, found["trials"]))})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"this is no table of trials: {error}; measure again with: nestling index tune"
            ) from error

    def save(self, path: str | Path) -> None:
        """Write ``to_json`` to a file, whole or not at all."""
        write_result(path, self.to_json())


def _beats(one: Trial, other: Trial) -> bool:
    """Whether ``one`` is nowhere worse and somewhere better."""
    mine = (-one.recall, one.latency_ms, one.row_bytes)
    theirs = (-other.recall, other.latency_ms, other.row_bytes)
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))


def check_targets(
    recall: float | None, *, max_bytes: float | None = None, max_ms: float | None = None
) -> None:
    """Refuse targets that no plan can have, before anything is measured.

    Raises:
        ConfigError: for what is no number, or a recall that is no share.
    """
    for name, value in (("recall", recall), ("max_bytes", max_bytes), ("max_ms", max_ms)):
        check(name, value, (RECALL if name == "recall" else Real(finite=False)) | None)


def check_recall(recall: float) -> float:
    """A share of the exact nearest that can be asked for.

    Raises:
        ConfigError: for what is no number above 0 and up to 1.
    """
    return float(check("recall", recall, RECALL))


def measured_point(table: Sequence[Mapping[str, Any]], recall: float) -> Point:
    """The fastest measured point of an index that reaches a recall.

    Args:
        table: of the index: trials as JSON values.
        recall: the lower end of the interval must reach it.

    Raises:
        ConfigError: if nothing was measured, or no point reaches the recall.
    """
    recall = check_recall(recall)
    if not table:
        raise ConfigError("this index has no measured points; measure with: nestling index tune FOLDER")
    trials = tuple(Trial.from_json(dict(row)) for row in table)
    reached = [trial for trial in trials if trial.low >= recall]
    if not reached:
        best = max(trials, key=lambda trial: trial.low)
        further = best.point.grown(2)
        advice = f'; search further than was measured, with point="{further}"' if str(further) else ""
        raise ConfigError(
            f"no measured point of this index reaches recall {recall:g} at the lower end of its 95 % CI: the "
            f"best ({str(best.point) or best.plan}) has {best.recall:.4f} [{best.low:.4f}, {best.high:.4f}]; "
            f"ask for less recall{advice}; or build another index: nestling index build --recall {recall:g}"
        )
    return min(reached, key=lambda trial: trial.latency_ms).point
