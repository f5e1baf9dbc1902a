"""Text encoders that learn to search, from docstrings: what each finds elsewhere when it is cut in depth.

All start from all-MiniLM-L6-v2 and see the same pairs of names and descriptions of Python packages, with
the other descriptions of a batch as negatives. Each picks its learning rate by what it finds among held-out
pairs, the mean over the cells that it trains; XQuAD and Cranfield, whose texts are of other kinds, are
looked at once.
"""

from __future__ import annotations

import copy
from functools import cached_property, partial

import numpy as np

from nestling.data.pairs import TextPairs
from nestling.data.sets.docstrings import docstring_pairs
from nestling.domains.text.retrieval import PairRows
from nestling.encoders.text.encoder import TextEncoder
from nestling.encoders.views import ViewsOf
from nestling.granularity import Nesting
from nestling.losses import AlignScores, InfoNCE
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import Retrieval
from nestling.papers.claims.checks import Tour
from nestling.papers.claims.layer_retrieval import ByLayer, find
from nestling.papers.claims.layer_study import DIMS, PAIRS, UNTOUCHED, Method, find_untouched, minilm, ours
from nestling.papers.claims.notes import Notes
from nestling.papers.claims.rate_search import RateSearch
from nestling.training import TrainConfig, fit

_TEMPERATURE = 0.05
_BATCH, _STEPS = 32, 128
_READ, _HELD_OUT = 40_000, 500

_ours = partial(ours, base=partial(InfoNCE, _TEMPERATURE), values="ids")


def plain() -> Method:
    """Trained at full size alone, and cut afterwards."""
    return _ours("plain for search", Nesting.chain(dim=DIMS[-1:]))


def starbucks() -> Method:
    """Trained at fixed pairs of layer and dim, their scores aligned with those of the full size."""
    return _ours("Starbucks for search", PAIRS, align=AlignScores(1.0, _TEMPERATURE))


class SearchStudy:
    """What every method finds at every layer; each is trained when first needed.

    Args:
        tour: how many seeds, and whether few pairs and steps are enough.
        notes: keep what was measured.
    """

    name = "Python docstrings, all-MiniLM-L6-v2"

    def __init__(self, tour: Tour, notes: Notes) -> None:
        self.quick, self.notes = tour.quick, notes
        self.tuned = RateSearch(
            notes, self._train, self._develop, self._look, lambda _, found: found["mean"], quick=tour.quick
        )

    def retrieval(self, seed: int) -> dict[str, dict[str, ByLayer]]:
        """By method, and of the untouched encoder, on XQuAD and Cranfield."""
        each = {method.name: self.tuned.figures(method, seed) for method in (starbucks(), plain())}
        return {**each, UNTOUCHED: find_untouched(self.notes, quick=self.quick)}

    @cached_property
    def _pairs(self) -> tuple[TextPairs, ...]:
        return docstring_pairs(limit=400 if self.quick else _READ).split()

    def _train(self, method: Method, rate: float, seed: int) -> TextEncoder:
        model = copy.deepcopy(minilm())
        config = TrainConfig(
            max_steps=2 if self.quick else _STEPS,
            batch_size=_BATCH,
            lr=rate,
            schedule="linear",
            weight_decay=0.01,
            seed=seed,
        )
        fit(ViewsOf(model), method.objective(model), PairRows(self._pairs[0]), config, collate=list)
        return model.eval()

    def _develop(self, method: Method, model: TextEncoder) -> dict[str, float]:
        """nDCG@10 among held-out pairs, the mean over the cells of ``method``."""
        task = Retrieval.from_pairs(self._pairs[1].head(_HELD_OUT))
        curve = sweep(model, task, Nesting(method.cells), truncation=False)
        return {"mean": 100 * float(np.mean([row.value for row in curve.column()]))}

    def _look(self, _: Method, model: TextEncoder) -> dict[str, ByLayer]:
        return find(model, quick=self.quick)
