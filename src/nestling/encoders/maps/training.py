"""Trains an adapter: from the principal axes, by a nested loss, keeping the best on held-out rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from nestling.encoders.maps.examples import Examples, Ints
from nestling.encoders.maps.pca import PCARotation
from nestling.errors import GranularityError
from nestling.granularity import Granularity, Nesting
from nestling.losses import InfoNCE, Nested, Parts
from nestling.losses.similarity import SimilarityMatch, label_targets, neighbour_targets
from nestling.nn.adapter import Adapter
from nestling.training import TrainConfig, TrainLog
from nestling.training.loop import fit
from nestling.vectors.matrix import Vectors, blocks_of

_HELD_OUT_BATCHES = 4
_EVALUATIONS = 10
_TEMPERATURES = {"vectors": 0.5, "pairs": 0.05, "labels": 1.0}


@dataclass(frozen=True)
class AdapterSettings:
    """Settings of the training of a map.

    :class:`~nestling.encoders.maps.adapter.NestedAdapter` documents each of them.
    """

    config: TrainConfig
    hidden: int | None = None
    orthogonal: bool | None = None
    loss: Callable[..., Any] | None = None
    temperature: float | None = None


class TrainedAdapter(NamedTuple):
    """The map and how it came about."""

    module: Adapter
    log: TrainLog
    losses_before: dict[Granularity, float]
    losses_after: dict[Granularity, float]
    reporting: Ints
    over_bits: bool


def train_adapter(
    settings: AdapterSettings, examples: Examples, nesting: Nesting, folder: str | Path | None
) -> TrainedAdapter:
    """Start from the principal axes, train, and return the best map by the loss on held-out rows."""
    config = settings.config
    generator = np.random.default_rng(config.seed)
    training, held_out, reporting = examples.divide(generator, _HELD_OUT_BATCHES * config.batch_size)
    module = _start(settings, examples, training, nesting, generator)
    objective = AdapterObjective(settings, examples, nesting, module)
    batches = np.array_split(held_out, -(-len(held_out) // config.batch_size))

    def evaluate(step: int) -> dict[str, float]:
        losses = objective.check(module, batches)
        return {f"held_out_loss@{g}": value for g, value in losses.items()}

    before = objective.check(module, batches)
    config = _with_evaluations(config, len(training))
    log = fit(module, objective, training, config, folder=folder, evaluate=evaluate)
    after = dict(zip(objective.loss.nesting, objective.best_losses.tolist(), strict=True))
    best = _plain(objective.best, orthogonal=parametrize.is_parametrized(module.linear))
    return TrainedAdapter(best, log, before, after, reporting, "bits" in objective.loss.nesting.axes)


class AdapterObjective(nn.Module):
    """The nested loss of a batch of row numbers; and the best weights so far, which checkpoints then hold.

    Args:
        settings: of the loss.
        examples: the rows.
        nesting: the sizes.
        start: the map before training.

    Raises:
        GranularityError: for a nested loss over other sizes.
    """

    best_total: Tensor
    best_losses: Tensor

    def __init__(
        self, settings: AdapterSettings, examples: Examples, nesting: Nesting, start: Adapter
    ) -> None:
        super().__init__()
        self.examples = examples
        usual = _TEMPERATURES[examples.kind]
        self.temperature = usual if settings.temperature is None else settings.temperature
        loss = self._usual_loss() if settings.loss is None else copy.deepcopy(settings.loss)
        self.loss = loss if isinstance(loss, Nested) else Nested(loss, nesting)
        if self.loss.nesting.without("bits") != nesting:
            raise GranularityError(
                f"the loss is nested over {self.loss.nesting}, the adapter over {nesting}; use one nesting"
            )
        self.best = copy.deepcopy(start).requires_grad_(False)
        self.register_buffer("best_total", torch.tensor(torch.inf, dtype=torch.float64))
        self.register_buffer("best_losses", torch.zeros(len(self.loss.nesting), dtype=torch.float64))

    def _usual_loss(self) -> nn.Module:
        if self.examples.kind == "pairs":
            return InfoNCE(self.temperature, symmetric=True)
        return SimilarityMatch(self.temperature)

    def forward(self, model: nn.Module, rows: Tensor) -> Parts:
        """The loss of the rows with these numbers."""
        columns, rest = self._batch(rows.cpu().numpy(), rows.device)
        found = model(torch.cat(columns)).chunk(len(columns))
        return self.loss.parts(*found, **rest)

    def _batch(self, rows: Ints, device: torch.device) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The arguments of the loss: vectors to map, and their supervision."""
        examples, base = self.examples, self.loss.base
        x = _gather(examples.x, rows, device)
        if examples.pairs is not None and examples.ids is not None:
            ids = torch.from_numpy(examples.ids[rows]).to(device)
            rest = {"ids": ids} if isinstance(base, InfoNCE) else {}
            return [x, _gather(examples.pairs, rows, device)], rest
        if examples.labels is not None:
            labels = torch.from_numpy(examples.labels[rows]).to(device)
            if isinstance(base, SimilarityMatch):
                return [x], {"targets": label_targets(labels)}
            return [x], {"labels": labels}
        return [x], {"targets": neighbour_targets(x, self.temperature)}

    def check(self, model: Adapter, batches: list[Ints]) -> dict[Granularity, float]:
        """The loss at each size over the rows of the batches; keeps the weights if it is the best so far."""
        total, losses = self._mean_losses(model, batches)
        if total < float(self.best_total):
            self.best.load_state_dict(model.state_dict())
            self.best_total.fill_(total)
            self.best_losses.copy_(torch.tensor(list(losses.values())))
        return losses

    @torch.no_grad()
    def _mean_losses(self, model: Adapter, batches: list[Ints]) -> tuple[float, dict[Granularity, float]]:
        mode, device = self.training, model.linear.weight.device
        self.eval()
        found = [self(model, torch.from_numpy(rows).to(device)) for rows in batches]
        self.train(mode)
        shares = [len(rows) / sum(map(len, batches)) for rows in batches]
        each = list(zip(shares, found, strict=True))
        losses = {g: sum(share * float(parts.losses[g]) for share, parts in each) for g in self.loss.nesting}
        return sum(share * float(parts.total) for share, parts in each), losses


def _start(
    settings: AdapterSettings,
    examples: Examples,
    training: Ints,
    nesting: Nesting,
    generator: np.random.Generator,
) -> Adapter:
    """The principal axes of the training rows; a hidden layer sees unit variance and says nothing yet."""
    sides = [examples.x] if examples.pairs is None else [examples.x, examples.pairs]
    blocks = (block for side in sides for block in _blocks(side, training))
    rotation = PCARotation([nesting.full["dim"]]).fit(blocks)
    dim = examples.x.shape[1]
    with torch.device("meta"):
        module = Adapter(nesting, dim, hidden=settings.hidden)
    state = {"linear.weight": rotation.components_}
    if settings.hidden is not None:
        scale = 1 / np.sqrt(max(rotation.energy_.sum(), np.finfo(np.float32).tiny))
        state["hidden.weight"] = generator.standard_normal((settings.hidden, dim)) * scale
        state["hidden.bias"] = np.zeros(settings.hidden)
        state["correction.weight"] = np.zeros((nesting.full["dim"], settings.hidden))
    module.load_state_dict({name: torch.from_numpy(w).float() for name, w in state.items()}, assign=True)
    if _is_orthogonal(settings, examples, nesting):
        parametrizations.orthogonal(module.linear, "weight", orthogonal_map="cayley")
    return module


def _blocks(x: Vectors, rows: Ints) -> Iterator[Vectors]:
    """These rows, which rise, as many at a time as memory holds easily."""
    for block in blocks_of(x):
        start, stop = np.searchsorted(rows, [block.start, block.stop])
        if start < stop:
            yield x[rows[start:stop]]


def _is_orthogonal(settings: AdapterSettings, examples: Examples, nesting: Nesting) -> bool:
    """The setting; by default a rotation if there are only vectors and the size stays the same."""
    if settings.orthogonal is not None:
        return settings.orthogonal
    keeps_size = nesting.full["dim"] == examples.x.shape[1]
    return examples.kind == "vectors" and settings.hidden is None and settings.loss is None and keeps_size


def _plain(module: Adapter, *, orthogonal: bool) -> Adapter:
    """The trained map without its training state; orthogonal to float32 precision."""
    module.requires_grad_(True)
    if orthogonal:
        parametrize.remove_parametrizations(module.linear, "weight", leave_parametrized=True)
        with torch.no_grad():
            left, _, right = torch.linalg.svd(module.linear.weight.double())
            module.linear.weight.copy_(left @ right)
    return module.eval()


def _with_evaluations(config: TrainConfig, rows: int) -> TrainConfig:
    """With some evaluations on the way, unless the settings say how many."""
    if config.evaluate_every is not None:
        return config
    steps = config.max_steps or config.epochs * max(
        1, rows // (config.batch_size * config.gradient_accumulation)
    )
    return replace(config, evaluate_every=max(1, steps // _EVALUATIONS))


def _gather(x: Vectors, rows: Ints, device: torch.device) -> Tensor:
    return torch.from_numpy(x[rows].astype(np.float32)).to(device)
