"""The nested loss of a prefix model trains it as the summed loss: schedules, checkpoints, two processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from nestling.domains.prefix import PrefixBatch, PrefixLM
from nestling.errors import GranularityError
from nestling.losses import OneEncoding, Parts
from nestling.nn.lora import ScaleAdapters
from nestling.nn.tokens import Connector, GridPool, Projector, ScaleProjectors, SequencePool
from nestling.schedules import Every, RandomPrefix, RandomSome, Sandwich, Schedule
from nestling.training import TrainConfig, fit
from two_processes import WORLD, launch, save

WIDTH, VOCABULARY, ROWS = 16, 20, 12
PRODUCT = "audio=2,4 x video=2,4"


def language_model() -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=24, vocab_size=VOCABULARY, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def made(
    *,
    streams: Sequence[str] = ("image",),
    adapters: Any = None,
    checkpointed: bool = False,
    dtype: torch.dtype = torch.float64,
) -> PrefixLM:
    """Pictures of 4 x 4 cells, or sound and video of 16 and 8 vectors, before a small Llama."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        lm = language_model()
        encoders, connectors = {}, {}
        for stream in streams:
            encoders[stream] = nn.Sequential(nn.Linear(3, 6), nn.Tanh())
            if stream == "image":
                connectors[stream] = Connector(Projector(6, WIDTH), GridPool((4, 4), [1, 4, 16], WIDTH))
            else:
                rates, frames = ([4, 8], 16) if stream == "audio" else ([2, 4], 8)
                pool = SequencePool(6, rates, frames, axis=stream)
                connectors[stream] = Connector(pool, ScaleProjectors.after(pool, WIDTH, hidden=8))
        scales = PRODUCT if len(streams) > 1 else "tokens=1,4,16"
        own = ScaleAdapters(lm, scales, adapters, rank=2, alpha=2) if adapters else None
        for weight in own.parameters() if own else ():
            nn.init.normal_(weight, std=0.3)
    if checkpointed:
        getattr(lm, "activation_checkpointing_enable", lm.gradient_checkpointing_enable)()
    return PrefixLM(encoders, connectors, lm, adapters=own).to(dtype)


def collate(model: PrefixLM) -> Callable[[list[int]], PrefixBatch]:
    """Rows with one item a stream, or the first two without, and one id to answer."""
    dtype = next(model.parameters()).dtype
    generator = torch.Generator().manual_seed(1)
    lengths = {"image": 16, "audio": 16, "video": 8}
    given = {
        name: torch.randn(ROWS, lengths[name], 3, generator=generator, dtype=torch.float64).to(dtype)
        for name in model.streams.names
    }

    def batch(rows: list[int]) -> PrefixBatch:
        items = {name: [x[row] if row > 1 else None for row in rows] for name, x in given.items()}
        prompts = [[5 + row % 3] * (1 + row % 2) for row in rows]
        return model.batch(prompts, [[row % VOCABULARY] for row in rows], **items)

    return batch


class Summed:
    """The losses of a step in one sum, with the granularities that the schedule draws for that step."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.steps = schedule, 0

    def __call__(self, model: PrefixLM, batch: PrefixBatch) -> Parts:
        draw = self.schedule.draw(model.nesting, np.random.default_rng([0, self.steps]))
        self.steps += 1
        losses = {at: model.loss(batch, at) for at in draw}
        return Parts(sum(draw[at] * loss for at, loss in losses.items()), {})


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def trained(model: PrefixLM, objective: Any, **settings: Any) -> Tensor:
    config = TrainConfig(**{"epochs": 2, "batch_size": 4, "lr": 1e-2, **settings})
    fit(model, objective, range(ROWS), config, collate=collate(model))
    return weights(model)


@pytest.mark.parametrize("adapters", [None, "mss"])
def test_checkpointed_activations_are_recomputed_with_the_adapters_of_their_scale(adapters: Any) -> None:
    model, plain = made(adapters=adapters, checkpointed=True).train(), made(adapters=adapters).train()
    batch, calls = collate(model)(list(range(ROWS))), []
    model.lm.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    for part in model.objective().train()(model, batch):
        part.total.backward()
    assert len(calls) == 2 * len(model.nesting), "each scale's layers run forward twice"
    sum(plain.loss(batch, at) for at in plain.nesting).backward()
    for (name, found), expected in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (found.grad is None) == (expected.grad is None), name
        if found.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-9, atol=1e-12)


def test_checkpointed_adapters_alone_are_trained() -> None:
    """No embedding needs a gradient then, which reentrant checkpointing would take for no gradient at all."""
    model = made(adapters="ss", checkpointed=True).train()
    model.requires_grad_(False)
    for weight in model.adapters.parameters():
        weight.requires_grad_(True)
    for part in model.objective().train()(model, collate(model)(list(range(ROWS)))):
        part.total.backward()
    assert all(weight.grad.any() for weight in model.adapters.parameters())


def test_an_objective_of_sizes_that_the_model_does_not_have_is_refused() -> None:
    larger = OneEncoding(
        lambda model, batch: model.encode(batch),
        lambda model, features, batch, at: model.loss_of(features, batch, at),
        "tokens=1,64",
    )
    model = made()
    with pytest.raises(GranularityError, match="tokens=64 is outside the nesting tokens=1,4,16"):
        list(larger(model, collate(model)([2, 3])))


SCHEDULES = {
    "all": Every(),
    "one at random": RandomPrefix(),
    "the full one and one more": RandomSome(1),
    "the ends and one more": Sandwich(1),
}


@pytest.mark.parametrize("streams", [("image",), ("audio", "video")])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_trains_as_the_summed_loss(name: str, streams: Sequence[str]) -> None:
    """Also a product of streams; batches are accumulated, and each has a draw of its own."""
    model, other = (made(streams=streams, adapters="mss") for _ in range(2))
    found = trained(model, model.objective(schedule=SCHEDULES[name]), gradient_accumulation=2)
    expected = trained(other, Summed(SCHEDULES[name]), gradient_accumulation=2)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert not torch.equal(found, weights(made(streams=streams, adapters="mss")))


def test_bf16_with_accumulation_and_checkpointing() -> None:
    settings = {"gradient_accumulation": 2, "mixed_precision": "bf16", "max_grad_norm": None}
    model = made(adapters="mss", checkpointed=True, dtype=torch.float32)
    other = made(adapters="mss", dtype=torch.float32)
    found, expected = (
        trained(model, model.objective(), **settings),
        trained(other, Summed(Every()), **settings),
    )
    # AdamW moves each weight by about lr=0.01 a step; bfloat16 turns the direction of a few in four steps.
    assert (found - expected).abs().mean() < 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-2)


def train_in_two(folder: Path) -> None:
    model = made(adapters="mss", checkpointed=True)
    save(folder, "model", weights=trained(model, model.objective(schedule=Sandwich(0)), **IN_TWO))


IN_TWO = {"gradient_accumulation": 3, "epochs": 2, "lr": 1e-2, "batch_size": 4}


@pytest.mark.filterwarnings("default")
def test_two_processes_train_as_the_summed_loss_does_in_one(tmp_path: Path) -> None:
    launch(train_in_two, tmp_path)
    expected = trained(made(adapters="mss"), Summed(Sandwich(0)), **IN_TWO)
    for rank in range(WORLD):
        found = load_file(tmp_path / f"model-{rank}.safetensors")["weights"]
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
