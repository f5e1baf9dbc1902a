"""The text encoders that the claims of 2DMSE and Starbucks compare, all trained with the same effort.

All start from all-MiniLM-L6-v2 (6 layers, 384 dims), and learn from the scored pairs of the STS benchmark
with CoSENT. Each method picks its learning rate on the development pairs, by the mean over the cells of
the diagonal that it trains, with a seed of its own; the test pairs are looked at once, at the end.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nestling.cut import RAW, cut
from nestling.data.retrieval_sets import cranfield, xquad
from nestling.data.sts import ScoredPairs, stsb
from nestling.encoders.text import TextEncoder
from nestling.granularity import Granularity, Nesting
from nestling.losses import AlignScores, AlignVectors, Compress, CoSENT, Nested
from nestling.measure.metrics import spearman
from nestling.measure.sweep import sweep
from nestling.measure.tasks import Retrieval
from nestling.papers.checks import Check, Run, measure_checks
from nestling.papers.report import Claim
from nestling.schedules import Cross, Every, Schedule
from nestling.search.prefix import prefix_pair_scores
from nestling.training import TrainConfig, fit

LAYERS, DIMS = (1, 2, 3, 4, 5, 6), (32, 64, 128, 192, 256, 384)
PAIRS = Nesting.pairs(layer=LAYERS, dim=DIMS)
GRID = Nesting.grid(layer=LAYERS, dim=DIMS)
Cells = dict[Granularity, float]

_EVERY = Every()
_SEARCH_SEED = 1_000
_RATES = (5e-5, 1e-4, 2e-4)
_SCALE = 20.0
COMPRESSED = 32  # the components of a batch of 64 vectors


@dataclass(frozen=True)
class Method:
    """One way to train.

    Args:
        name: as the report has it.
        objective: from the model, what a batch of (first, second, score) loses.
        cells: that it trains, by whose mean its learning rate is picked.
        depth: layers of the model that is trained; the others are left out before.
    """

    name: str
    objective: Callable[[TextEncoder], nn.Module]
    cells: tuple[Granularity, ...]
    depth: int = LAYERS[-1]


class Pairwise(nn.Module):
    """A nested loss on scored pairs, from one pass of the encoder over both columns."""

    def __init__(self, loss: Nested) -> None:
        super().__init__()
        self.loss = loss
        layered = "layer" in loss.nesting.axes
        self.layers = {"layers": loss.nesting.sizes("layer")} if layered else {}

    def forward(self, model: Callable[..., Tensor], batch: Sequence[tuple[str, str, float]]) -> Any:
        """Loss of a batch of (first, second, score)."""
        first, second, scores = map(list, zip(*batch, strict=True))
        vectors = cut(model([*first, *second], **self.layers), self.loss.nesting.full["dim"], RAW)
        half = len(first)
        return self.loss.parts(vectors[:half], vectors[half:], scores=torch.tensor(scores))


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


def ours(
    name: str,
    nesting: Nesting,
    *,
    align: Any = None,
    schedule: Schedule = _EVERY,
    weights: Mapping[Any, float] | None = None,
    depth: int = LAYERS[-1],
) -> Method:
    """A method that is a nested loss; the diagonal cells of its nesting pick the rate."""

    def objective(model: TextEncoder) -> nn.Module:
        loss = CoSENT(_SCALE)
        return Pairwise(
            Nested(loss, nesting, align=align, schedule=schedule, weights=weights, reduction="mean")
        )

    full = nesting.full if "layer" in nesting.axes else nesting.full.replace(layer=depth)
    members = {g if "layer" in g else g.replace(layer=depth) for g in nesting}
    cells = tuple(g for g in PAIRS if g in members) or (full,)
    return Method(name, objective, cells, depth)


def plain() -> Method:
    """Fine-tuned at full size alone, and cut afterwards."""
    return ours("plain", Nesting.chain(dim=DIMS[-1:]))


def separate(cell: Granularity) -> Method:
    """A model of so many layers, trained for so many dims."""
    return ours(f"separate {cell}", Nesting.chain(dim=[cell["dim"]]), depth=cell["layer"])


def mrl() -> Method:
    """Nested in dims at the last layer."""
    return ours("MRL", Nesting.chain(dim=DIMS))


def starbucks(weight: float = 1.0) -> Method:
    """Fixed pairs, all in every step, their scores aligned with those of the full size."""
    align = AlignScores(weight, 1 / _SCALE) if weight else None
    return ours("Starbucks" if weight else "Starbucks without alignment", PAIRS, align=align)


def whole_grid() -> Method:
    """Every layer with every dim in every step."""
    return ours("grid", GRID, align=AlignScores(1.0, 1 / _SCALE))


def two_d_mse() -> Method:
    """2DMSE as published: four cells a step, the vectors of the two layers aligned at full dims."""
    align = AlignVectors(1.0, 1.0, whole=True, detach=False)
    return ours("2DMSE", GRID, align=align, schedule=Cross())


def espresso(form: str | None = "pca") -> Method:
    """ESE: every layer in every step at one size, whose entries are drawn to the main components."""
    cells = [Granularity(layer=layer, dim=COMPRESSED) for layer in LAYERS]
    nesting = Nesting((*cells, GRID.full))
    below = len(LAYERS) - 1
    weights: dict[Any, float] = {
        cell: 1 / (1 + np.log1p(place)) / below for place, cell in enumerate(cells[:-1])
    }
    align = None if form is None else Compress(COMPRESSED, form=form)
    name = "ESE without compression" if form is None else "ESE" if form == "pca" else "ESE, published form"
    return replace(ours(name, nesting, align=align, weights=weights), cells=(*cells, GRID.full))


def stock_two_d() -> Method:
    """Matryoshka2dLoss of sentence-transformers, with its own settings of today."""

    def objective(model: TextEncoder) -> nn.Module:
        from sentence_transformers.sentence_transformer import losses

        base = losses.CoSENTLoss(model.model, scale=_SCALE)
        dims = list(reversed(DIMS))
        return StockPairwise(model.model, losses.Matryoshka2dLoss(model.model, base, dims))

    return Method("sentence-transformers Matryoshka2dLoss", objective, tuple(PAIRS))


class Study:
    """Every model that was asked for; each is trained once, when first needed.

    Args:
        quick: few pairs and steps.
    """

    name = "STS-B, all-MiniLM-L6-v2"

    def __init__(self, quick: bool) -> None:
        steps = 2 if quick else None
        self.quick = quick
        self.config = TrainConfig(
            max_steps=steps, batch_size=32, schedule="linear", weight_decay=0.01, max_grad_norm=1.0
        )
        self._models: dict[tuple[str, int], TextEncoder] = {}
        self._cells: dict[tuple[str, int, str], Cells] = {}
        self.rates: dict[str, float] = {}

    @property
    def untouched(self) -> TextEncoder:
        """The encoder that all start from."""
        return _start(LAYERS[-1])

    def model(self, method: Method, seed: int) -> TextEncoder:
        """The model of one method and seed."""
        key = (method.name, seed)
        if key not in self._models:
            self._models[key] = self._train(method, replace(self.config, lr=self.rate(method), seed=seed))
        return self._models[key]

    def trained_from(self, start: TextEncoder, method: Method, seed: int, steps: int) -> Cells:
        """The test cells of a model that starts elsewhere and learns for some steps; ``start`` stays."""
        config = replace(self.config, lr=self.rate(method), seed=seed, max_steps=2 if self.quick else steps)
        return self._measure(self._train(method, config, start), "test")

    def cells(self, method: Method | None, seed: int, split: str = "test") -> Cells:
        """Spearman x 100 at every layer and dim; None is the untouched encoder."""
        key = ("untouched" if method is None else method.name, seed, split)
        if key not in self._cells:
            model = self.untouched if method is None else self.model(method, seed)
            self._cells[key] = self._measure(model, split)
        return self._cells[key]

    def rate(self, method: Method) -> float:
        """The rate with which ``method`` does best on the development pairs, with a seed of its own."""
        if self.quick:
            return _RATES[1]
        if method.name not in self.rates:
            found = {}
            for rate in _RATES:
                model = self._train(method, replace(self.config, lr=rate, seed=_SEARCH_SEED))
                cells = self._measure(model, "dev")
                found[rate] = float(np.mean([cells[cell] for cell in method.cells]))
            self.rates[method.name] = max(found, key=lambda rate: found[rate])
        return self.rates[method.name]

    def retrieval(self, model: TextEncoder, name: str) -> Cells:
        """MRR@10 of XQuAD or nDCG@10 of Cranfield x 100, at every layer with all dims."""
        data, measure = (xquad(), "mrr") if name == "xquad" else (cranfield(), "ndcg")
        task = Retrieval.from_data(data, measures=(measure,))
        whole = Nesting.grid(layer=LAYERS, dim=DIMS[-1:])
        nesting = Nesting(tuple(g for g in whole if g in model.nesting))
        curve = sweep(model, task, nesting)
        return {row.granularity: 100 * row.value for row in curve.column()}

    def _measure(self, model: TextEncoder, split: str) -> Cells:
        pairs = _pairs(split, self.quick)
        deepest = [g for g in model.nesting if g["dim"] == DIMS[-1]]
        first, second = (model.encode_each(column, deepest) for column in (pairs.first, pairs.second))
        found = {}
        for g in deepest:
            for dim, cosines in zip(DIMS, prefix_pair_scores(first[g], second[g], DIMS), strict=True):
                found[g.replace(dim=dim)] = 100 * spearman(cosines, pairs.scores)
        return found

    def _train(self, method: Method, config: TrainConfig, start: TextEncoder | None = None) -> TextEncoder:
        model = copy.deepcopy(start or _start(method.depth))
        data = _Rows(_pairs("train", self.quick))
        fit(model, method.objective(model), data, config, collate=list)
        return model.eval()


def retrieval_lift(study: Study, method: Method, seed: int) -> Run:
    """Mean gain over plain training below the full layer, on XQuAD and Cranfield; figures by layer."""
    figures, gains = {}, []
    for name in ("xquad",) if study.quick else ("xquad", "cranfield"):
        found = study.retrieval(study.model(method, seed), name)
        without = study.retrieval(study.model(plain(), seed), name)
        for g, value in found.items():
            figures[f"{name}, layer {g['layer']}"] = value
            figures[f"{name}, layer {g['layer']}, plain"] = without[g]
        gains.append(float(np.mean([found[g] - without[g] for g in found if g != GRID.full])))
    return min(gains), figures


def run_checks(
    checks: Sequence[Check[Study]],
    not_tested: Mapping[str, str],
    *,
    seeds: int,
    claims: Sequence[str],
    quick: bool,
) -> tuple[list[Claim], dict[str, object]]:
    """Measure those ``claims`` of a tour over ``seeds`` seeds; also the learning rates that were picked."""
    study = Study(quick)
    wanted = [check for check in checks if check.id in claims]
    measured = measure_checks(wanted, {"sts": study}, seeds)
    untested = [Claim.not_tested(name, not_tested[name]) for name in claims if name in not_tested]
    return [*measured, *untested], {"learning rates": study.rates}


class _Rows(torch.utils.data.Dataset[tuple[str, str, float]]):
    def __init__(self, pairs: ScoredPairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, row: int) -> tuple[str, str, float]:
        return self.pairs.first[row], self.pairs.second[row], float(self.pairs.scores[row])


@cache
def _start(depth: int) -> TextEncoder:
    nesting = Nesting.grid(layer=LAYERS[:depth], dim=DIMS)
    whole = TextEncoder.open("minilm", GRID)
    return (
        whole if depth == LAYERS[-1] else TextEncoder(whole.extract(nesting.full).model, nesting, whole.rule)
    )


@cache
def _pairs(split: str, quick: bool) -> ScoredPairs:
    pairs = stsb(split)
    few = 200 if quick else len(pairs)
    return ScoredPairs(pairs.first[:few], pairs.second[:few], pairs.scores[:few])
