"""Shared by the tours of 2DMSE and Starbucks: an encoder, a task, and a comparison of training methods.

The encoder is all-MiniLM-L6-v2 (6 layers, 384 dims), fine-tuned on the scored pairs of the STS benchmark.
Each method picks its learning rate on the development pairs, by the mean over the cells of the diagonal that
it trains, with the first seed: the rate is doubled while that helps, or else halved. The test pairs are
measured once, at the end.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from nestling.data.sets.sts import ScoredPairs, stsb
from nestling.domains.text.pairs import PairObjective, ToViews
from nestling.encoders.text.encoder import TextEncoder
from nestling.granularity import Granularity, Nesting
from nestling.losses import Parts
from nestling.losses.nested import Views
from nestling.measure.machine import versions
from nestling.measure.tasks.metrics import spearman
from nestling.papers.claims.checks import Checks, Tour, measure_checks
from nestling.papers.claims.layer_retrieval import ByLayer, find
from nestling.papers.claims.rate_search import RateSearch
from nestling.papers.claims.report import Claim
from nestling.process.blocks import batches
from nestling.storage.resumable import ResumableValues
from nestling.training import TrainConfig
from nestling.vectors.prefix import prefix_pair_scores

LAYERS, DIMS = (1, 2, 3, 4, 5, 6), (32, 64, 128, 192, 256, 384)
PAIRS = Nesting.pairs(layer=LAYERS, dim=DIMS)
GRID = Nesting.grid(layer=LAYERS, dim=DIMS)
Cells = dict[Granularity, float]

_CHUNK = 16
UNTOUCHED = "untouched"


@dataclass(frozen=True)
class Method:
    """One method of training.

    Args:
        name: in the report.
        objective: from the model, the loss of a batch of (first, second, score).
        cells: the trained cells of the grid; their mean picks the learning rate.
        depth: layers of the model; deeper layers are removed before training.
        full_loss: points that the full size may lose against plain fine-tuning on the development pairs;
            a rate that loses more is picked only if all do.
    """

    name: str
    objective: Callable[[TextEncoder], nn.Module]
    cells: tuple[Granularity, ...]
    depth: int = LAYERS[-1]
    full_loss: float = np.inf


Train = Callable[[TextEncoder, Method, ScoredPairs, TrainConfig], TextEncoder]


class LikeLengths(nn.Module):
    """An objective on pairs of texts that encodes texts of similar length together.

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
        parts = [model([texts[row] for row in chunk], rests) for chunk in batches(order, _CHUNK)]
        back = torch.tensor(order).argsort()
        return {rest: torch.cat([part[rest] for part in parts])[back] for rest in rests}


class Study:
    """Every method at every layer and dim; each is trained when it is first needed.

    Args:
        tour: number of seeds, and whether few pairs and steps are enough.
        notes: keep what was measured.
        train: a model that starts from the given one, by a method, on scored pairs.
        baseline: the method whose full size bounds what others may lose.
        searched: names of the methods that are measured in retrieval too.
    """

    name = "STS-B, all-MiniLM-L6-v2"

    def __init__(
        self,
        tour: Tour,
        notes: ResumableValues,
        train: Train,
        baseline: Method,
        searched: Collection[str] = (),
    ) -> None:
        self._fit, self._baseline = train, baseline
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
        """Quality by layer of each method and of the untouched encoder, on XQuAD and Cranfield."""
        each = {method.name: dict(self.tuned.figures(method, seed)) for method in methods}
        for found in each.values():
            del found["cells"]
        return {**each, UNTOUCHED: find_untouched(self.notes, quick=self.quick)}

    def cells_after(self, first: TextEncoder, method: Method, seed: int, steps: int) -> Cells:
        """The test cells of a model trained for some steps from ``first``, which is not changed."""
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
        """First, not to lose more of the full size than ``method`` may; then, the mean."""
        if method.full_loss == np.inf:
            return 0.0, found["mean"]
        least = max(each["full"] for each in self.tuned.developed(self._baseline).values()) - method.full_loss
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
        return self._fit(model, method, _pairs("train", self.quick), config)


def find_untouched(notes: ResumableValues, *, quick: bool) -> dict[str, ByLayer]:
    """Quality of the shared initial checkpoint on XQuAD and Cranfield."""
    return notes.once(f"{UNTOUCHED}, retrieval", lambda: find(minilm(), quick=quick))


@cache
def minilm(depth: int = LAYERS[-1]) -> TextEncoder:
    """The shared initial checkpoint, truncated to ``depth`` layers; copy it before training."""
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


def run_checks(
    name: str,
    checks: Checks[Any],
    not_tested: Mapping[str, str],
    tour: Tour,
    searched: Mapping[str, Sequence[Method]],
    studies_of: Callable[[ResumableValues, Collection[str]], Mapping[str, Any]],
) -> tuple[list[Claim], dict[str, object]]:
    """Measure the claims of a tour; also the learning rates that were picked.

    Args:
        name: of the tour, and of the file that keeps an interrupted one.
        checks: of all its claims.
        not_tested: reason that a claim is not tested, by id.
        tour: the tour.
        searched: the methods that are measured in retrieval, by the claim that needs this.
        studies_of: from the notes and the names of these methods, each study by its key.
    """
    path = None if tour.folder is None else tour.folder / f"{name}.interrupted.json"
    names = {each.name for claim, methods in searched.items() if claim in tour.claims for each in methods}
    notes = ResumableValues(
        path, {"tour": name, "quick": tour.quick, "searched": sorted(names), **versions()}
    )
    studies = studies_of(notes, names)
    measured = measure_checks(tour.checks(checks), studies, tour.seeds)
    notes.remove()
    rates = {name: rate for study in studies.values() for name, rate in study.tuned.rates.items()}
    return [*measured, *tour.untested(not_tested)], {"learning rates": rates}
