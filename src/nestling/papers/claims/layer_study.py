"""The text encoders that the claims of 2DMSE and Starbucks compare, all trained with the same effort.

All start from all-MiniLM-L6-v2 (6 layers, 384 dims), and learn from the scored pairs of the STS benchmark
with CoSENT. Each method picks its learning rate on the development pairs, by the mean over the cells of
the diagonal that it trains, with the first seed: the rate doubles while that pays, else halves while that
pays. The test pairs are looked at once, at the end.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nestling.data.sets.sts import ScoredPairs, stsb
from nestling.domains.text.pairs import PairObjective, ToViews
from nestling.domains.text.similarity import ScoredRows
from nestling.encoders.text.encoder import TextEncoder
from nestling.encoders.views import ViewsOf
from nestling.granularity import Granularity, Nesting
from nestling.losses import AlignScores, AlignVectors, Compress, CoSENT, Nested, Parts
from nestling.losses.nested import Views
from nestling.measure.tasks.metrics import spearman
from nestling.papers.claims.checks import Tour
from nestling.papers.claims.layer_retrieval import ByLayer, find
from nestling.papers.claims.notes import Notes
from nestling.papers.claims.rate_search import RateSearch
from nestling.schedules import Cross, Every, Schedule
from nestling.training import TrainConfig, fit
from nestling.vectors.prefix import prefix_pair_scores

LAYERS, DIMS = (1, 2, 3, 4, 5, 6), (32, 64, 128, 192, 256, 384)
PAIRS = Nesting.pairs(layer=LAYERS, dim=DIMS)
GRID = Nesting.grid(layer=LAYERS, dim=DIMS)
Cells = dict[Granularity, float]

_EVERY = Every()
_SCALE = 20.0
_COSENT = partial(CoSENT, _SCALE)
_CHUNK = 16
UNTOUCHED = "untouched"
COMPRESSED = 32  # the components of a batch of 64 vectors


@dataclass(frozen=True)
class Method:
    """One way to train.

    Args:
        name: as the report has it.
        objective: from the model, what a batch of (first, second, score) loses.
        cells: that it trains, by whose mean its learning rate is picked.
        depth: layers of the model that is trained; the others are left out before.
        full_loss: points that the full size may lose against plain fine-tuning on the development pairs;
            a rate that loses more is picked only if all do.
    """

    name: str
    objective: Callable[[TextEncoder], nn.Module]
    cells: tuple[Granularity, ...]
    depth: int = LAYERS[-1]
    full_loss: float = np.inf


class LikeLengths(nn.Module):
    """An objective on pairs of texts for which texts of like length are encoded together.

    Less than half of the tokens are padding then; the loss is the same.
    """

    def __init__(self, objective: PairObjective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, model: ToViews, batch: Sequence[tuple[str, str, float]]) -> Parts:
        """Loss of a batch of (first, second, score)."""
        return self.objective(partial(self._encode, model), batch)  # type: ignore[no-any-return]

    def _encode(self, model: ToViews, texts: Sequence[str], rests: Sequence[Granularity]) -> Views:
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        chunks = (order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK))
        parts = [model([texts[row] for row in chunk], rests) for chunk in chunks]
        back = torch.tensor(order).argsort()
        return {rest: torch.cat([part[rest] for part in parts])[back] for rest in rests}


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
    base: Callable[[], nn.Module] = _COSENT,
    values: str = "scores",
    align: Any = None,
    schedule: Schedule = _EVERY,
    weights: Mapping[Any, float] | None = None,
    depth: int = LAYERS[-1],
) -> Method:
    """A method that is a nested loss of rows (text, text, value), whose values the loss takes by name.

    The diagonal cells of the nesting pick the rate.
    """

    def objective(model: TextEncoder) -> nn.Module:
        loss = Nested(base(), nesting, align=align, schedule=schedule, weights=weights, reduction="mean")
        return LikeLengths(PairObjective(loss, values))

    full = nesting.full if "layer" in nesting.axes else nesting.full.replace(layer=depth)
    members = {g if "layer" in g else g.replace(layer=depth) for g in nesting}
    cells = tuple(g for g in PAIRS if g in members) or (full,)
    return Method(name, objective, cells, depth)


def plain() -> Method:
    """Fine-tuned at full size alone, and cut afterwards."""
    return ours("plain", Nesting.chain(dim=DIMS[-1:]))


def separate(cell: Granularity) -> Method:
    """A model of so many layers, trained for so many dims."""
    if cell == GRID.full:
        return plain()
    return ours(f"separate {cell}", Nesting.chain(dim=[cell["dim"]]), depth=cell["layer"])


def mrl() -> Method:
    """Nested in dims at the last layer."""
    return ours("MRL", Nesting.chain(dim=DIMS))


def starbucks() -> Method:
    """Fixed pairs, all in every step, their scores aligned with those of the full size."""
    return ours("Starbucks", PAIRS, align=AlignScores())


def unaligned() -> Method:
    """Starbucks without the term that aligns."""
    return ours("Starbucks without alignment", PAIRS)


def starbucks_for_full() -> Method:
    """Starbucks with three times the weight on the full size, at a rate that loses it at most a point.

    Of the weights 1, 3, 6 and 10 the largest that cost the mean over the pairs nothing on the development
    pairs.
    """
    weights = {cell: 3.0 if cell == GRID.full else 1.0 for cell in PAIRS}
    method = ours("Starbucks for the full size", PAIRS, align=AlignScores(), weights=weights)
    return replace(method, full_loss=1.0)


def whole_grid() -> Method:
    """Every layer with every dim in every step."""
    return ours("grid", GRID, align=AlignScores())


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
    """Every method that was asked for, measured at every layer and dim; each is trained when first needed.

    Args:
        tour: how many seeds, and whether few pairs and steps are enough.
        notes: keep what was measured.
        searched: names of the methods that are measured in retrieval too.
    """

    name = "STS-B, all-MiniLM-L6-v2"

    def __init__(self, tour: Tour, notes: Notes, searched: Collection[str] = ()) -> None:
        steps = 2 if tour.quick else None
        self.quick, self.notes, self._searched = tour.quick, notes, searched
        self.config = TrainConfig(
            max_steps=steps, batch_size=32, schedule="linear", weight_decay=0.01, max_grad_norm=1.0
        )
        self.tuned = RateSearch(
            notes, self._train_at, self._develop, self._look, self._worth, quick=tour.quick
        )

    def cells(self, method: Method, seed: int) -> Cells:
        """Spearman x 100 on the test pairs at every layer and dim."""
        return _read(self.tuned.figures(method, seed)["cells"])

    def retrieval(self, methods: Sequence[Method], seed: int) -> dict[str, dict[str, ByLayer]]:
        """By method, and of the untouched encoder, on XQuAD and Cranfield."""
        each = {method.name: dict(self.tuned.figures(method, seed)) for method in methods}
        for found in each.values():
            del found["cells"]
        return {**each, UNTOUCHED: find_untouched(self.notes, quick=self.quick)}

    def cells_after(self, first: TextEncoder, method: Method, seed: int, steps: int) -> Cells:
        """The test cells of a model that starts elsewhere and learns for some steps; ``first`` stays."""
        rate, most = self.tuned.rate(method), 2 if self.quick else steps
        config = replace(self.config, lr=rate, seed=seed, max_steps=most)
        return self._measure(self._train(method, config, first), "test")

    def _train_at(self, method: Method, rate: float, seed: int) -> TextEncoder:
        return self._train(method, replace(self.config, lr=rate, seed=seed))

    def _develop(self, method: Method, model: TextEncoder) -> dict[str, float]:
        """Mean over the cells of ``method``, and the full size, on the development pairs."""
        cells = self._measure(model, "dev")
        mean = float(np.mean([cells[cell] for cell in method.cells]))
        return {"mean": mean, "full": cells[model.nesting.full]}

    def _worth(self, method: Method, found: Mapping[str, float]) -> tuple[float, float]:
        """What counts first is not to lose more of the full size than ``method`` may."""
        if method.full_loss == np.inf:
            return 0.0, found["mean"]
        least = max(each["full"] for each in self.tuned.developed(plain()).values()) - method.full_loss
        return min(0.0, found["full"] - least), found["mean"]

    def _look(self, method: Method, model: TextEncoder) -> dict[str, ByLayer]:
        cells = {str(g): value for g, value in self._measure(model, "test").items()}
        return {"cells": cells} | (find(model, quick=self.quick) if method.name in self._searched else {})

    def _measure(self, model: TextEncoder, split: str) -> Cells:
        pairs = _pairs(split, self.quick)
        deepest = [g for g in model.nesting if g["dim"] == DIMS[-1]]
        first, second = (model.encode_each(column, deepest) for column in (pairs.first, pairs.second))
        found = {}
        for g in deepest:
            for dim, cosines in zip(DIMS, prefix_pair_scores(first[g], second[g], DIMS), strict=True):
                found[g.replace(dim=dim)] = 100 * spearman(cosines, pairs.scores)
        return found

    def _train(self, method: Method, config: TrainConfig, first: TextEncoder | None = None) -> TextEncoder:
        model = copy.deepcopy(first or minilm(method.depth))
        data = ScoredRows(_pairs("train", self.quick))
        fit(ViewsOf(model), method.objective(model), data, config, collate=list)
        return model.eval()


def find_untouched(notes: Notes, *, quick: bool) -> dict[str, ByLayer]:
    """What the encoder that all start from finds on XQuAD and Cranfield."""
    return notes.once(f"{UNTOUCHED}, retrieval", lambda: find(minilm(), quick=quick))


@cache
def minilm(depth: int = LAYERS[-1]) -> TextEncoder:
    """The encoder that all start from, cut to so many layers; it is shared, and copied before it learns."""
    nesting = Nesting.grid(layer=LAYERS[:depth], dim=DIMS)
    whole = TextEncoder.open("minilm", GRID)
    return (
        whole if depth == LAYERS[-1] else TextEncoder(whole.extract(nesting.full).model, nesting, whole.rule)
    )


@cache
def _pairs(split: str, quick: bool) -> ScoredPairs:
    return stsb(split).head(200 if quick else None)


def _read(noted: Mapping[str, float]) -> Cells:
    return {Granularity.parse(g): value for g, value in noted.items()}
