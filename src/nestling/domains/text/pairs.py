"""Training all weights of an encoder on pairs of texts, with one forward pass for each batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nestling.cut import RAW, CutRule, cut
from nestling.domains.text.train_plan import TrainPlan
from nestling.encoders.text.encoder import TextEncoder
from nestling.encoders.text.origin import TrainedFrom
from nestling.encoders.views import ViewsOf
from nestling.losses import GradientCache, Nested, Parts
from nestling.losses.nested import Views
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import Task
from nestling.training import fit

# The spread of an entry is then known to about 1 %.
_CALIBRATION_ROWS = 8192

ToViews: TypeAlias = Callable[..., Views]


def train_on_pairs(
    plan: TrainPlan,
    start: TextEncoder,
    rows: Dataset[tuple[str, str, float]],
    objective: PairObjective,
    held_out: Task | None,
) -> TextEncoder:
    """A copy of ``start`` with all weights trained on rows (text, text, value).

    Args:
        plan: of the run; the log and the checkpoints go into its folder.
        start: the initial encoder; it is not changed.
        rows: the training data.
        objective: the loss of a batch; its nesting becomes that of the result.
        held_out: a task whose sweeps are logged during training; None logs none.
    """
    nesting = objective.loss.nesting
    model = TextEncoder(copy.deepcopy(start.model), nesting.without("bits"), start.rule.without_code)
    model.trained_from = TrainedFrom(plan.model.encoder)

    def evaluate(step: int) -> dict[str, float]:
        assert held_out is not None
        curve = sweep(model, held_out, bits=None, seed=plan.train.seed, truncation=False)
        return {f"{row.metric}@{row.granularity}": row.value for row in curve.rows}

    fit(
        ViewsOf(model),
        objective,
        rows,
        plan.train,
        collate=list,
        folder=plan.output.folder,
        evaluate=None if held_out is None else evaluate,
    )
    if "bits" in nesting.axes:
        model.rule = _calibrated(model.eval(), rows)
    return model.eval()


def _calibrated(model: TextEncoder, rows: Dataset[tuple[str, str, float]]) -> CutRule:
    """The rule of a trained encoder with a code of its vectors of the second texts."""
    count = len(rows)  # type: ignore[arg-type]
    texts = dict.fromkeys(rows[number][1] for number in range(0, count, -(-count // _CALIBRATION_ROWS)))
    return model.rule.calibrated(model.encode(list(texts)))


class PairObjective(nn.Module):
    """A nested loss of rows (text, text, value), encoded in one batch or in chunks.

    Args:
        loss: at every granularity.
        name: the keyword argument of the loss for the values, such as ``"ids"`` or ``"scores"``.
        chunk_size: number of texts encoded at a time, by gradient caching; None encodes a batch at once.
    """

    def __init__(self, loss: Nested, name: str, chunk_size: int | None = None) -> None:
        super().__init__()
        self.loss, self.name, self.chunk_size = loss, name, chunk_size

    def forward(self, model: ToViews, batch: Sequence[tuple[str, str, float]]) -> Parts:
        """Loss of a batch, with the part of each granularity.

        Args:
            model: returns the views of texts, as :class:`~nestling.encoders.views.ViewsOf` does.
            batch: rows (text, text, value).
        """
        first, second, values = map(list, zip(*batch, strict=True))
        rests = self.loss.nesting.rests
        if self.chunk_size is None:
            views = model([*first, *second], rests=rests)
            columns = [{rest: x[rows] for rest, x in views.items()} for rows in _halves(len(first))]
            return self._parts(*columns, values=values)
        found: list[Parts] = []

        def total(*columns: Views) -> Tensor:
            found.append(self._parts(*columns, values=values))
            return found[0].total

        encode = partial(model, rests=rests)
        value = GradientCache(encode, total, chunk_size=self.chunk_size)(first, second)
        return found[0]._replace(total=value)

    def _parts(self, *columns: Views, values: list[float]) -> Parts:
        device, full = next(iter(columns[0].values())).device, self.loss.nesting.full.get("dim")
        # The encoder may be wider than the full size of the nesting.
        trained = [
            {rest: cut(x, full or x.shape[-1], RAW) for rest, x in column.items()} for column in columns
        ]
        return self.loss.parts(*trained, **{self.name: torch.tensor(values, device=device)})


def _halves(rows: int) -> tuple[slice, slice]:
    return slice(rows), slice(rows, None)
