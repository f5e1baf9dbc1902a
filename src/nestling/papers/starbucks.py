"""Starbucks (Zhuang et al. 2024, arXiv 2410.13230), and its claims.

2DMSE trains random layers and sizes. Starbucks trains a short list of fixed pairs, small to large, all of
them in every step, and so each gets as good as a model trained for it alone (:func:`starbucks`). Before that,
masked auto-encoding at every pair teaches the small ones to sum up a text (:func:`_pretrain`). The paper uses
BERT on NLI, MS MARCO and 100 billion tokens; here a 6-layer encoder learns from the STS benchmark.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nestling.data.masking import MaskedTexts
from nestling.data.pairs import TextPairs
from nestling.data.sets.docstrings import docstring_pairs
from nestling.data.sets.retrieval_sets import cranfield, xquad
from nestling.data.sets.sts import stsb
from nestling.domains.text.pretraining import pretrain
from nestling.domains.text.retrieval import PairRows
from nestling.encoders.text.encoder import TextEncoder
from nestling.encoders.views import ViewsOf
from nestling.granularity import Granularity, Nesting
from nestling.losses import AlignScores, InfoNCE
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import Retrieval
from nestling.nn.masked_autoencoder import MaskedAutoEncoder
from nestling.papers.claims.checks import Checks, Run, Tour
from nestling.papers.claims.layer_retrieval import ByLayer, find, least_lift, mean_lift
from nestling.papers.claims.layer_study import (
    DIMS,
    GRID,
    PAIRS,
    UNTOUCHED,
    Cells,
    Method,
    Study,
    find_untouched,
    minilm,
    run_checks,
)
from nestling.papers.claims.rate_search import RateSearch
from nestling.papers.claims.report import Claim
from nestling.papers.two_d_mse import mrl, nested, plain, train, two_d_mse
from nestling.process.blocks import blocks
from nestling.storage.resumable import ResumableValues
from nestling.training import TrainConfig, fit

TITLE = "Starbucks: improved training for 2D Matryoshka embeddings (arXiv 2410.13230), claims at small scale"

CHECKS: Checks[Any] = Checks()
_ON = ("sts",)
_OVER_RANDOM = 3.0  # 3.4 points in the paper
_UNDER_SEPARATE, _UNDER_AT_ONE = 1.0, 2.0
_COLLAPSE = 10.0
_FULL_LOSS = 1.0  # the paper loses 1
_HELD_OUT, _MASKED_STEPS, _MASKED_BATCH, _MASKED_LENGTH = 200, 300, 8, 64
_SHORT = 100  # steps of the fine-tuning after it
_SCALE = 20.0  # of sentence-transformers' CoSENT
_TEMPERATURE, _SEARCH_BATCH, _SEARCH_STEPS = 0.05, 32, 128  # of training to search
_READ, _DEVELOPED = 40_000, 500  # docstrings, and pairs of them that pick the rate


def starbucks() -> Method:
    """Fixed pairs, all in every step, their scores aligned with those of the full size."""
    return nested("Starbucks", PAIRS, align=AlignScores())


def unaligned() -> Method:
    """Starbucks without the term that aligns."""
    return nested("Starbucks without alignment", PAIRS)


def starbucks_for_full() -> Method:
    """Starbucks with three times the weight on the full size, at a rate that loses it at most a point.

    Of the weights 1, 3, 6 and 10 the largest that cost the mean over the pairs nothing on the development
    pairs.
    """
    weights = {cell: 3.0 if cell == GRID.full else 1.0 for cell in PAIRS}
    method = nested("Starbucks for the full size", PAIRS, align=AlignScores(), weights=weights)
    return replace(method, full_loss=1.0)


def separate(cell: Granularity) -> Method:
    """A model of so many layers, trained for so many dims."""
    if cell == GRID.full:
        return plain()
    return nested(f"separate {cell}", Nesting.chain(dim=[cell["dim"]]), depth=cell["layer"])


def whole_grid() -> Method:
    """Every layer with every dim in every step."""
    return nested("grid", GRID, align=AlignScores())


def stock_two_d() -> Method:
    """Matryoshka2dLoss of sentence-transformers, with its own settings of today."""

    def objective(model: TextEncoder) -> nn.Module:
        from sentence_transformers.sentence_transformer import losses

        base = losses.CoSENTLoss(model.model, scale=_SCALE)
        dims = list(reversed(DIMS))
        return StockPairwise(model.model, losses.Matryoshka2dLoss(model.model, base, dims))

    return Method("sentence-transformers Matryoshka2dLoss", objective, tuple(PAIRS))


class StockPairwise(nn.Module):
    """A loss of sentence-transformers on the same pairs."""

    def __init__(self, model: Any, loss: nn.Module) -> None:
        super().__init__()
        self.preprocess, self.loss = model.preprocess, loss

    def forward(self, model: Any, batch: Sequence[tuple[str, str, float]]) -> Tensor:
        """Loss of a batch of (first, second, score)."""
        first, second, scores = map(list, zip(*batch, strict=True))
        found: Tensor = self.loss([self.preprocess(first), self.preprocess(second)], torch.tensor(scores))
        return found


for_search = partial(nested, base=partial(InfoNCE, _TEMPERATURE), values="ids")


def plain_for_search() -> Method:
    """Trained to search at full size alone, and cut afterwards."""
    return for_search("plain for search", Nesting.chain(dim=DIMS[-1:]))


def starbucks_for_search() -> Method:
    """Trained to search at the fixed pairs, their scores aligned with those of the full size."""
    return for_search("Starbucks for search", PAIRS, align=AlignScores(1.0, _TEMPERATURE))


class SearchStudy:
    """Retrieval by every method at every layer, after training on docstrings; each is trained once.

    The methods see the same pairs of names and descriptions of Python packages, with the other descriptions
    of a batch as negatives. Each picks its learning rate by held-out pairs, the mean over the cells that it
    trains. XQuAD and Cranfield, whose texts are of other kinds, are measured once.

    Args:
        tour: number of seeds, and whether few pairs and steps are enough.
        notes: keep what was measured.
    """

    name = "Python docstrings, all-MiniLM-L6-v2"

    def __init__(self, tour: Tour, notes: ResumableValues) -> None:
        self.quick, self.notes = tour.quick, notes
        self.tuned = RateSearch(
            notes, self._train, self._develop, self._look, lambda _, found: found["mean"], quick=tour.quick
        )

    def retrieval(self, seed: int) -> dict[str, dict[str, ByLayer]]:
        """By method, and of the untouched encoder, on XQuAD and Cranfield."""
        each = {
            method.name: self.tuned.figures(method, seed)
            for method in (starbucks_for_search(), plain_for_search())
        }
        return {**each, UNTOUCHED: find_untouched(self.notes, quick=self.quick)}

    @cached_property
    def _pairs(self) -> tuple[TextPairs, ...]:
        return docstring_pairs(limit=400 if self.quick else _READ).split()

    def _train(self, method: Method, rate: float, seed: int) -> TextEncoder:
        model = copy.deepcopy(minilm())
        config = TrainConfig(
            max_steps=2 if self.quick else _SEARCH_STEPS,
            batch_size=_SEARCH_BATCH,
            lr=rate,
            schedule="linear",
            weight_decay=0.01,
            seed=seed,
        )
        fit(ViewsOf(model), method.objective(model), PairRows(self._pairs[0]), config, collate=list)
        return model.eval()

    def _develop(self, method: Method, model: TextEncoder) -> dict[str, float]:
        """nDCG@10 among held-out pairs, the mean over the cells of ``method``."""
        task = Retrieval.from_pairs(self._pairs[1].head(_DEVELOPED))
        curve = sweep(model, task, Nesting(method.cells), truncation=False)
        return {"mean": 100 * float(np.mean([row.value for row in curve.column()]))}

    def _look(self, _: Method, model: TextEncoder) -> dict[str, ByLayer]:
        return find(model, quick=self.quick)


@CHECKS.claim("S1", "Fixed pairs, all in every step, beat random layers and sizes by 3 points", _ON)
def beats_random(study: Study, seed: int) -> Run:
    """Mean over the six pairs against sentence-transformers' Matryoshka2dLoss, and 2DMSE as published.

    Beside them the whole grid in every step.
    """
    methods = (starbucks(), stock_two_d(), two_d_mse(), whole_grid())
    cells = [study.cells(m, seed) for m in methods]
    return _over_random(*cells[:2]), {m.name: _diagonal(each) for m, each in zip(methods, cells, strict=True)}


@CHECKS.claim("S2", "On par with models trained for each pair alone: mean within 1 point, each within 2", _ON)
def matches_separate(study: Study, seed: int) -> Run:
    """Every pair against a model of so many layers, trained for so many dims."""
    found = study.cells(starbucks(), seed)
    alone = {cell: study.cells(separate(cell), seed)[cell] for cell in PAIRS}
    gaps = {cell: found[cell] - alone[cell] for cell in PAIRS}
    clearance = min(float(np.mean(list(gaps.values()))) + _UNDER_SEPARATE, min(gaps.values()) + _UNDER_AT_ONE)
    figures = {f"Starbucks at {cell}": found[cell] for cell in PAIRS}
    return clearance, {**figures, **{f"gap at {cell}": gap for cell, gap in gaps.items()}}


@CHECKS.claim("S3", "Plain and MRL training collapse at layers 1 to 4: 10 points below the pairs", _ON)
def others_collapse(study: Study, seed: int) -> Run:
    """The better of plain and MRL at the pairs of the first four layers."""
    found, others = study.cells(starbucks(), seed), [study.cells(m, seed) for m in (plain(), mrl())]
    gaps = {cell: found[cell] - max(each[cell] for each in others) for cell in PAIRS[:4]}
    return min(gaps.values()) - _COLLAPSE, {f"gap at {cell}": gap for cell, gap in gaps.items()}


@CHECKS.claim("S4", "The full size loses at most 1 point against plain fine-tuning", _ON)
def keeps_the_full_size(study: Study, seed: int) -> Run:
    """The full cell."""
    figures = {m.name: study.cells(m, seed)[GRID.full] for m in (starbucks(), plain(), mrl())}
    return figures["Starbucks"] - figures["plain"] + _FULL_LOSS, figures


@CHECKS.claim(
    "S4b", "With three times the weight on it the full size loses at most 1 point, and S1 holds", _ON
)
def keeps_the_full_size_if_weighted(study: Study, seed: int) -> Run:
    """The full cell; and the mean over the six pairs against Matryoshka2dLoss."""
    weighted, others = starbucks_for_full(), (starbucks(), plain(), stock_two_d())
    cells = {m.name: study.cells(m, seed) for m in (weighted, *others)}
    full = {f"{name}, full": each[GRID.full] for name, each in cells.items()}
    pairs = {f"{name}, pairs": _diagonal(each) for name, each in cells.items()}
    kept = full[f"{weighted.name}, full"] - full["plain, full"] + _FULL_LOSS
    ahead = _over_random(cells[weighted.name], cells[stock_two_d().name])
    return min(kept, ahead), {**full, **pairs}


@CHECKS.claim("S5", "Aligning the scores with those of the full size helps the pairs below it", _ON)
def alignment_helps(study: Study, seed: int) -> Run:
    """Mean over the pairs below the full one, with and without."""
    figures = {m.name: _diagonal(study.cells(m, seed), PAIRS[:-1]) for m in (starbucks(), unaligned())}
    return figures["Starbucks"] - figures["Starbucks without alignment"], figures


@CHECKS.claim("S6", "Off the list of pairs, cells are no better than with random layers and sizes", _ON)
def cells_off_the_list(study: Study, seed: int) -> Run:
    """Mean over the 30 cells that are no pair; and of training the whole grid."""
    off = [cell for cell in GRID if cell not in PAIRS]
    figures = {m.name: _diagonal(study.cells(m, seed), off) for m in (starbucks(), two_d_mse(), whole_grid())}
    figures["grid, on the pairs"] = _diagonal(study.cells(whole_grid(), seed))
    return figures["2DMSE"] - figures["Starbucks"], figures


_SEARCHED = (starbucks(), two_d_mse(), plain())


@CHECKS.claim("S7", "In retrieval too the pairs are lifted over the plain encoder", _ON)
def lifts_retrieval(study: Study, seed: int) -> Run:
    """MRR@10 on XQuAD and nDCG@10 on Cranfield by layer at all dims, after learning from STS alone."""
    return mean_lift(study.retrieval(_SEARCHED, seed), starbucks().name, plain().name)


@CHECKS.claim(
    "S7b",
    "Trained to search, it finds more at every layer below the last than untrained or plain",
    ("search",),
)
def finds_more_if_trained_to_search(study: SearchStudy, seed: int) -> Run:
    """The same, after learning from docstrings; the least gain over the better of the others."""
    return least_lift(study.retrieval(seed), starbucks_for_search().name)


@CHECKS.claim("S8", "Masked auto-encoding lowers both of its losses at every pair", _ON)
def pretraining_lowers_losses(study: Study, seed: int) -> Run:
    """Losses on held-out texts before and after some hundred steps on XQuAD, Cranfield and STS texts."""
    falls = {name: fall for name, fall in _pretrained(study, seed).items() if "fell" in name}
    return min(falls.values()), falls


@CHECKS.claim("S9", "A short fine-tuning after masked auto-encoding is not worse than one without", _ON)
def pretraining_helps(study: Study, seed: int) -> Run:
    """Mean over the pairs after 100 steps, from the encoder of S8 and from the untouched one."""
    figures = {name: value for name, value in _pretrained(study, seed).items() if "fell" not in name}
    return figures["after auto-encoding"] - figures["without"], figures


NOT_TESTED = {
    "S10": "MS MARCO, TREC DL and BEIR after pre-training on 100 billion tokens: need 8 GPUs for days",
}
CLAIMS = (*dict.fromkeys(check.id for check in CHECKS), *NOT_TESTED)


def _diagonal(cells: Cells, wanted: Sequence[Granularity] = tuple(PAIRS)) -> float:
    return float(np.mean([cells[cell] for cell in wanted]))


def _over_random(found: Cells, drawn: Cells) -> float:
    """The lead of the mean over the pairs, beyond the margin of S1."""
    return _diagonal(found) - _diagonal(drawn) - _OVER_RANDOM


def _pretrained(study: Study, seed: int) -> dict[str, float]:
    """The decrease of each loss in masked auto-encoding, and the quality after a short fine-tuning."""

    def measure() -> dict[str, float]:
        encoder, falls = _pretrain(study.quick, seed)
        for name, start in (("after auto-encoding", encoder), ("without", minilm())):
            falls[name] = _diagonal(study.cells_after(start, starbucks(), seed, _SHORT))
        return falls

    return study.notes.once(f"masked auto-encoding, seed {seed}", measure)


def _pretrain(quick: bool, seed: int) -> tuple[TextEncoder, dict[str, float]]:
    texts = sorted({*xquad().documents.values(), *cranfield().documents.values(), *stsb("train").first})
    order = np.random.default_rng([8, seed]).permutation(len(texts))
    held_out = [texts[row] for row in order[: 16 if quick else _HELD_OUT]]
    learned = [texts[row] for row in order[_HELD_OUT:]]
    encoder = copy.deepcopy(TextEncoder.open("minilm", PAIRS))
    start = MaskedAutoEncoder(copy.deepcopy(encoder.model[0].auto_model), PAIRS)
    before = _masked_losses(start, encoder, held_out)
    steps = 2 if quick else _MASKED_STEPS
    config = TrainConfig(max_steps=steps, batch_size=_MASKED_BATCH, lr=1e-4, seed=seed)
    after = _masked_losses(pretrain(encoder, learned, config, max_length=_MASKED_LENGTH), encoder, held_out)
    falls = {f"{name}: fell by": before[name] - after[name] for name in before}
    return TextEncoder(encoder.model, GRID, encoder.rule), falls


@torch.no_grad()
def _masked_losses(model: MaskedAutoEncoder, encoder: TextEncoder, texts: Sequence[str]) -> dict[str, float]:
    """Mean losses over batches of held-out texts, with masks that do not change."""
    masks = MaskedTexts(encoder.model[0].tokenizer, max_length=_MASKED_LENGTH)
    generator = np.random.default_rng(0)
    sums: dict[str, list[float]] = {}
    model.eval()
    for rows in blocks(len(texts), _MASKED_BATCH):
        batch = masks.batch(texts[rows], generator)
        found = model(**{name: torch.from_numpy(values) for name, values in batch.items()})
        for cell, both in found.items():
            for name, loss in zip(("masked", "decoded"), both, strict=True):
                sums.setdefault(f"{name} at {cell}", []).append(float(loss))
    return {name: float(np.mean(values)) for name, values in sums.items()}


def run(tour: Tour) -> tuple[list[Claim], dict[str, object]]:
    """Measure what is asked; also the learning rates that were picked."""

    def studies_of(notes: ResumableValues, searched: Collection[str]) -> dict[str, Study | SearchStudy]:
        sts = Study(tour, notes, train, plain(), searched)
        return {"sts": sts, "search": SearchStudy(tour, notes)}

    return run_checks("starbucks", CHECKS, NOT_TESTED, tour, {"S7": _SEARCHED}, studies_of)
