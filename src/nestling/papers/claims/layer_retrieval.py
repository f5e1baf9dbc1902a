"""Retrieval quality of encoders truncated in depth: every layer, at all dims."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from nestling.data.sets.retrieval_sets import cranfield, xquad
from nestling.encoders.text.encoder import TextEncoder
from nestling.granularity import Granularity, Nesting
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import Retrieval
from nestling.papers.claims.checks import Run

ByLayer = dict[str, float]
"""Quality x 100 by granularity, in the order of layers; the full size is the last."""


def find(model: TextEncoder, *, quick: bool = False) -> dict[str, ByLayer]:
    """MRR@10 of XQuAD and nDCG@10 of Cranfield; XQuAD alone if ``quick``."""
    return {name: _by_layer(model, _task(name)) for name in (("xquad",) if quick else ("xquad", "cranfield"))}


def mean_lift(each: Mapping[str, Mapping[str, ByLayer]], ahead: str, behind: str) -> Run:
    """Mean gain of one model over another below the last layer, the least over the tasks; all figures."""
    pairs = [(_below(each[ahead][task]), _below(each[behind][task])) for task in each[ahead]]
    return float(min(np.mean(one) - np.mean(other) for one, other in pairs)), _by_task(each)


def least_lift(each: Mapping[str, Mapping[str, ByLayer]], ahead: str) -> Run:
    """Gain of one model over the best of the others below the last layer, where it is least; all figures."""
    others = [found for name, found in each.items() if name != ahead]
    gains = [
        value - max(_below(other[task])[place] for other in others)
        for task, found in each[ahead].items()
        for place, value in enumerate(_below(found))
    ]
    return min(gains), _by_task(each)


def _by_layer(model: TextEncoder, task: Retrieval) -> ByLayer:
    """The quality at every layer."""
    full = model.nesting.full
    whole = Nesting(tuple(full.replace(layer=layer) for layer in model.nesting.sizes("layer")))
    return {
        str(row.granularity): 100 * row.value for row in sweep(model, task, whole, truncation=False).column()
    }


def _below(found: ByLayer) -> list[float]:
    return list(found.values())[:-1]


def _by_task(each: Mapping[str, Mapping[str, ByLayer]]) -> dict[str, float]:
    """All figures, in the order of tasks, layers and models."""
    first = next(iter(each.values()))
    return {
        f"{task}, layer {Granularity.parse(g)['layer']}, {name}": found[task][g]
        for task in first
        for g in first[task]
        for name, found in each.items()
    }


@cache
def _task(name: str) -> Retrieval:
    data, measure = (xquad(), "mrr") if name == "xquad" else (cranfield(), "ndcg")
    return Retrieval.from_data(data, measures=(measure,))
