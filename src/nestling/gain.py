"""Gain over plain truncation at every size: differences on the same examples, and what they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nestling.granularity import Granularity

_MOST_NAMED = 16


@dataclass(frozen=True)
class Gain:
    """The difference between a trained model and plain truncation, by one metric at one granularity.

    Args:
        granularity: at which both were measured.
        metric: name of the metric.
        value: the difference; above 0 the trained model is better.
        low: lower end of its confidence interval, from bootstrap resamples that both share.
        high: upper end.
    """

    granularity: Granularity
    metric: str
    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Literal["better", "as good", "worse"]:
        """Whether the confidence interval is above 0, below 0, or contains it."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "as good"


def verdict_of(gains: Sequence[Gain], metric: str, what: str = "Training") -> str:
    """One sentence that says at which granularities training (or another method, ``what``) pays.

    >>> sizes = [Granularity(dim=8), Granularity(dim=64)]
    >>> verdict_of([Gain(g, "ndcg@10", v, v - 0.01, v + 0.01) for g, v in zip(sizes, (0.1, 0.0))], "ndcg@10")
    'Training pays at dim=8 (ndcg@10 +0.100); at dim=64 plain truncation is as good.'
    """
    column = [gain for gain in gains if gain.metric == metric]
    sizes = {
        verdict: [gain for gain in column if gain.verdict == verdict]
        for verdict in ("better", "as good", "worse")
    }
    if not sizes["better"]:
        start = f"{what} pays at no size (by {metric})"
    else:
        most = max(gain.value for gain in sizes["better"])
        least = min(gain.value for gain in sizes["better"])
        by = f"+{most:.3f}" if most == least else f"+{least:.3f} to +{most:.3f}"
        start = f"{what} pays at {_named(sizes['better'], column)} ({metric} {by})"
    others = {"as good": "plain truncation is as good", "worse": "plain truncation is better"}
    rest = [f"at {_named(sizes[name], column)} {what}" for name, what in others.items() if sizes[name]]
    return "; ".join([start, *rest]) + "."


def _named(part: Sequence[Gain], whole: Sequence[Gain]) -> str:
    if len(part) == len(whole) > 1:
        return "every size"
    names = _joined(part, whole)
    return ", ".join(names) if len(names) <= _MOST_NAMED else f"{len(part)} of {len(whole)} sizes"


def _joined(part: Sequence[Gain], whole: Sequence[Gain]) -> list[str]:
    """The granularities of ``part``; those of a size in all its precisions by the size alone."""
    sizes = {gain.granularity: gain.granularity.replace(bits=None) for gain in whole}
    here, all_of = (Counter(sizes[gain.granularity] for gain in gains) for gains in (part, whole))
    named = [gain.granularity for gain in part]
    names = [sizes[g] if here[sizes[g]] == all_of[sizes[g]] else g for g in named]
    return list(dict.fromkeys(map(str, names)))
