"""A short summary of a curve: the choice, its savings, and the baselines at that size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nestling.axes import FLOAT_BITS
from nestling.errors import ConfigError
from nestling.granularity import Granularity
from nestling.measure.curve.table import kept_text, short

if TYPE_CHECKING:
    from nestling.measure.curve.choice import Row
    from nestling.measure.curve.curve import Curve

KEEP = 0.99
"""The default target: this share of the full quality."""


@dataclass(frozen=True)
class Choice:
    """A granularity of a curve beside the full one.

    Args:
        row: of the main metric.
        full: the same at the full granularity.
        why: rule of the choice, in words.
    """

    row: Row
    full: Row
    why: str

    @classmethod
    def of(cls, curve: Curve, chosen: Granularity | None) -> Choice:
        """The granularity that was named, or the cheapest that surely keeps 99 %.

        Raises:
            ConfigError: if none was named and none keeps so much; the best that can be reached is named.
        """
        if chosen is not None:
            return cls(curve.row(chosen), curve.row(), "chosen")
        row = curve.row(curve.choose(keep=KEEP))
        return cls(row, curve.row(), f"cheapest that surely keeps {KEEP:.0%}")


def headline(curve: Curve, others: Sequence[Curve], chosen: Granularity | None, vectors: int) -> list[str]:
    """Sentences, the most important first.

    Args:
        curve: the measured curve.
        others: beside it; the first that has the main metric is compared with.
        chosen: the granularity that was chosen, by default that which keeps 99 %.
        vectors: number of vectors to count the bytes of.
    """
    try:
        choice = Choice.of(curve, chosen)
    except ConfigError as error:
        return [f"{str(error)[:1].upper()}{str(error)[1:]}."]
    return [_saved(choice, vectors), *_beside(curve, others, choice.row, vectors), *_better(curve, others)]


def _saved(choice: Choice, vectors: int) -> str:
    row, full = choice.row, choice.full
    if row.granularity == full.granularity:
        return f"Nothing smaller than the full {full.granularity} is surely as good."
    saved = f"{_bytes(row, vectors)} in place of {_bytes(full, vectors)} for {vectors:,} {unit(row)}s"
    if math.isnan(row.kept):
        return f"{row.granularity} takes {row.vector_bytes:,} bytes {_each(row)}: {saved}."
    kept = f"{kept_text(row)} of the {row.metric}"
    if row.vector_bytes == full.vector_bytes:
        return f"{row.granularity} keeps {kept} of {full.granularity}."
    spent = f"{row.vector_bytes:,} bytes {_each(row)} ({row.granularity})"
    return f"{spent} keep {kept} of {full.vector_bytes:,}: {saved}."


def unit(row: Row) -> str:
    """What the bytes of a row are those of; an item of several tokens is several vectors."""
    return "vector" if row.tokens is None else "item"


def _each(row: Row) -> str:
    return "a vector" if row.tokens is None else "an item"


def _beside(curve: Curve, others: Sequence[Curve], row: Row, vectors: int) -> Iterator[str]:
    other = next((each for each in others if row.metric in each.metrics), None)
    if other is None:
        return
    whole = other.row(metric=row.metric)
    if not whole.value > 0:
        return
    try:
        enough = curve.row(curve.choose(at_least=KEEP * whole.value, metric=row.metric))
    except ConfigError:
        yield f"No size surely reaches {KEEP:.0%} of what {other.name} has in full ({whole.value:.3f})."
    else:
        yield (
            f"{enough.granularity} surely reaches {KEEP:.0%} of what {other.name} has in full "
            f"({whole.value:.3f}, {whole.granularity}): {_bytes(enough, vectors)} in place of "
            f"{_bytes(whole, vectors)}."
        )
    same = _there(row.granularity, other)
    if same is not None:
        there = other.row(same, row.metric)
        yield (
            f"At {row.granularity}, {curve.name} has {row.metric} {row.value:.3f} and {other.name} "
            f"{there.value:.3f}."
        )


def _better(curve: Curve, others: Sequence[Curve]) -> Iterator[str]:
    """Sizes at which a curve is better than all others but the first, by disjoint intervals."""
    metric = curve.metrics[0]
    parts = []
    for other in [each for each in others if metric in each.metrics][1:]:
        both = {g: there for g in curve.nesting if (there := _there(g, other)) is not None}
        sure = [g for g, there in both.items() if curve.row(g, metric).low > other.row(there, metric).high]
        if both:
            parts.append(f"than {other.name!r} at {_sizes(sure, len(both))}")
    if parts:
        yield f"{curve.name} is surely better {', '.join(parts)}."


def _there(granularity: Granularity, other: Curve) -> Granularity | None:
    """The same granularity of another curve, which may be one of floats and name no bits."""
    in_floats = granularity.get("bits") == max(FLOAT_BITS)
    names = (granularity, granularity.replace(bits=None) if in_floats else granularity)
    return next((name for name in names if name in other.nesting), None)


def _sizes(sure: Sequence[Granularity], count: int) -> str:
    if len(sure) in (0, count):
        return "every size" if sure else "no size"
    if len(sure) == 1:
        return str(sure[0])
    return f"{len(sure)} of {count} sizes, {sure[0]} to {sure[-1]}"


def _bytes(row: Row, vectors: int) -> str:
    return f"{short(row.vector_bytes * vectors)}B"
