"""The training loop equals AdamW by hand; accumulation, mixed precision, NaN, evaluation."""

from __future__ import annotations

import copy
import csv
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nestling.errors import ConfigError, NonFiniteError, StorageError
from nestling.granularity import Nesting
from nestling.losses import InfoNCE, Nested, Parts
from nestling.training import TrainConfig, TrainLog, fit

ROWS, DIM = 96, 6
NESTING = Nesting.parse("dim=2,4,8")


def model(*, dropout: float = 0.0, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(DIM, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 8))


def pairs() -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(ROWS, DIM))).float()
    return x, x + 0.1 * torch.from_numpy(np.random.default_rng(1).normal(size=(ROWS, DIM))).float()


class Contrast(nn.Module):
    """The nested contrastive loss of a pair, with a temperature that is learned."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.loss = Nested(InfoNCE(0.2, learn_temperature=True), NESTING, **settings)

    def forward(self, encode: nn.Module, batch: tuple[Tensor, Tensor]) -> Parts:
        return self.loss.parts(encode(batch[0]), encode(batch[1]))


def reconstruct(encode: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (encode(batch[0])[:, :DIM] - batch[1]).square().mean()


def weights(*modules: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])


def test_the_loss_falls_at_every_granularity_and_the_temperature_is_learned() -> None:
    encoder, objective = model(), Contrast()
    before = objective.loss.base.temperature
    log = fit(encoder, objective, pairs(), TrainConfig(epochs=30, batch_size=32, lr=1e-2, log_every=10))
    for at in ("", *map(str, NESTING)):
        steps, losses = zip(*log.series("loss", at), strict=True)
        assert steps == tuple(range(10, 91, 10))
        assert losses[-1] < 0.85 * losses[0]
    total = sum(log.series("loss", str(g))[0][1] for g in NESTING)
    assert log.series("loss")[0][1] == pytest.approx(total, rel=1e-5)
    assert objective.loss.base.temperature != before


def test_one_step_is_adamw_by_hand() -> None:
    """Clipping, decay of matrices alone, and the update, written out for the first step."""
    trained, by_hand = model(), model()
    config = TrainConfig(
        max_steps=1, batch_size=ROWS, lr=1e-2, weight_decay=0.3, max_grad_norm=0.01, warmup=0
    )
    log = fit(trained, reconstruct, pairs(), config)
    reconstruct(by_hand, pairs()).backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in by_hand.parameters() if p.grad is not None))
    assert log.series("gradient_norm") == [(1, pytest.approx(norm, rel=1e-5))]
    assert norm > 0.01
    for found, start in zip(trained.parameters(), by_hand.parameters(), strict=True):
        assert start.grad is not None
        gradient = start.grad * 0.01 / norm
        decayed = start * (1 - 1e-2 * 0.3) if start.ndim == 2 else start
        # After one step the corrected moments are the gradient and its square.
        expected = decayed - 1e-2 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("drop_last", [True, False])
def test_accumulated_batches_equal_the_big_batch(drop_last: bool) -> None:
    """Of a mean over rows; 90 rows leave a last step of fewer and unequal batches."""
    data = tuple(column[:90].double() for column in pairs())
    found = []
    for batch_size, accumulation in ((32, 1), (8, 4)):
        trained = model().double()
        config = TrainConfig(
            epochs=3, batch_size=batch_size, gradient_accumulation=accumulation, drop_last=drop_last, lr=1e-2,
            max_steps=None if not drop_last else 2,
        )  # fmt: skip
        fit(trained, reconstruct, data, config)
        found.append(weights(trained))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


def test_accumulated_steps_log_the_mean_of_each_granularity() -> None:
    config = TrainConfig(max_steps=1, batch_size=8, gradient_accumulation=4)
    seen: list[Parts] = []
    objective = Contrast()

    def recorded(encode: nn.Module, batch: Any) -> Parts:
        seen.append(objective(encode, batch))
        return seen[-1]

    log = fit(model(), recorded, pairs(), config)
    assert len(seen) == 4
    for g in NESTING:
        mean = sum(float(parts.losses[g]) for parts in seen) / 4
        assert log.series("loss", str(g)) == [(1, pytest.approx(mean, rel=1e-5))]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_used_and_close(precision: Any) -> None:
    kinds = set()

    def objective(encode: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        out = encode(batch[0])
        kinds.add(out.dtype)
        return (out[:, :DIM].float() - batch[1]).square().mean()

    logs = {}
    for name in ("no", precision):
        encoder = model()
        config = TrainConfig(epochs=20, batch_size=32, lr=1e-2, mixed_precision=name)
        logs[name] = fit(encoder, objective, pairs(), config).series("loss")[-1][1]
        assert all(p.dtype == torch.float32 for p in encoder.parameters())
    assert kinds == {torch.float32, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]}
    assert logs[precision] == pytest.approx(logs["no"], rel=0.02)


def test_fp16_skips_a_step_that_overflows() -> None:
    """The loss scale starts at 2**16; times 4 it overflows fp16 (above 65504) until halved thrice."""
    linear = nn.Linear(1, 1, bias=False)
    start = linear.weight.detach().clone()
    config = TrainConfig(
        max_steps=10, batch_size=1, mixed_precision="fp16", lr=1e-3, schedule="constant", warmup=0
    )
    log = fit(linear, lambda module, batch: 4 * module(batch).float().sum(), torch.ones(1, 1), config)
    assert math.isinf(log.series("gradient_norm")[0][1])
    # Seven of ten steps are taken; AdamW moves by the learning rate under a constant gradient.
    torch.testing.assert_close(linear.weight.detach(), start - 7e-3, rtol=0, atol=1e-5)


def test_fp16_does_not_skip_for_ever() -> None:
    linear = nn.Linear(1, 1, bias=False)

    def undefined(module: nn.Module, batch: Tensor) -> Tensor:
        return (module.weight - module.weight.detach()).abs().sum().sqrt()

    config = TrainConfig(max_steps=40, batch_size=1, mixed_precision="fp16")
    # The scale has fallen from 2**16 to 2**-14 by then.
    with pytest.raises(NonFiniteError, match="gradient of step 31 is not finite in weight"):
        fit(linear, undefined, torch.ones(1, 1), config)


def test_a_loss_that_is_nan_names_step_and_granularity_and_leaves_the_weights() -> None:
    encoder, calls = model(), []

    def objective(encode: nn.Module, batch: tuple[Tensor, Tensor]) -> Parts:
        calls.append(weights(encode))
        good = reconstruct(encode, batch)
        bad = good * math.nan if len(calls) == 3 else good
        return Parts(good + bad, {NESTING[0]: good.detach(), NESTING[1]: bad.detach()})

    with pytest.raises(
        NonFiniteError, match=r"step 3 is not finite: nan at the total, nan at dim=4\. .*step 2"
    ):
        fit(encoder, objective, pairs(), TrainConfig(batch_size=8))
    assert torch.equal(weights(encoder), calls[2])
    assert len(calls) == 3


def test_a_gradient_that_is_nan_names_the_parameter() -> None:
    encoder = model()

    def objective(encode: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        last = encode[3].bias
        return reconstruct(encode, batch) + (last - last.detach()).square().sum().sqrt()

    before = weights(encoder)
    with pytest.raises(NonFiniteError, match=r"gradient of step 1 is not finite in 3\.bias"):
        fit(encoder, objective, pairs(), TrainConfig(batch_size=8))
    assert torch.equal(weights(encoder), before)
    assert all(p.grad is None for p in encoder.parameters())


@pytest.mark.parametrize("returned", [torch.ones(3, requires_grad=True), torch.tensor(1.0), 1.0, None])
def test_an_objective_that_returns_no_loss_is_refused(returned: Any) -> None:
    with pytest.raises(ConfigError, match="scalar loss that depends on the weights"):
        fit(model(), lambda encode, batch: returned, pairs(), TrainConfig())


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing can be trained"):
        fit(model().requires_grad_(False), reconstruct, pairs())


def test_a_frozen_model_under_an_objective_that_learns() -> None:
    encoder, objective = model().requires_grad_(False), Contrast()
    before = weights(encoder)
    fit(encoder, objective, pairs(), TrainConfig(epochs=2, batch_size=32))
    assert torch.equal(weights(encoder), before)
    assert objective.loss.base.temperature != pytest.approx(0.2, abs=1e-7)


def test_innocence() -> None:
    """Only the weights change: not the random states, the data, the modes, nor Accelerate's state."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    encoder, data = model(dropout=0.5), pairs()
    encoder[2].eval()
    attributes, kept = set(vars(encoder)), copy.deepcopy(data)
    AcceleratorState._reset_state()  # another test of this process may have left its own
    theirs = Accelerator(mixed_precision="bf16", gradient_accumulation_steps=3)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    fit(
        encoder,
        reconstruct,
        data,
        TrainConfig(epochs=1, batch_size=32),
        evaluate=lambda _: {"x": random.random()},
    )
    assert random.getstate() == states[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(torch.equal(a, b) for a, b in zip(data, kept, strict=True))
    assert set(vars(encoder)) == attributes
    assert encoder.training
    assert not encoder[2].training
    assert (theirs.mixed_precision, theirs.gradient_accumulation_steps) == ("bf16", 3)
    AcceleratorState._reset_state()


def test_the_seed_decides_and_evaluations_in_between_do_not() -> None:
    def trained(seed: int, every: int | None) -> Tensor:
        encoder = model(dropout=0.3)
        config = TrainConfig(epochs=2, batch_size=16, seed=seed, evaluate_every=every)
        fit(encoder, reconstruct, pairs(), config, evaluate=lambda _: {"noise": float(torch.rand(()))})
        return weights(encoder)

    torch.manual_seed(5)
    first = trained(0, None)
    torch.manual_seed(6)
    assert torch.equal(trained(0, 1), first)
    assert not torch.equal(trained(1, None), first)


def test_evaluations_run_in_evaluation_mode_when_due() -> None:
    encoder, objective = model(), Contrast()
    called = []

    def evaluate(step: int) -> dict[str, float]:
        assert not encoder.training
        assert not objective.training
        called.append(step)
        return {"ndcg@10": step / 10, "ndcg@10@dim=4": 0.5}

    config = TrainConfig(max_steps=7, batch_size=16, evaluate_every=3)
    log = fit(encoder, objective, pairs(), config, evaluate=evaluate)
    assert called == [3, 6, 7]
    assert log.series("ndcg@10") == [(3, 0.3), (6, 0.6), (7, 0.7)]
    assert log.series("ndcg@10", "dim=4") == [(3, 0.5), (6, 0.5), (7, 0.5)]
    assert encoder.training
    assert objective.training


def test_log_csv_is_the_log(tmp_path: Path) -> None:
    config = TrainConfig(epochs=2, batch_size=16, log_every=4, evaluate_every=6)
    objective = Contrast()
    log = fit(model(), objective, pairs(), config, folder=tmp_path, evaluate=lambda step: {"a,b": 1 / 3})
    text = (tmp_path / "log.csv").read_text(encoding="utf-8")
    assert TrainLog.from_csv(text).rows == log.rows
    rows = list(csv.DictReader(text.splitlines()))
    assert list(rows[0]) == ["step", "metric", "granularity", "value"]
    assert {row["granularity"] for row in rows if row["metric"] == "loss"} == {"", "dim=2", "dim=4", "dim=8"}
    assert [row["step"] for row in rows if row["metric"] == "lr"] == ["4", "8", "12"]
    assert [row["value"] for row in rows if row["metric"] == "a,b"] == [repr(1 / 3)] * 2


def test_tensorboard_holds_the_log(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = TrainConfig(max_steps=6, batch_size=16, log_every=2)
    log = fit(model(), Contrast(), pairs(), config, folder=tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for at in ("", "dim=2"):
        found = [(event.step, event.value) for event in events.Scalars(f"loss/{at}".rstrip("/"))]
        assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in log.series("loss", at)]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(StorageError, match="cannot be used"):
        fit(model(), reconstruct, pairs(), TrainConfig(), folder=tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"
