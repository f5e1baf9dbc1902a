"""Comparison of a fitted map with plain truncation, on held-out rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nestling.cut import CutRule
from nestling.encoders.maps.held_out import FEWEST, SHARE, HeldOut, interval
from nestling.errors import NoGainWarning
from nestling.gain import Gain, verdict_of
from nestling.granularity import Granularity, Nesting
from nestling.vectors.matrix import Vectors


@dataclass(frozen=True)
class FitReport:
    """A fitted map against plain truncation at every size, on held-out rows.

    Args:
        metric: ``mrr`` of retrieving the partner of a pair among the held-out rows; ``precision@10``, the
            share of the nearest rows with the same label; or ``neighbours@10``, the share of the nearest
            rows of the full vectors that is kept (not whether these were right).
        rows: number of held-out rows; 0 if there were too few for a report.
        gains: of the map over truncation.
        values: of the map, in the same order.
    """

    metric: str = ""
    rows: int = 0
    gains: tuple[Gain, ...] = ()
    values: tuple[float, ...] = ()

    @property
    def verdict(self) -> str:
        """One sentence: the sizes at which the map is better than truncation."""
        if not self.gains:
            return f"Not measured: it takes a size to cut to, and {FEWEST} held-out rows (one of {SHARE})."
        return verdict_of(self.gains, self.metric, "The map")

    def up_to(self, nesting: Nesting) -> FitReport:
        """The sizes of ``nesting`` alone."""
        both = zip(self.gains, self.values, strict=True)
        kept = [(gain, value) for gain, value in both if gain.granularity in nesting]
        return FitReport(
            self.metric, self.rows, tuple(gain for gain, _ in kept), tuple(value for _, value in kept)
        )

    def to_json(self) -> dict[str, Any]:
        """The report for a manifest."""
        lines = zip(self.gains, self.values, strict=True)
        sizes = [[str(gain.granularity), value, gain.value, gain.low, gain.high] for gain, value in lines]
        return {"metric": self.metric, "rows": self.rows, "sizes": sizes}

    @classmethod
    def from_json(cls, record: dict[str, Any] | None) -> FitReport:
        """The inverse of ``to_json``; an empty report for None."""
        if record is None:
            return cls()
        metric, sizes = record["metric"], record["sizes"]
        gains = tuple(Gain(Granularity.parse(name), metric, *figures) for name, _, *figures in sizes)
        return cls(metric, record["rows"], gains, tuple(value for _, value, *_ in sizes))

    def warn(self, name: str, full: int) -> None:
        """Warn of sizes at which the map is not better than plain truncation; of the full size if worse.

        Args:
            name: of the map.
            full: entries of the vectors, which no cut shortens.
        """
        worse = [gain for gain in self.gains if gain.verdict == "worse"]
        if self.metric == HeldOut.kept:  # the kept share is relative to the full vectors, so it is 1 for them
            worse = [gain for gain in worse if gain.granularity["dim"] < full]
        alike = [gain for gain in self.gains if gain.verdict == "as good" and gain.granularity["dim"] < full]
        if not worse and not alike:
            return
        useful = [str(gain.granularity) for gain in self.gains if gain.verdict == "better"]
        advice = (
            f"use the map where it pays, at {', '.join(useful)}"
            if useful
            else "leave the map out and cut the vectors as they are"
        )
        found = [f"worse than plain truncation at {_places(worse)}"] if worse else []
        if alike:
            found.append(
                f"not shown to be better {'' if worse else 'than plain truncation '}at {_places(alike)}"
            )
        warnings.warn(
            f"{name}: by {self.metric} of {self.rows:,} held-out rows the map is {' and '.join(found)}; "
            f"{advice}. Pairs that belong together teach more; report_ has all sizes",
            NoGainWarning,
            stacklevel=3,
        )


def _places(gains: list[Gain]) -> str:
    return ", ".join(f"{gain.granularity} ({gain.value:+.3f})" for gain in gains)


def compare_with_truncation(
    transform: Callable[[Vectors], Vectors], held: HeldOut, nesting: Nesting, rule: CutRule
) -> FitReport:
    """Measure a map and plain truncation at the sizes of ``nesting`` on held-out rows.

    Args:
        transform: the map, all of its outputs.
        held: the rows.
        nesting: sizes on ``dim``.
        rule: applied after a cut; cosines with ``l2``, else distances.
    """
    if len(held.x) < FEWEST or len(nesting) == 1:
        return FitReport()
    mapped = HeldOut(transform(held.x), None if held.pairs is None else transform(held.pairs), held.labels)
    right, gains, values = held.right(rule), [], []
    for granularity in nesting:
        ours, theirs = (each.answers(granularity["dim"], rule, right) for each in (mapped, held))
        gains.append(Gain(granularity, held.metric, *interval(ours, theirs, held.freedom)))
        values.append(float(ours.values.mean()))
    return FitReport(held.metric, len(held.x), tuple(gains), tuple(values))
