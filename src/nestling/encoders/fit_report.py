"""Whether a fitted map of vectors is better than plain truncation, on rows that it did not learn from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, CutRule, cut
from nestling.encoders.matrix import Vectors
from nestling.errors import NoGainWarning
from nestling.gain import Gain, told
from nestling.granularity import Granularity, Nesting

FEWEST = 50
"""Held-out rows that a report needs."""

_MOST_QUERIES = 1000
_K = 10
_SURE = 1.96  # standard errors on each side of a 95 % interval
_ROUNDING = 1e-6
_SMALLEST_NORM = 1e-12

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class HeldOut:
    """Rows that a map did not learn from.

    Args:
        x: ``Float[n, features]``.
        pairs: ``Float[n, features]``, row i belongs with row i of ``x``, or None.
        labels: ``Int[n]``, or None.
    """

    x: Vectors
    pairs: Vectors | None = None
    labels: NDArray[np.int64] | None = None

    kept = f"neighbours@{_K}"

    @property
    def metric(self) -> str:
        """What they can measure: partners found, neighbours of one label, or neighbours kept."""
        if self.pairs is not None:
            return "mrr"
        return self.kept if self.labels is None else f"precision@{_K}"


@dataclass(frozen=True)
class FitReport:
    """A fitted map against plain truncation at every size, on rows that were held out.

    Args:
        metric: ``mrr`` of finding the other of a pair among the held-out rows; ``precision@10``, the share
            of the nearest rows that has the label; or ``neighbours@10``, the share of the nearest rows of the
            full vectors that still is, which says what is kept and not whether it was right.
        rows: how many were held out; 0 where there were too few to say anything.
        gains: of the map over truncation.
        values: of the map, in the same order.
    """

    metric: str = ""
    rows: int = 0
    gains: tuple[Gain, ...] = ()
    values: tuple[float, ...] = ()

    @property
    def verdict(self) -> str:
        """One sentence: at which sizes the map pays."""
        if not self.gains:
            return f"Not measured: it takes a size to cut to, and {FEWEST} held-out rows (a tenth of all)."
        return told(self.gains, self.metric, "The map")

    def up_to(self, nesting: Nesting) -> FitReport:
        """The sizes of ``nesting`` alone."""
        both = zip(self.gains, self.values, strict=True)
        kept = [(gain, value) for gain, value in both if gain.granularity in nesting]
        return FitReport(
            self.metric, self.rows, tuple(gain for gain, _ in kept), tuple(value for _, value in kept)
        )

    def to_json(self) -> dict[str, Any]:
        """The report as it stands in a manifest."""
        lines = zip(self.gains, self.values, strict=True)
        sizes = [[str(gain.granularity), value, gain.value, gain.low, gain.high] for gain, value in lines]
        return {"metric": self.metric, "rows": self.rows, "sizes": sizes}

    @classmethod
    def from_json(cls, record: dict[str, Any] | None) -> FitReport:
        """What ``to_json`` wrote; an empty report where there is none."""
        if record is None:
            return cls()
        metric, sizes = record["metric"], record["sizes"]
        gains = tuple(Gain(Granularity.parse(name), metric, *figures) for name, _, *figures in sizes)
        return cls(metric, record["rows"], gains, tuple(value for _, value, *_ in sizes))

    def warn(self, name: str, full: int) -> None:
        """Say where plain truncation does as well; at full size only if it does better.

        Args:
            name: of the map.
            full: entries of the vectors, which no cut shortens.
        """
        cuts = [gain for gain in self.gains if gain.granularity["dim"] < full]
        doubtful = [gain for gain in cuts if gain.verdict != "better"]
        if self.metric != HeldOut.kept:  # which is that of the full vectors, and so 1 for them
            doubtful += [gain for gain in self.gains if gain not in cuts and gain.verdict == "worse"]
        if not doubtful:
            return
        useful = [str(gain.granularity) for gain in self.gains if gain.verdict == "better"]
        advice = (
            f"use the map where it pays, at {', '.join(useful)}"
            if useful
            else "leave the map out and cut the vectors as they are"
        )
        places = ", ".join(f"{gain.granularity} ({gain.value:+.3f})" for gain in doubtful)
        warnings.warn(
            f"{name}: by {self.metric} of {self.rows:,} held-out rows, plain truncation is as good or better "
            f"at {places}; {advice}. Pairs that belong together teach more; report_ has all sizes",
            NoGainWarning,
            stacklevel=3,
        )


def compare_with_truncation(
    transform: Callable[[Vectors], Vectors], held: HeldOut, nesting: Nesting, rule: CutRule
) -> FitReport:
    """Measure a map and plain truncation at the sizes of ``nesting`` on held-out rows.

    Args:
        transform: the map, all of its outputs.
        held: the rows; of very many a thousand ask.
        nesting: sizes on ``dim``.
        rule: what is done after a cut; cosines under ``l2``, else distances.
    """
    dims = nesting.sizes("dim")
    if len(held.x) < FEWEST or len(dims) == 1:
        return FitReport()
    mapped = HeldOut(transform(held.x), None if held.pairs is None else transform(held.pairs), held.labels)
    truth = _neighbours(held, rule)
    ours, theirs = (_measured(each, dims, rule, truth) for each in (mapped, held))
    gains = [
        Gain(granularity, held.metric, *_interval(a - b))
        for granularity, a, b in zip(nesting, ours, theirs, strict=True)
    ]
    values = tuple(float(np.mean(each)) for each in ours)
    return FitReport(held.metric, len(held.x), tuple(gains), values)


def _measured(
    held: HeldOut, dims: Iterable[int], rule: CutRule, truth: tuple[Floats, Floats] | None
) -> list[Floats]:
    """The metric of each row that asks, at each size."""
    found = []
    for dim in dims:
        near = _similarities(held, dim, rule)
        if held.pairs is not None:
            own = np.diagonal(near)[:, None]
            found.append(1 / (1 + (near > own + _ROUNDING).sum(axis=1)))
            continue
        nearest = np.argpartition(-near, _K, axis=1)[:, slice(_K)]
        if held.labels is not None:
            right = held.labels[nearest] == held.labels[: len(near), None]
        else:
            assert truth is not None
            whole, least = truth
            # By score and not by row, so that equal rows stand for each other.
            right = np.take_along_axis(whole, nearest, axis=1) >= least - _ROUNDING
        found.append(right.mean(axis=1))
    return found


def _neighbours(held: HeldOut, rule: CutRule) -> tuple[Floats, Floats] | None:
    """Likeness in full, and that of the last of the nearest rows, where nothing else says what is right."""
    if held.pairs is not None or held.labels is not None:
        return None
    whole = _similarities(held, held.x.shape[1], rule)
    return whole, -np.partition(-whole, _K - 1, axis=1)[:, [_K - 1]]


def _similarities(held: HeldOut, dim: int, rule: CutRule) -> Floats:
    """``Float[queries, n]``, higher is nearer; a row is not near itself unless rows are pairs."""
    sides = [np.asarray(cut(side, dim, RAW), np.float32) for side in (held.x, held.pairs) if side is not None]
    if rule.after == "l2":
        # A row whose leading entries are all zero is near nothing, which counts against truncation.
        sides = [
            side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), _SMALLEST_NORM) for side in sides
        ]
    asked, known = sides[0][:_MOST_QUERIES], sides[-1]
    near = asked @ known.T
    if rule.after != "l2":
        near -= (known * known).sum(axis=1) / 2
    if held.pairs is None:
        np.fill_diagonal(near, -np.inf)
    return near


def _interval(differences: Floats) -> tuple[float, float, float]:
    """Mean and its 95 % interval."""
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return mean, mean - _SURE * error, mean + _SURE * error
