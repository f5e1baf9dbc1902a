"""A claim with its figures, and the report of a run, for all papers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nestling.arguments.paths import home_path
from nestling.errors import DataError
from nestling.measure.machine import machine, today, versions
from nestling.storage.artifact import write_result


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, restated with margins, and its measured figures.

    Args:
        id: as in the paper's list, such as ``"C1"``; one claim may be measured on several data sets.
        statement: the claim with its margins.
        holds: True if the whole 95 % interval of the clearance is at least 0, False if not,
            None if the claim was not tested (``statement`` then says why).
        figures: means over the seeds, by name.
        interval: 95 % t-interval over the seeds of the clearance: how far the tightest figure of the
            claim lies on the right side of its margin.
        seeds: number of seeds.
        data: the data of the measurement.
    """

    id: str
    statement: str
    holds: bool | None
    figures: Mapping[str, float]
    interval: tuple[float, float] | None
    seeds: int
    data: str = ""

    @classmethod
    def measured(
        cls,
        claim: str,
        statement: str,
        runs: Sequence[tuple[float, Mapping[str, float]]],
        *,
        data: str,
    ) -> Claim:
        """A claim from one (clearance, figures) a seed.

        Raises:
            DataError: for fewer than two seeds, which give no interval.

        >>> Claim.measured("C1", "more is more", [(0.2, {"gap": 1.0}), (0.4, {"gap": 2.0})], data="d").holds
        False
        """
        clearances = [clearance for clearance, _ in runs]
        figures = {name: float(np.mean([each[name] for _, each in runs])) for name in runs[0][1]}
        low, high = t_interval(clearances)
        return cls(claim, statement, low >= 0, figures, (low, high), len(runs), data)

    @classmethod
    def not_tested(cls, claim: str, reason: str) -> Claim:
        """A claim that cannot be tested at this scale, with the reason."""
        return cls(claim, reason, None, {}, None, 0)

    @property
    def verdict(self) -> str:
        """``holds``, ``does not hold`` (and whether more seeds could decide) or ``not tested``."""
        if self.interval is not None and not self.holds and self.interval[1] >= 0:
            return "does not hold (interval spans the margin)"
        return {True: "holds", False: "does not hold", None: "not tested"}[self.holds]


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's confidence interval of the mean of a few independent runs.

    Raises:
        DataError: for fewer than two values.

    >>> [round(end, 2) for end in t_interval([1.0, 2.0, 3.0])]
    [-0.48, 4.48]
    """
    from scipy.stats import t

    if len(values) < 2:
        raise DataError(f"an interval needs at least 2 seeds, not {len(values)}; give --seeds 3")
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * deviation / len(values) ** 0.5
    return mean - half, mean + half


@dataclass(frozen=True)
class Report:
    """The claims of one paper as measured on one machine.

    Args:
        paper: its key in ``PAPERS``.
        title: its title in print.
        claims: in the paper's order.
        settings: arguments of the run, and what it chose (learning rates).
        machine: :func:`machine_stamp`.
    """

    paper: str
    title: str
    claims: tuple[Claim, ...]
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]

    def table(self) -> str:
        """The claims as plain text, one block each."""
        blocks = [
            f"{_heading(claim)}\n  {claim.statement}{_indented(_figures(claim))}" for claim in self.claims
        ]
        return "\n\n".join([self.title, *blocks]) + "\n"

    def markdown(self) -> str:
        """The claims as a Markdown table with the machine below it."""
        rows = [
            f"| {claim.id}: {claim.statement} | {claim.data or '-'} | {claim.verdict} | "
            f"{_interval(claim) or '-'} | {_figures(claim) or '-'} |"
            for claim in self.claims
        ]
        head = [
            f"# {self.title}",
            "",
            "| claim | data | verdict | clearance, 95 % | figures |",
            "|---|---|---|---|---|",
        ]
        notes = [
            "Clearance: how far the tightest figure lies on the right side of its margin; a claim holds when "
            "the whole interval over the seeds is at least 0.",
            _sentence("Settings", self.settings),
            _sentence("Machine", self.machine),
        ]
        return "\n".join([*head, *rows, "", "\n\n".join(notes)]) + "\n"

    def to_json(self) -> str:
        """The whole report as JSON text."""
        return json.dumps(asdict(self), indent=2, default=dict) + "\n"

    def save(self, folder: str | Path) -> None:
        """Write ``<paper>.json`` and ``<paper>.md`` into ``folder``."""
        write_result(home_path(folder) / f"{self.paper}.json", self.to_json())
        write_result(home_path(folder) / f"{self.paper}.md", self.markdown())


def machine_stamp() -> dict[str, Any]:
    """Provenance of the figures: processor, cores, system, versions, day; no paths."""
    return {"processor": machine(), "versions": versions(), "date": today()}


def _heading(claim: Claim) -> str:
    measured = f" ({claim.data}, {claim.seeds} seeds, clearance {_interval(claim)})" if claim.interval else ""
    return f"{claim.id} {claim.verdict.upper()}{measured}"


def _interval(claim: Claim) -> str:
    return f"[{claim.interval[0]:+.3g}, {claim.interval[1]:+.3g}]" if claim.interval else ""


def _figures(claim: Claim) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in claim.figures.items())


def _indented(text: str) -> str:
    return f"\n  {text}" if text else ""


def _sentence(head: str, values: Mapping[str, Any]) -> str:
    said = "; ".join(f"{name} {_plain(value)}" for name, value in values.items())
    return f"{head}: {said}."


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
