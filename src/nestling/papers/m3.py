"""M3, Matryoshka Multimodal Models (Cai, Yang, Gao and Lee 2024, arXiv 2405.17430), and its claims.

A language model reads the tokens of a picture before a question. The tokens are means of windows of one grid,
so that 1, 9, 36, 144 or 576 of them are nested in one another, and the model is trained at every number in
every step. The baselines are one model for each number, and a model of the full number whose tokens are
pooled at test time. The paper fine-tunes LLaVA on its mix of instructions. Here a small Llama learns from
scratch to answer questions about mosaics of garments in minutes on a CPU; a frozen network encodes each cell.
So the claims compare methods, and say nothing of real benchmarks.

The margins are those of the specification, which were set on two other seeds with another grammar of
questions.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from nestling.domains.prefix import prefill_flops
from nestling.errors import require
from nestling.measure.machine import versions
from nestling.measure.oracle import oracle
from nestling.papers.claims.checks import Checks, Run, Tour, measure_checks
from nestling.papers.claims.mosaic_study import SIZES, Method, Study, pooled
from nestling.papers.claims.report import Claim
from nestling.papers.problems.mosaics import KINDS
from nestling.schedules import RandomPrefix
from nestling.storage.resumable import ResumableValues

TITLE = "M3: Matryoshka Multimodal Models (arXiv 2405.17430), claims at small scale"

CHECKS: Checks[Study] = Checks()
_ON = ("mosaics",)
_FINE, _COARSE = KINDS[0], KINDS[-1]
_FULL = SIZES[-1]
_BELOW = SIZES[:-1]
_LOSS = 4.0
_OVER_POOLING = 10.0
_COARSE_LOSS, _FINE_LOSS = 5.0, 40.0
_ORACLE_GAP = 5.0
_FLOPS_OFF, _GRADIENT_OFF = 0.05, 1e-6
_TABLE = {576: 8.0, 144: 2.2, 36: 0.9, 9: 0.5, 1: 0.4}
"""TFLOPs by tokens of a picture, with 30 tokens of text."""
_TEXT_TOKENS = 30


def m3() -> Method:
    """Every number of tokens in every step."""
    return Method("M3")


def alone(size: int) -> Method:
    """One number of tokens alone."""
    return Method(f"alone at {size}", trained=(size,))


def one_random(times: int = 1) -> Method:
    """One number a step, drawn at random."""
    more = "" if times == 1 else f", {times} times the steps"
    return Method(f"one random{more}", schedule=RandomPrefix(), times=times)


def selected(mode: Literal["spatial", "sequential"]) -> Method:
    """As M3, with a selection of the tokens in the place of means."""
    return Method(f"M3, {mode}", connector=partial(pooled, mode))


@CHECKS.claim("M3-1", "One model is within 4 points of the models trained for each number of tokens", _ON)
def as_good_as_separate(study: Study, seed: int) -> Run:
    """Mean over the kinds of question, at each number."""
    ours = study.means(m3(), seed)
    figures: dict[str, float] = {}
    theirs = {size: study.means(alone(size), seed)[size] for size in SIZES}
    for size in SIZES:
        figures |= {f"M3 at {size}": ours[size], f"alone at {size}": theirs[size]}
    for kind in KINDS:
        for size in SIZES:
            gap = study.accuracies(m3(), seed)[size][kind] - study.accuracies(alone(size), seed)[size][kind]
            figures[f"gap of {kind} at {size}"] = gap
    figures |= _seconds(study, seed, m3(), *(alone(size) for size in SIZES))
    return _LOSS - max(theirs[size] - ours[size] for size in SIZES), figures


@CHECKS.claim("M3-2", "On the coarse question it beats pooling at test time by 10 points", _ON)
def beats_pooling_at_test_time(study: Study, seed: int) -> Run:
    """The coarse question, with fewer tokens than the other model was trained for."""
    ours, theirs = study.accuracies(m3(), seed), study.accuracies(alone(_FULL), seed)
    figures = {f"M3 at {size}": ours[size][_COARSE] for size in SIZES}
    figures |= {f"pooled at test time to {size}": theirs[size][_COARSE] for size in _BELOW}
    figures |= {f"all kinds, pooled to {size}": study.means(alone(_FULL), seed)[size] for size in _BELOW}
    return min(ours[n][_COARSE] - theirs[n][_COARSE] for n in _BELOW) - _OVER_POOLING, figures


@CHECKS.claim(
    "M3-3", "Questions differ in need: 1 token costs a coarse one at most 5 points, a fine one 40", _ON
)
def questions_differ(study: Study, seed: int) -> Run:
    """Points lost from the full number to one token."""
    found = study.accuracies(m3(), seed)
    figures = {f"{kind} at {size}": found[size][kind] for kind in KINDS for size in SIZES}
    lost = {kind: found[_FULL][kind] - found[SIZES[0]][kind] for kind in KINDS}
    return min(_COARSE_LOSS - lost[_COARSE], lost[_FINE] - _FINE_LOSS), figures


@CHECKS.claim("M3-4", "Every number in each step is no worse than one at random, for as many steps", _ON)
def every_beats_one_random(study: Study, seed: int) -> Run:
    """Mean over numbers and kinds; also with three times the steps, which take about as long."""
    methods = (m3(), one_random(), one_random(3))
    figures = {each.name: float(np.mean(list(study.means(each, seed).values()))) for each in methods}
    clearance = figures[m3().name] - figures[one_random().name]
    return clearance, figures | _seconds(study, seed, *methods)


@CHECKS.claim("M3-5", "Means of windows beat a selection of tokens, spatial or sequential", _ON)
def means_beat_selection(study: Study, seed: int) -> Run:
    """The coarse question with fewer tokens than all."""
    ours, clearance = study.accuracies(m3(), seed), np.inf
    figures: dict[str, float] = {}
    for mode in ("spatial", "sequential"):
        theirs = study.accuracies(selected(mode), seed)
        for size in _BELOW:
            figures |= {f"mean at {size}": ours[size][_COARSE], f"{mode} at {size}": theirs[size][_COARSE]}
            clearance = min(clearance, ours[size][_COARSE] - theirs[size][_COARSE])
    return float(clearance), figures


@CHECKS.claim("M3-6", "An oracle of sizes gains 5 points over the best one, and more than by luck", _ON)
def oracle_gains(study: Study, seed: int) -> Run:
    """The gap of M3, by luck, of a model pooled at test time, and of models of other seeds; the cascade.

    By luck: where the best size is wrong, the others' answers to other questions of the kind.
    """
    found = study.figures(m3(), seed)
    others = {number: study.figures(m3(), number)["answers"] for number in range(study.seeds)}
    questions = study.questions("test")
    seeds = oracle(others, questions.answers, groups=questions.kinds)
    ours, theirs = found["oracle"], study.figures(alone(_FULL), seed)["oracle"]
    figures = {
        "oracle": ours["accuracy"],
        "tokens of the oracle": ours["tokens"],
        "gap": ours["gap"],
        "gap by luck": ours["gap by luck"],
        "gap of the model pooled at test time": theirs["gap"],
        f"gap of {len(others)} seeds at {_FULL} tokens": 100 * seeds.gap,
        **{f"cascade, {name}": value for name, value in found["cascade"].items()},
    }
    return min(ours["gap"] - _ORACLE_GAP, ours["gap"] - ours["gap by luck"]), figures


@CHECKS.claim("M3-7", "Prefill FLOPs of LLaVA-1.5-7B are within 5 % of those published", _ON)
def flops_are_those_published(study: Study, seed: int) -> Run:
    """TFLOPs by tokens of a picture."""
    config = require("transformers", "lora").LlamaConfig(vocab_size=32_000)  # otherwise that of Llama 7B
    found = {size: prefill_flops(config, size + _TEXT_TOKENS) / 1e12 for size in _TABLE}
    off = max(abs(found[size] / published - 1) for size, published in _TABLE.items())
    return _FLOPS_OFF - off, {f"TFLOPs at {size}": value for size, value in found.items()}


@CHECKS.claim("M3-8", "Encoding once and one backward pass a number give the gradients of the sum", _ON)
def one_encoding_is_exact(study: Study, seed: int) -> Run:
    """Largest relative error of a gradient in float64; and the number of encodings."""
    lean, plain = (_differentiable(study, seed) for _ in range(2))
    batch = study.questions("train", seed).batch(slice(16), answered=True)
    calls: list[Any] = []
    lean.streams.encoder("image").register_forward_hook(lambda *_: calls.append(None))
    for part in lean.objective().train()(lean, batch):
        part.total.backward()
    torch.stack([plain.loss(batch, size) for size in SIZES]).sum().backward()  # type: ignore[no-untyped-call]
    worst = 0.0
    for ours, theirs in zip(lean.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        worst = max(worst, float((ours.grad - theirs.grad).norm() / theirs.grad.norm()))
    figures = {"largest relative error": worst, "encodings": float(len(calls))}
    return _GRADIENT_OFF - worst if len(calls) == 1 else -1.0, figures


NOT_TESTED = {
    "M3-9": "The figures of LLaVA on its benchmarks, of tiles and of video: need 7B weights and GPUs",
}
CLAIMS = (*dict.fromkeys(check.id for check in CHECKS), *NOT_TESTED)


def _seconds(study: Study, seed: int, *methods: Method) -> dict[str, float]:
    return {f"CPU s, {each.name}": study.figures(each, seed)["seconds"] for each in methods}


def _differentiable(study: Study, seed: int) -> Any:
    """An untrained model in float64, whose encoder is trained too."""
    model = study.untrained(m3(), seed).double()
    features = model.streams.encoder("image")
    encode = features.encoder
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        head = torch.nn.Linear(model.streams.connector("image").width, model.streams.connector("image").width)
    features.encoder = _Trained(encode, head.double())
    return model


class _Trained(torch.nn.Module):
    """The encoder of cells with a trained map behind it."""

    def __init__(self, encode: Any, head: torch.nn.Module) -> None:
        super().__init__()
        self.encode, self.head = encode, head

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.encode(cells).double())
        return found


def run(tour: Tour) -> tuple[list[Claim], dict[str, object]]:
    """Measure the wanted claims; also the learning rates that were picked."""
    path = None if tour.folder is None else tour.folder / "m3.interrupted.json"
    notes = ResumableValues(path, {"tour": "m3", "quick": tour.quick, **versions()})
    study = Study(tour, notes, {True: m3(), False: alone(_FULL)})
    measured = measure_checks(tour.checks(CHECKS), {"mosaics": study}, tour.seeds)
    notes.remove()
    settings = {"learning rates": study.rates.chosen, "steps": study.steps}
    return [*measured, *tour.untested(NOT_TESTED)], settings
