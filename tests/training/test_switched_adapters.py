"""LoRA adapters of peft that are switched with the granularity get the gradients of their own scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nestling.granularity import Granularity, Nesting
from nestling.losses import OneEncoding
from nestling.training import TrainConfig, fit

NESTING = Nesting.parse("tokens=1,2,4")
WIDTH, RANK, SCALE = 6, 2, 2.0
STRATEGIES: dict[str, Callable[[int], list[str]]] = {
    "ms": lambda size: ["shared"],
    "ss": lambda size: [f"scale_{size}"],
    "mss": lambda size: ["shared", f"scale_{size}"],
}


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
        self.checkpointed = checkpointed

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return x


def adapted(strategy: str, checkpointed: bool) -> Any:
    """The stack, frozen but for its projector and the adapters of all scales, which start at random."""
    names = sorted({name for size in NESTING.sizes("tokens") for name in STRATEGIES[strategy](size)})
    config = peft.LoraConfig(r=RANK, lora_alpha=SCALE * RANK, target_modules=["q_proj", "v_proj"])
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = peft.get_peft_model(Stack(checkpointed), config, adapter_name=names[0])
        for name in names[1:]:
            model.add_adapter(name, config)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                nn.init.normal_(parameter, std=0.3)
            parameter.requires_grad_("lora_" in name or "projector" in name)
    return model.double()


@contextmanager
def active(model: Any, names: list[str]) -> Iterator[None]:
    """These adapters are active; all stay trainable, which peft would change."""
    trained = [p for p in model.parameters() if p.requires_grad]
    model.base_model.set_adapter(names)
    for parameter in trained:
        parameter.requires_grad_(True)
    yield


def loss_of(out: Tensor, batch: Tensor) -> Tensor:
    return (out.mean(1)[:, :3] - batch.mean(1)).square().mean()


def pooled(features: Tensor, at: Granularity) -> Tensor:
    return features.unflatten(1, (at["tokens"], -1)).mean(2)


def objective(model: Any, strategy: str) -> OneEncoding:
    return OneEncoding(
        lambda model, batch: model.projector(batch),
        lambda model, features, batch, at: loss_of(model(pooled(features, at)), batch),
        NESTING,
        context=lambda at: active(model, STRATEGIES[strategy](at["tokens"])),
    )


def functional(weights: dict[str, Tensor], names: list[str], x: Tensor) -> Tensor:
    """The blocks with adapters written out: h W + s (h D_k U_k + ...)."""
    prefix = "base_model.model.blocks"
    for number in range(2):
        q, v = (
            x @ weights[f"{at}.base_layer.weight"].T
            + weights[f"{at}.base_layer.bias"]
            + sum(
                SCALE
                * (x @ weights[f"{at}.lora_A.{name}.weight"].T @ weights[f"{at}.lora_B.{name}.weight"].T)
                for name in names
            )
            for at in (f"{prefix}.{number}.q_proj", f"{prefix}.{number}.v_proj")
        )
        x = x + torch.tanh(q) * v
    return x


def written_out(weights: dict[str, Tensor], strategy: str, batch: Tensor, at: Granularity) -> Tensor:
    at_projector = "base_model.model.projector"
    features = batch @ weights[f"{at_projector}.weight"].T + weights[f"{at_projector}.bias"]
    return loss_of(functional(weights, STRATEGIES[strategy](at["tokens"]), pooled(features, at)), batch)


def rows() -> Tensor:
    return torch.randn(16, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradients_are_those_of_adapters_that_are_written_out(strategy: str, checkpointed: bool) -> None:
    model, batch = adapted(strategy, checkpointed), rows()
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    before: dict[str, Tensor] = {}
    for at, part in zip(NESTING, objective(model, strategy)(model, batch), strict=False):
        part.total.backward()
        here = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        mine = STRATEGIES[strategy](at["tokens"])
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
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fit_trains_them_as_those_that_are_written_out(strategy: str, checkpointed: bool) -> None:
    """All adapters and the projector, whose gradient is the sum over the scales."""
    model, config = adapted(strategy, checkpointed), TrainConfig(epochs=3, batch_size=8, lr=1e-2)
    plain = nn.ParameterDict()
    names = {name: name.replace(".", "/") for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        plain[names[name]] = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)

    def summed(plain: nn.ParameterDict, batch: Tensor) -> Tensor:
        weights = {name: plain[key] for name, key in names.items()}
        return sum(map(partial(written_out, weights, strategy, batch), NESTING))

    fit(model, objective(model, strategy), rows(), config)
    fit(plain, summed, rows(), config)
    start = dict(adapted(strategy, checkpointed).named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, plain[names[name]], rtol=1e-9, atol=1e-12)
        assert torch.equal(parameter, start[name]) != parameter.requires_grad, name
