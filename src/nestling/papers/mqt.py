"""MQT, Matryoshka Query Transformer (Hu et al. 2024, arXiv 2405.19315), and its claims.

Queries attend to the features of a picture and give its tokens; a step trains the first ``m`` of them, with
a random ``m``. So any number of tokens can be asked for. The paper aligns all queries to half a million
captions first, and LLaVA follows. Here a small Llama learns from scratch to answer questions about mosaics of
garments in minutes on a CPU, so the claims compare methods, and say nothing of real benchmarks.

In so few steps the published form learns no question about a place: its curve stays flat. Three changes
make it rise, and all claims are about the form that has them. Queries form a pyramid, the whole before
quarters and quarters before cells; each attends to its own region alone, as in TokenPacker
(arXiv 2407.02392); and tokens stand in reversed order, so that each keeps its distance to the question,
whatever their number. ``benchmarks/tokens/resampler.py`` measures each change alone.

The margins are those of the specification, set before anything was measured.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from nestling.domains.prefix import prefill_flops
from nestling.errors import require
from nestling.measure.machine import versions
from nestling.nn.tokens import Connector, Projector
from nestling.nn.tokens.resampler.query_resampler import QueryResampler
from nestling.papers.claims.checks import Checks, Run, Tour, measure_checks
from nestling.papers.claims.mosaic_study import HIDDEN, Method, Study
from nestling.papers.claims.report import Claim
from nestling.papers.problems.mosaics import FEATURES, KINDS, SIDE
from nestling.schedules import RandomPrefix
from nestling.storage.resumable import ResumableValues

TITLE = "MQT: Matryoshka Query Transformer (arXiv 2405.19315), claims at small scale"

CHECKS: Checks[Study] = Checks()
_ON = ("mosaics",)
_FINE, _COARSE = KINDS[0], KINDS[-1]
LEVELS = (1, 5, 21)
"""Queries of the pyramid up to the whole, its quarters, and their cells."""
_MOST = LEVELS[-1]
TRAINED = tuple(sorted({*LEVELS, *range(2, _MOST, 2)}))
_UNTRAINED = (3, 9, 15)
TESTED = tuple(sorted({*LEVELS, *(m + step for m in _UNTRAINED for step in (-1, 0, 1))}))
_HEADS = 4
_LOSS, _OVER_CUT, _OFF_LINE, _RISE, _ORDER = 4.0, 8.0, 3.0, 10.0, 5.0
_FEW = 5
_EXACT, _FROZEN_OFF = 1e-6, 1e-5
_SLOPE, _SLOPE_OFF = (4.52e12 - 1.24e12) / (256 - 8), 0.03
"""Multiply-adds of one more token, read off the paper's plot, and how far off reading may be."""


def queries(**settings: Any) -> Connector:
    """A resampler with the queries of a pyramid, and a projector behind it."""
    settings = {"order": "pyramid", "start": "grid", "own_region": True, **settings}
    resampler = QueryResampler(_MOST, FEATURES, (SIDE, SIDE), heads=_HEADS, **settings)
    return Connector(resampler, Projector(FEATURES, HIDDEN))


def mqt() -> Method:
    """A random number of tokens in each of twice the usual steps; also tokens other than the first."""
    draw = np.random.default_rng(0).choice(_MOST, _FEW, replace=False)
    chosen = {
        "first": tuple(range(_FEW)),
        "last": tuple(range(_MOST - _FEW, _MOST)),
        "random": tuple(sorted(draw.tolist())),
    }
    return Method(
        "MQT",
        trained=TRAINED,
        connector=queries,
        schedule=RandomPrefix(),
        times=2,
        tested=TESTED,
        order="reversed",
        chosen=chosen,
    )


def published() -> Method:
    """Free queries in their order, which attend to all features."""
    free = partial(queries, start="random", own_region=False)
    return Method("as published", trained=TRAINED, connector=free, schedule=RandomPrefix(), tested=LEVELS)


def alone(size: int) -> Method:
    """One number of tokens alone; at the largest also cut to fewer."""
    tested = LEVELS if size == _MOST else (size,)
    chosen = mqt().chosen if size == _MOST else {}
    return Method(
        f"alone at {size}",
        trained=(size,),
        connector=queries,
        tested=tested,
        order="reversed",
        chosen=chosen,
    )


@CHECKS.claim("MQT-1", "The tokens of any number are the first ones of the largest", _ON)
def tokens_are_prefixes(study: Study, seed: int) -> Run:
    """Largest difference over all numbers, as a share of the largest entry; kinds of keys and depths."""
    found, figures = _features(study), {}
    for keys in ("content+pos", "content", "pos"):
        for depth in (1, 2):
            made = _resampler(seed, keys=keys, depth=depth, start="random")
            with torch.no_grad():
                whole = made(found).values
                alone = [made(found, at=m).values - whole[:, :m] for m in range(1, _MOST + 1)]
            largest = max(float(each.abs().max()) for each in alone)
            figures[f"{keys} keys, depth {depth}"] = largest / float(whole.abs().max())
    return _EXACT - max(figures.values()), figures


@CHECKS.claim("MQT-2", "In twice the steps one model is within 4 points of those for one number", _ON)
def as_good_as_separate(study: Study, seed: int) -> Run:
    """Mean over the kinds of question."""
    ours = study.means(mqt(), seed)
    theirs = {size: study.means(alone(size), seed)[size] for size in LEVELS}
    figures: dict[str, float] = {}
    for size in LEVELS:
        figures |= {f"MQT at {size}": ours[size], f"alone at {size}": theirs[size]}
    for each in (mqt(), *map(alone, LEVELS)):
        figures[f"CPU s, {each.name}"] = study.figures(each, seed)["seconds"]
    return _LOSS - max(theirs[size] - ours[size] for size in LEVELS), figures


@CHECKS.claim("MQT-3", "With 5 tokens or fewer it beats a cut of the largest model by 8 points", _ON)
def beats_a_cut(study: Study, seed: int) -> Run:
    """The coarse question."""
    ours, theirs = study.accuracies(mqt(), seed), study.accuracies(alone(_MOST), seed)
    few = [size for size in LEVELS if size <= _FEW]
    figures = {f"MQT at {size}": ours[size][_COARSE] for size in few}
    figures |= {f"cut to {size}": theirs[size][_COARSE] for size in few}
    return min(ours[size][_COARSE] - theirs[size][_COARSE] for size in few) - _OVER_CUT, figures


@CHECKS.claim(
    "MQT-4", "Untrained numbers lie on the curve, which rises by 10 points on the fine question", _ON
)
def any_number_works(study: Study, seed: int) -> Run:
    """Distance from the line between trained neighbours; the rise from one token to all."""
    means, kinds = study.means(mqt(), seed), study.accuracies(mqt(), seed)
    off = {m: abs(means[m] - (means[m - 1] + means[m + 1]) / 2) for m in _UNTRAINED}
    figures = {f"{m} tokens, off the line": each for m, each in off.items()}
    figures |= {f"{kind} at {size}": kinds[size][kind] for kind in KINDS for size in TESTED}
    plain = study.accuracies(published(), seed)
    figures |= {f"{kind} at {size}, as published": plain[size][kind] for kind in KINDS for size in LEVELS}
    rise = kinds[_MOST][_FINE] - kinds[LEVELS[0]][_FINE]
    return min(_OFF_LINE - max(off.values()), rise - _RISE), figures


@CHECKS.claim("MQT-5", "The first 5 tokens are 5 points better than the last 5 or 5 at random", _ON)
def order_carries_information(study: Study, seed: int) -> Run:
    """All kinds of question; also of the model that was trained at the largest number alone."""
    figures: dict[str, float] = {}
    for method in (mqt(), alone(_MOST)):
        found = study.figures(method, seed)["chosen"]
        figures |= {f"{name}, {method.name}": value for name, value in found.items()}
    best = max(figures["last, MQT"], figures["random, MQT"])
    return figures["first, MQT"] - best - _ORDER, figures


@CHECKS.claim("MQT-6", "With keys of places alone, attention is the same for every picture", _ON)
def released_keys_are_static(study: Study, seed: int) -> Run:
    """Largest relative difference to frozen attention; and what keys with content differ from it."""
    found, figures = _features(study), {}
    static = _resampler(seed, keys="pos")
    frozen = static.freeze_attention()
    moving = _resampler(seed, keys="content+pos", start="random")
    with torch.no_grad():
        expected = frozen(found).values
        for name, made in (("places", static), ("content and places", moving)):
            figures[f"keys of {name}"] = float((made(found).values - expected).norm() / expected.norm())
    is_static = figures["keys of places"] <= _FROZEN_OFF < figures["keys of content and places"]
    return _FROZEN_OFF - figures["keys of places"] if is_static else -1.0, figures


@CHECKS.claim("MQT-7", "The language model reads m tokens, and its multiply-adds grow as published", _ON)
def cost_is_as_published(study: Study, seed: int) -> Run:
    """GFLOPs of one more token of Vicuna 7B, against the slope of the paper's plot."""
    model = study.untrained(mqt(), seed)
    exact = all(model.streams.count(model.nesting.resolve(m)) == m for m in TRAINED)
    config = require("transformers", "lora").LlamaConfig(vocab_size=32_000)  # otherwise that of Llama 7B
    slope = (prefill_flops(config, 286) - prefill_flops(config, 38)) / 248
    figures = {"GFLOPs of a token": slope / 1e9, "read off the plot": _SLOPE / 1e9}
    return _SLOPE_OFF - abs(slope / _SLOPE - 1) if exact else -1.0, figures


CLAIMS = tuple(dict.fromkeys(check.id for check in CHECKS))


def _resampler(seed: int, **settings: Any) -> QueryResampler:
    """An untrained resampler."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        made: Any = queries(own_region=False, **settings).parts[0]
    return made.eval()  # type: ignore[no-any-return]


def _features(study: Study) -> torch.Tensor:
    """Features of a few mosaics."""
    batch = study.questions("development").batch(slice(8), answered=False)
    return study.untrained(mqt(), 0).encode(batch)["image"].values  # type: ignore[union-attr]


def run(tour: Tour) -> tuple[list[Claim], dict[str, object]]:
    """Measure the wanted claims; also the learning rates that were picked."""
    path = None if tour.folder is None else tour.folder / "mqt.interrupted.json"
    notes = ResumableValues(path, {"tour": "mqt", "quick": tour.quick, **versions()})
    study = Study(tour, notes, {True: mqt(), False: alone(_MOST)})
    measured = measure_checks(tour.checks(CHECKS), {"mosaics": study}, tour.seeds)
    notes.remove()
    return measured, {"learning rates": study.rates.chosen, "steps": study.steps}
