"""LoRA adapters that are switched with the granularity get the gradients of their own scale."""

from __future__ import annotations

from functools import partial
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nestling.granularity import Granularity, Nesting
from nestling.losses import OneEncoding
from nestling.nn.lora import ScaleAdapters, Strategy
from nestling.training import TrainConfig, fit

NESTING = Nesting.parse("tokens=1,2,4")
WIDTH, RANK, SCALE = 6, 2, 2.0


def named(strategy: Strategy, at: Granularity) -> list[str]:
    """The adapters that are active at a granularity."""
    own = f"scale_{at['tokens']}"
    return {"ms": ["shared"], "ss": [own], "mss": ["shared", own]}[strategy]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.q_proj(x)) * self.v_proj(x)


class Stack(nn.Module):
    """A projector, and two blocks with adapters."""

    def __init__(self, checkpointed: bool) -> None:
        super().__init__()
        self.projector = nn.Linear(3, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.gradient_checkpointing = checkpointed

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.gradient_checkpointing else block(x)
        return x


def adapted(strategy: Strategy, checkpointed: bool) -> tuple[Stack, ScaleAdapters]:
    """The stack, frozen but for its projector and the adapters of all scales, which start at random."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = Stack(checkpointed)
        adapters = ScaleAdapters(model, NESTING, strategy, rank=RANK, alpha=SCALE * RANK)
        for weight in adapters.parameters():
            nn.init.normal_(weight, std=0.3)
    model.projector.requires_grad_(True)
    return model.double(), adapters


def loss_of(out: Tensor, batch: Tensor) -> Tensor:
    return (out.mean(1)[:, :3] - batch.mean(1)).square().mean()


def pooled(features: Tensor, at: Granularity) -> Tensor:
    return features.unflatten(1, (at["tokens"], -1)).mean(2)


def objective(adapters: ScaleAdapters) -> OneEncoding:
    return OneEncoding(
        lambda model, batch: model.projector(batch),
        lambda model, features, batch, at: loss_of(model(pooled(features, at)), batch),
        NESTING,
        context=adapters.at,
    )


def functional(weights: dict[str, Tensor], names: list[str], x: Tensor) -> Tensor:
    """The blocks with adapters written out: h W + s (h D_k U_k + ...)."""
    for number in range(2):
        q, v = (
            x @ weights[f"{at}.base_layer.weight"].T
            + weights[f"{at}.base_layer.bias"]
            + sum(
                SCALE
                * (x @ weights[f"{at}.lora_A.{name}.weight"].T @ weights[f"{at}.lora_B.{name}.weight"].T)
                for name in names
            )
            for at in (f"blocks.{number}.q_proj", f"blocks.{number}.v_proj")
        )
        x = x + torch.tanh(q) * v
    return x


def written_out(weights: dict[str, Tensor], strategy: Strategy, batch: Tensor, at: Granularity) -> Tensor:
    features = batch @ weights["projector.weight"].T + weights["projector.bias"]
    return loss_of(functional(weights, named(strategy, at), pooled(features, at)), batch)


def rows() -> Tensor:
    return torch.randn(16, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_gradients_are_those_of_adapters_that_are_written_out(strategy: Strategy, checkpointed: bool) -> None:
    (model, adapters), batch = adapted(strategy, checkpointed), rows()
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    before: dict[str, Tensor] = {}
    for at, part in zip(NESTING, objective(adapters)(model, batch), strict=False):
        part.total.backward()
        here = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        mine = named(strategy, at)
        for name, gradient in here.items():
            if "lora_" in name:  # the loss of this scale reaches its adapters alone
                changed = name not in before or not torch.equal(gradient, before[name])
                assert changed == any(f".{each}." in name for each in mine), (at, name)
        before = here
        written_out(weights, strategy, batch, at).backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad and "lora_" in name}
    assert all("lora_" in name for name in before)  # the projector comes last
    for name, parameter in trained.items():
        torch.testing.assert_close(parameter.grad, weights[name].grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_fit_trains_them_as_those_that_are_written_out(strategy: Strategy, checkpointed: bool) -> None:
    """All adapters and the projector, whose gradient is the sum over the scales."""
    (model, adapters), config = adapted(strategy, checkpointed), TrainConfig(epochs=3, batch_size=8, lr=1e-2)
    plain = nn.ParameterDict()
    names = {name: name.replace(".", "/") for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        plain[names[name]] = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)

    def summed(plain: nn.ParameterDict, batch: Tensor) -> Tensor:
        weights = {name: plain[key] for name, key in names.items()}
        return sum(map(partial(written_out, weights, strategy, batch), NESTING))

    fit(model, objective(adapters), rows(), config)
    fit(plain, summed, rows(), config)
    start = dict(adapted(strategy, checkpointed)[0].named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, plain[names[name]], rtol=1e-9, atol=1e-12)
        assert torch.equal(parameter, start[name]) != parameter.requires_grad, name
