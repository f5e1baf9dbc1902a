"""Cached gradients equal those of the whole batch, with chunks, dropout and autocast."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nestling.errors import ConfigError
from nestling.granularity import Nesting
from nestling.losses import GradientCache, InfoNCE, Nested


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 8)).double()


def data(seed: int) -> torch.Tensor:
    return torch.randn(20, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("chunk_size", [1, 6, 20, 99])
def test_gradients_are_those_of_the_whole_batch(chunk_size: int) -> None:
    whole, chunked = encoder(), encoder()
    losses = [
        Nested(InfoNCE(0.1, learn_temperature=True).double(), Nesting.parse("dim=2,8")) for _ in range(2)
    ]
    x, y = data(0), data(1)
    expected = losses[0](whole(x), whole(y))
    expected.backward()
    found = GradientCache(chunked, losses[1], chunk_size=chunk_size)(x, y)
    (2 * found / 2).backward()  # whatever stands between the loss and backward counts
    torch.testing.assert_close(found, expected)
    for parts in ((whole, chunked), losses):
        for a, b in zip(*(part.parameters() for part in parts), strict=True):
            torch.testing.assert_close(a.grad, b.grad)


def test_the_encoder_never_sees_more_than_a_chunk() -> None:
    module, seen = encoder(), []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    GradientCache(module, InfoNCE(), chunk_size=6)(data(0), data(1)).backward()
    assert seen == [6, 6, 6, 2] * 4


def test_dropout_falls_the_same_both_times() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5)).double()
    outputs: list[torch.Tensor] = []
    module.register_forward_hook(lambda _, __, output: outputs.append(output.detach()))
    torch.manual_seed(1)
    loss = GradientCache(module, InfoNCE(), chunk_size=7)(data(0), data(1))
    state = torch.get_rng_state()
    loss.backward()
    assert torch.equal(state, torch.get_rng_state())
    first, second = torch.cat(outputs[:6]), torch.cat(outputs[6:])
    torch.testing.assert_close(first, second)
    assert not torch.equal(outputs[0], outputs[1])


def test_both_passes_run_in_the_precision_of_the_first() -> None:
    module, seen = nn.Linear(6, 8), []
    module.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = GradientCache(module, InfoNCE(), chunk_size=10)(data(0).float(), data(1).float())
    loss.backward()
    assert seen == [torch.bfloat16] * 8
    assert module.weight.grad is not None


def test_without_gradients_nothing_is_encoded_twice() -> None:
    module, seen = encoder(), []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    with torch.no_grad():
        loss = GradientCache(module, InfoNCE(), chunk_size=20)(data(0), data(1))
    assert not loss.requires_grad
    assert seen == [20, 20]


def test_chunks_hold_at_least_one_row() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        GradientCache(encoder(), InfoNCE(), chunk_size=0)
