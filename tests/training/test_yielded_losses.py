"""An objective that yields trains as the summed loss does: accumulation, precision, NaN, resuming, errors."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nestling.errors import ConfigError, NonFiniteError
from nestling.granularity import Granularity, Nesting
from nestling.losses import OneEncoding, Parts
from nestling.schedules import RandomPrefix, RandomSome
from nestling.training import TrainConfig, TrainLog, fit

NESTING = Nesting.parse("tokens=1,2,4")
Objective = Callable[[Any, Tensor], Any]


class Model(nn.Module):
    """An encoder with dropout, and a head for each number of tokens."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.encoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout))
            self.heads = nn.ModuleDict({str(n): nn.Linear(8, 3) for n in NESTING.sizes("tokens")})

    def loss(self, features: Tensor, batch: Tensor, at: Granularity) -> Tensor:
        pooled = features.unflatten(1, (at["tokens"], -1)).mean(2)
        out = self.heads[str(at["tokens"])](pooled).mean(1)
        return (out.to(batch.dtype) - batch.square().mean(1)).square().mean()


def rows() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(48, 4, 3)))


def encode(model: Model, batch: Tensor) -> Tensor:
    return model.encoder(batch)


def loss_at(model: Model, features: Tensor, batch: Tensor, at: Granularity) -> Tensor:
    return model.loss(features, batch, at)


def in_turn(**settings: Any) -> OneEncoding:
    return OneEncoding(encode, loss_at, NESTING, **settings)


def summed(model: Model, batch: Tensor) -> Parts:
    features = encode(model, batch)
    losses = {at: model.loss(features, batch, at) for at in NESTING}
    return Parts(sum(losses.values()), {at: loss.detach() for at, loss in losses.items()})


def trained(
    objective: Objective, config: TrainConfig, *, dtype: torch.dtype = torch.float64, dropout: float = 0.0
) -> tuple[Model, TrainLog]:
    model = Model(dropout).to(dtype)
    return model, fit(model, objective, rows().to(dtype), config)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_run_equals_that_of_the_summed_loss(accumulation: int) -> None:
    """The last batch of an epoch is shorter, so shares differ; the log has the same rows."""
    config = TrainConfig(
        epochs=3, batch_size=10, gradient_accumulation=accumulation, drop_last=False, lr=1e-2, log_every=1
    )
    (found, log), (expected, other) = trained(in_turn(), config), trained(summed, config)
    torch.testing.assert_close(weights(found), weights(expected), rtol=1e-9, atol=1e-12)
    assert [row[:3] for row in log.rows] == [row[:3] for row in other.rows]
    for row, same in zip(log.rows, other.rows, strict=True):
        assert row.value == pytest.approx(same.value, rel=1e-9)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_equals_that_of_the_summed_loss(precision: Any) -> None:
    """The gradient of the features has the loss scale of fp16 already: scaled twice, it would overflow."""
    config = TrainConfig(epochs=2, batch_size=16, lr=1e-2, mixed_precision=precision, max_grad_norm=None)
    (found, log), (expected, other) = (
        trained(objective, config, dtype=torch.float32) for objective in (in_turn(), summed)
    )
    norms, others = (each.series("gradient_norm")[0][1] for each in (log, other))
    assert norms == pytest.approx(others, rel=1e-2)
    # AdamW moves each weight by about lr=0.01 a step; half floats differ in a few of six steps.
    torch.testing.assert_close(weights(found), weights(expected), rtol=0, atol=5e-3)
    assert not torch.equal(weights(found), weights(Model()))


def test_fp16_skips_a_step_that_overflows_at_one_granularity() -> None:
    def large(model: Model, features: Tensor, batch: Tensor, at: Granularity) -> Tensor:
        return (1000 if at["tokens"] == 2 else 1) * model.loss(features, batch, at)

    config = TrainConfig(max_steps=14, batch_size=16, lr=1e-3, mixed_precision="fp16", log_every=1)
    model, log = trained(OneEncoding(encode, large, NESTING), config, dtype=torch.float32)
    norms = [value for _, value in log.series("gradient_norm")]
    assert not math.isfinite(norms[0])
    assert all(map(math.isfinite, norms[-3:]))
    assert weights(model).isfinite().all()


def test_a_loss_that_is_nan_names_its_granularity_and_leaves_the_weights() -> None:
    def bad(model: Model, features: Tensor, batch: Tensor, at: Granularity) -> Tensor:
        return model.loss(features, batch, at) * (math.nan if at["tokens"] == 2 else 1.0)

    model = Model().double()
    with pytest.raises(
        NonFiniteError, match=r"step 1 is not finite: nan at the total, nan at tokens=2\. The"
    ):
        fit(model, OneEncoding(encode, bad, NESTING), rows(), TrainConfig(batch_size=16))
    assert torch.equal(weights(model), weights(Model().double()))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("schedule", [RandomPrefix(), RandomSome(1)], ids=str)
def test_a_resumed_run_is_the_same_to_the_bit(schedule: Any, tmp_path: Path) -> None:
    """Dropout and the sampled granularities continue where the stopped run was."""

    class Stopped(OneEncoding):
        calls = 0

        def forward(self, model: Model, batch: Tensor) -> Iterator[Parts]:
            self.calls += 1
            for number, part in enumerate(super().forward(model, batch)):
                if self.calls == 9 and number:
                    raise KeyboardInterrupt
                yield part

    config = TrainConfig(
        max_steps=10, batch_size=12, gradient_accumulation=2, lr=1e-2, checkpoint_every=2, log_every=1
    )
    whole, log = trained(in_turn(schedule=schedule), config, dropout=0.3)
    with pytest.raises(KeyboardInterrupt, match="Step 4 is kept"):
        fit(
            Model(0.3).double(),
            Stopped(encode, loss_at, NESTING, schedule=schedule),
            rows(),
            config,
            folder=tmp_path,
        )
    model = Model(0.3).double()
    again = fit(model, in_turn(schedule=schedule), rows(), config, folder=tmp_path)
    assert again.resumed_from == 4
    assert torch.equal(weights(model), weights(whole))
    assert again.rows == log.rows


def test_one_graph_is_alive_at_a_time_and_a_failure_closes_the_objective() -> None:
    alive: list[weakref.ref[Tensor]] = []
    closed: list[bool] = []

    def objective(model: Model, batch: Tensor) -> Iterator[Tensor]:
        try:
            for at in NESTING:
                gc.collect()
                assert all(ref() is None for ref in alive)
                yield noted(model.loss(encode(model, batch), batch, at))
            raise MemoryError
        finally:
            closed.append(True)

    def noted(loss: Tensor) -> Tensor:
        alive.append(weakref.ref(loss))
        return loss

    with pytest.raises(MemoryError):
        fit(Model().double(), objective, rows(), TrainConfig(batch_size=48))
    assert len(alive) == len(NESTING)

    def failing(model: Model, batch: Tensor) -> Iterator[Tensor]:
        try:
            yield torch.ones(3, requires_grad=True)
        finally:
            closed.append(True)

    with pytest.raises(ConfigError, match=r"must return or yield .*a tensor of shape \(3,\)") as failure:
        fit(Model().double(), failing, rows(), TrainConfig())
    assert closed == [True, True], failure  # while the failure still holds the frames of fit


class Called:
    def __call__(self, model: Model, batch: Tensor) -> Iterator[Parts]:
        yield from in_turn()(model, batch)


def test_partial_functions_methods_and_callable_objects_may_yield() -> None:
    def of(factor: float, model: Model, batch: Tensor) -> Iterator[Parts]:
        for part in in_turn()(model, batch):
            yield Parts(factor * part.total, part.losses)

    config = TrainConfig(max_steps=2, batch_size=16)
    expected = weights(trained(in_turn(), config)[0])
    for objective in (partial(of, 1.0), Called(), Called().__call__):
        assert torch.equal(weights(trained(objective, config)[0]), expected)


def test_what_does_not_yield_as_it_should_is_refused() -> None:
    def nothing(model: Model, batch: Tensor) -> Iterator[Tensor]:
        yield from ()

    with pytest.raises(ConfigError, match="yielded no loss"):
        trained(nothing, TrainConfig())
    with pytest.raises(ConfigError, match=r"generator'>; an objective that yields is itself a generator"):
        trained(lambda model, batch: (loss for loss in ()), TrainConfig())
