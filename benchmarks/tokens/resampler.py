"""Ways to train a query resampler to answer questions about places, on mosaics of Fashion-MNIST.

A small language model answers questions about a cell, a quadrant or the whole of a mosaic of 4 x 4 garments.
As MQT is published, no question about a place is learned in so few steps. Each row is one way of training and
one number of tokens: percent of right answers to development questions.

Run: NESTLING_DATA=<folder> python benchmarks/tokens/resampler.py [--tries NAME ...] [--steps 800] [--seed 0]
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from nestling.nn.tokens.resampler.query_layout import overlaps, regions_of
from nestling.papers.claims.checks import Tour
from nestling.papers.claims.mosaic_study import Method, Study
from nestling.papers.mqt import LEVELS, alone, mqt, published, queries
from nestling.papers.problems.mosaics import KINDS, SIDE
from nestling.schedules import Sandwich
from nestling.storage.resumable import ResumableValues
from record import Results, arguments, parsed

NUMBERS = (1, 3, 5, 9, 15, 21)


@dataclass(frozen=True)
class Try:
    """A way of training.

    Args:
        method: the model and its schedule.
        before: what is trained first, for half of the steps: ``"most"``, the largest number alone, or
            ``"means"``, tokens that are the means of their regions.
        rate: the learning rate.
        later: factor of the rate after what is trained first.
    """

    method: Method
    before: str = ""
    rate: float = 2e-3
    later: float = 1.0


PLACED, OWN = {"own_region": False}, {"start": "random"}


def changed(**settings: Any) -> Method:
    """MQT in the published order and the usual steps, with another resampler."""
    return replace(mqt(), connector=partial(queries, **settings), order="forward", times=1)


TRIES = {
    "as published": Try(published()),
    "as published, most alone first": Try(published(), "most"),
    "as published, most alone first, lower rate later": Try(published(), "most", later=0.25),
    "as published, four times the rate": Try(published(), rate=8e-3),
    "as published, twice the steps": Try(replace(published(), times=2)),
    "as published, distilled from means first": Try(published(), "means"),
    "keys of places alone": Try(changed(keys="pos", **PLACED)),
    "queries on their places": Try(changed(**PLACED)),
    "queries on their places, the most alone": Try(
        replace(alone(LEVELS[-1]), connector=partial(queries, **PLACED), order="forward")
    ),
    "queries made of the means of their regions": Try(changed(queries="pooled", **PLACED)),
    "own region alone": Try(changed()),
    "own region alone, most alone first": Try(changed(), "most"),
    "own region, the most alone": Try(replace(alone(LEVELS[-1]), order="forward")),
    "reversed": Try(replace(published(), order="reversed")),
    "reversed, most alone first": Try(replace(published(), order="reversed"), "most"),
    "reversed, queries on their places": Try(replace(changed(**PLACED), order="reversed")),
    "reversed, own region": Try(replace(mqt(), times=1)),
    "reversed, own region, twice the steps": Try(mqt()),
    "reversed, own region, ends and one more a step": Try(replace(mqt(), schedule=Sandwich(1), times=1)),
}


def trained(study: Study, tried: Try, seed: int, steps: int) -> Any:
    """A model, trained in one stage or two."""
    model = study.untrained(tried.method, seed)
    if tried.before == "most":
        study.fit(model, lambda model, batch: model.loss(batch), steps // 2, tried.rate, seed)
    elif tried.before == "means":
        study.fit(model, to_means, steps // 2, tried.rate, seed)
    objective = model.objective(schedule=tried.method.schedule, reduction="mean", seed=seed)
    study.fit(model, objective, tried.method.times * steps, tried.rate * tried.later, seed)
    return model


def to_means(model: Any, batch: Any) -> Any:
    """Mean squared difference of the tokens to the means of the features of their regions."""
    (features,) = model.encode(batch).values()
    resampler = model.streams.connector("image").parts[0]
    means = (
        overlaps(regions_of(LEVELS[-1], "pyramid", 2), (SIDE, SIDE))
        @ resampler.norm_v(features.values).detach()
    )
    return F.mse_loss(resampler(features).values, means)


def measure(name: str, results: Results, seed: int, steps: int, quick: bool) -> None:
    """Train in one way, and add a row for each number of tokens."""
    tried, tour = TRIES[name], Tour((), 2, quick)
    study = Study(tour, ResumableValues(None, {}), {})
    begin = time.process_time()
    model = trained(study, tried, seed, 2 if quick else steps)
    seconds = time.process_time() - begin
    answers = study.questions("development")
    for size, chances in study.probabilities(model, "development", numbers(tried.method)).items():
        right = chances.argmax(axis=1) == answers.answers
        shares = {kind: f"{100 * right[answers.kinds == each].mean():.1f}" for each, kind in enumerate(KINDS)}
        row = {"try": name, "seed": seed, "tokens": size, **shares, "CPU s": f"{seconds:.0f}"}
        results.add(row)
        print(*row.values(), sep="\t", flush=True)


def numbers(method: Method) -> tuple[int, ...]:
    """The numbers of tokens that are tested: also untrained ones, if several are trained."""
    return NUMBERS if method.is_nested else method.trained


def main() -> None:
    """Measure the tries that are named, or all."""
    torch.set_num_threads(1)
    parser = arguments(__doc__)
    parser.add_argument("--tries", nargs="+", choices=TRIES, default=list(TRIES), help="which of them")
    parser.add_argument("--steps", type=int, default=800, help="of each training")
    parser.add_argument("--seed", type=int, default=0, help="of weights and questions")
    given = parsed(parser)
    results = Results("resampler", given.output, keys=("try", "seed", "tokens"))
    for name in given.tries:
        measure(name, results, given.seed, given.steps, given.quick)


if __name__ == "__main__":
    main()
