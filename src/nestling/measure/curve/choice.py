"""Rows of a curve, the cheapest row that meets the targets, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from nestling.arguments.constraints import OneOf, Real, check, checked
from nestling.axes import FLOAT_BITS, OF_TOKENS, read_bits
from nestling.errors import ConfigError
from nestling.granularity import Granularity

CostName = Literal["vector_bytes", "flops", "latency_ms", "model_bytes", "tokens"]

_LIMITS: dict[CostName, str] = {
    "vector_bytes": "max_bytes",
    "latency_ms": "max_ms",
    "flops": "max_flops",
    "model_bytes": "max_model_bytes",
    "tokens": "max_tokens",
}
"""Name of the limit on each cost."""

_HOW_TO_MEASURE: dict[CostName, str] = {
    "latency_ms": "sweep with latency=True",
    "tokens": "sweep a model over tokens",
}


@dataclass(frozen=True)
class Row:
    """One metric at one granularity.

    Args:
        granularity: granularity of the measurement.
        metric: the name of the metric.
        value: the quality, and ``low`` to ``high`` its interval.
        low: lower end.
        high: upper end.
        kept: share of the full quality, NaN where that is not above 0, and its interval.
        kept_low: lower end, from the same resamples for both.
        kept_high: upper end.
        vector_bytes: bytes of one output, such as one stored vector.
        flops: multiply-adds for one input, None where they are not known.
        latency_ms: time of one use, None where it was not measured.
        model_bytes: bytes of the model (its weights) at this granularity, None where they are not known.
        seed: of the resamples.
    """

    granularity: Granularity
    metric: str
    value: float
    low: float
    high: float
    kept: float
    kept_low: float
    kept_high: float
    vector_bytes: int
    flops: float | None = None
    latency_ms: float | None = None
    model_bytes: int | None = None
    seed: int = 0

    @property
    def tokens(self) -> int | None:
        """The most tokens of one item, of all streams together; None if the granularity names none."""
        sizes = [size for axis, size in self.granularity.items() if axis in OF_TOKENS]
        return sum(sizes) if sizes else None

    def costs(self, first: CostName = "vector_bytes") -> tuple[float, ...]:
        """All costs, ``first`` first; an unknown cost is 0 on the whole curve."""
        names = sorted(get_args(CostName), key=lambda name: name != first)
        return tuple(float(getattr(self, name) or 0) for name in names)


@dataclass(frozen=True)
@checked(
    keep=Real(above=0, most=1) | None,
    at_least=Real(finite=False) | None,
    max_bytes=Real(finite=False) | None,
    max_ms=Real(finite=False) | None,
    max_flops=Real(finite=False) | None,
    max_model_bytes=Real(finite=False) | None,
    max_tokens=Real(finite=False) | None,
)
class Targets:
    """Targets of a choice; None sets none.

    Args:
        keep: share of the full quality, above 0 and at most 1.
        at_least: quality.
        max_bytes: most bytes of one output, such as a stored vector.
        max_ms: most milliseconds of one use.
        max_flops: most multiply-adds for one input.
        max_model_bytes: most bytes of the model (its weights) at this granularity.
        max_tokens: most tokens of one item, of all streams together.

    Raises:
        ConfigError: if no target is given, or an impossible one.
    """

    keep: float | None = None
    at_least: float | None = None
    max_bytes: float | None = None
    max_ms: float | None = None
    max_flops: float | None = None
    max_model_bytes: float | None = None
    max_tokens: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if not given:
            raise ConfigError(f"give a target: keep=0.99, at_least=, {'=, '.join(_LIMITS.values())}=")

    @property
    def ask_for_quality(self) -> bool:
        """Whether any quality is asked for, or limits alone."""
        return self.keep is not None or self.at_least is not None

    def afford(self, row: Row) -> bool:
        """Whether ``row`` lies within the limits."""
        return all(_known(row, cost) <= limit for cost, limit in self.limits.items())

    @property
    def limits(self) -> dict[CostName, float]:
        """The costs that are limited."""
        given = {cost: getattr(self, name) for cost, name in _LIMITS.items()}
        return {cost: limit for cost, limit in given.items() if limit is not None}

    def reach(self, row: Row) -> bool:
        """Whether the lower ends of ``row`` reach the quality."""
        return (self.keep is None or row.kept_low >= self.keep) and (
            self.at_least is None or row.low >= self.at_least
        )

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in vars(self).items() if value is not None)


def choose(column: Sequence[Row], targets: Targets, cheapest: CostName = "vector_bytes") -> Row:
    """The cheapest row that meets the targets; the best affordable one where they name limits alone.

    Of several sizes and precisions with equal bytes, the one with the highest lower end is taken.

    Args:
        column: the rows of one metric.
        targets: the targets.
        cheapest: the cost that is compared first.

    Raises:
        ConfigError: if no row meets the targets; the message names the best that can be reached. Also for a
            share of a full quality that is not above 0.
    """
    check("cheapest", cheapest, OneOf(get_args(CostName)))
    if targets.keep is not None and math.isnan(column[-1].kept):
        raise ConfigError(
            "the full quality is not above 0, so no share of it can be kept; use at_least= "
            f"({column[-1].metric} is {column[-1].value:.4f} in full)"
        )
    affordable = [row for row in column if targets.afford(row)]
    if not affordable:
        least = min(column, key=lambda row: row.costs(next(iter(targets.limits))))
        spent = " and ".join(f"{cost}={getattr(least, cost):.6g}" for cost in targets.limits)
        raise ConfigError(f"no granularity meets {targets}; the cheapest is {least.granularity} with {spent}")
    if not targets.ask_for_quality:
        # Of equally good ones the cheapest: max takes the first of equals.
        by_cost = sorted(affordable, key=lambda row: _price(row, cheapest))
        return max(by_cost, key=lambda row: _or_least(row.value))
    meeting = [row for row in affordable if targets.reach(row)]
    if not meeting:
        raise ConfigError(_best_reachable(affordable, targets))
    first = min(meeting, key=lambda row: _price(row, cheapest))
    as_cheap = [row for row in meeting if _is_as_cheap(row, first, cheapest)]
    return min(as_cheap, key=lambda row: (-_or_least(_lower_end(row, targets)), _price(row, cheapest)))


def _is_as_cheap(row: Row, first: Row, cheapest: CostName) -> bool:
    """Whether two rows have the same layers and such, and the same bytes; their dims and bits may differ."""
    same_cost = row.costs(cheapest)[0] == first.costs(cheapest)[0]
    same_rest = row.granularity.rest == first.granularity.rest
    return same_cost and same_rest and row.vector_bytes == first.vector_bytes


def _lower_end(row: Row, targets: Targets) -> float:
    return row.low if targets.keep is None else row.kept_low


def _price(row: Row, cheapest: CostName) -> tuple[float, ...]:
    """Fewer dims, which are faster, decide between equal costs and quality."""
    return (*row.costs(cheapest), row.granularity.get("dim", 0))


def of_precision(column: Sequence[Row], bits: int | Iterable[int] | str) -> list[Row]:
    """The rows of some precisions; those that name none are float32.

    Raises:
        ConfigError: if one was not measured.
        GranularityError: for bits that no precision has.
    """
    wanted = set(read_bits(bits))
    measured = {row: row.granularity.get("bits", max(FLOAT_BITS)) for row in column}
    if missing := wanted - set(measured.values()):
        known = ", ".join(map(str, sorted(set(measured.values()))))
        raise ConfigError(
            f"bits={', '.join(map(str, sorted(missing)))} was not measured; the curve has bits={known}"
        )
    return [row for row, precision in measured.items() if precision in wanted]


def _best_reachable(affordable: Sequence[Row], targets: Targets) -> str:
    best = max(affordable, key=lambda row: _or_least(_lower_end(row, targets)))
    share = f", which keeps {best.kept:.4f} ({best.kept_low:.4f} to {best.kept_high:.4f})"
    if math.isnan(best.kept):
        share = ""
    return (
        f"no granularity meets {targets} by the lower end of its interval; the best reachable is "
        f"{best.granularity}: {best.metric} {best.value:.4f} ({best.low:.4f} to {best.high:.4f}){share}. Ask "
        "for less, or measure more examples"
    )


def pareto(column: Sequence[Row]) -> tuple[Row, ...]:
    """The rows that no other beats by being no worse in any cost and in quality, and better in one.

    Over ``bits``, ``dim`` and ``bits`` cost bytes alone: the other costs are those of the rest in full.
    """
    costs = {row: row.costs() for row in column}
    if any("bits" in row.granularity for row in column):
        of_rest: dict[Granularity, tuple[float, ...]] = {}
        for row in column:
            _, *others = row.costs()
            known = of_rest.get(row.granularity.rest, others)
            of_rest[row.granularity.rest] = tuple(map(max, known, others))
        costs = {row: (float(row.vector_bytes), *of_rest[row.granularity.rest]) for row in column}

    def beats(one: Row, other: Row) -> bool:
        gains = [(b, a) for a, b in zip(costs[one], costs[other], strict=True)]
        gains.append((_or_least(one.value), _or_least(other.value)))
        return all(ours >= theirs for ours, theirs in gains) and any(ours > theirs for ours, theirs in gains)

    return tuple(row for row in column if not any(beats(other, row) for other in column))


def at_budgets(front: Sequence[Row]) -> tuple[Row, ...]:
    """The best rows of a Pareto front within 1, 2, 4, 8, ... bytes, for each setting of the other axes."""
    best: dict[tuple[Granularity, int], Row] = {}
    for row in front:
        budget = (row.granularity.rest, math.ceil(math.log2(row.vector_bytes)))
        if budget not in best or row.value > best[budget].value:
            best[budget] = row
    return tuple(best.values())


def _known(row: Row, cost: CostName) -> float:
    value = getattr(row, cost)
    if value is None:
        how = _HOW_TO_MEASURE.get(cost, "sweep a model that has a `cost` method")
        raise ConfigError(f"{_LIMITS[cost]}= needs {cost}, which was not measured; {how}")
    return float(value)


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value
