"""Memory and time of a training step over all numbers of tokens of a model with the shape of LLaVA.

A frozen encoder of 576 patches, a projector and a small Llama, all with random weights. A step trains at 1,
9, 36, 144 and 576 tokens. Memory is the growth of peak resident memory over two steps of ``fit``, in a
separate process for each method: activations, gradients and moments, but not the weights. Freed blocks go
back to the system at once, so the figure counts living tensors only.

Run: python benchmarks/tokens/step.py   (one thread; the seconds are those of the processor)
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))

from nestling.granularity import Granularity, Nesting
from nestling.losses import OneEncoding, Parts
from nestling.nn.tokens import GridPool, Tokens
from nestling.training import TrainConfig, fit
from record import Ratios, arguments, grown_megabytes, in_turn, parsed, ratio

SIDE, PATCH, TEXT = 24, 48, 32
SCALES = Nesting.parse("tokens=1,9,36,144,576")
LARGEST = Nesting((SCALES.full,))
ALONE, TURN, SUMMED = "largest scale alone", "in turn", "summed"
REFERENCE = "summed, encoding for each scale"
Batch = dict[str, Tensor]
Losses = Callable[[Any, Batch], Iterable[Parts]]


@dataclass(frozen=True)
class Shape:
    """Sizes of the model."""

    width: int = 256
    layers: int = 6
    vocabulary: int = 2048
    batch: int = 8


SMALL = Shape(width=64, layers=2, vocabulary=64, batch=1)


class Llava(nn.Module):
    """A frozen encoder, a projector, pooling of the grid and a language model."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, 0.0, batch_first=True, norm_first=True)
        self.embed = nn.Linear(PATCH, width)
        self.encoder = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
        for part in (self.embed, self.encoder):
            part.requires_grad_(False).eval()
        self.projector = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.pool = GridPool((SIDE, SIDE), SCALES, width)
        config = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=width,
            intermediate_size=width * 8 // 3,
            num_hidden_layers=shape.layers,
            num_attention_heads=8,
            num_key_value_heads=8,
        )
        self.language = LlamaForCausalLM(config)

    def encode(self, batch: Batch) -> Tokens:
        with torch.no_grad():
            hidden = self.encoder(self.embed(batch["patches"]))
        return Tokens(self.projector(hidden), None, (SIDE, SIDE))

    def loss(self, features: Tokens, batch: Batch, at: Granularity) -> Tensor:
        tokens = self.pool(features, at=at).values
        text = batch["text"]
        inputs = torch.cat([tokens, self.language.get_input_embeddings()(text)], dim=1)
        labels = torch.cat([text.new_full(tokens.shape[:2], -100), text], dim=1)
        return self.language(inputs_embeds=inputs, labels=labels, use_cache=False).loss


def in_turn_over(nesting: Nesting) -> Losses:
    return OneEncoding(
        Llava.encode, lambda model, features, batch, at: model.loss(features, batch, at), nesting
    )


def summed(model: Llava, batch: Batch) -> Iterable[Parts]:
    features = model.encode(batch)
    yield Parts(torch.stack([model.loss(features, batch, at) for at in SCALES]).sum(), {})


def reference(model: Llava, batch: Batch) -> Iterable[Parts]:
    """As the published code of M3 does."""
    yield Parts(torch.stack([model.loss(model.encode(batch), batch, at) for at in SCALES]).sum(), {})


METHODS: dict[str, Losses] = {
    ALONE: in_turn_over(LARGEST),
    TURN: in_turn_over(SCALES),
    SUMMED: summed,
    REFERENCE: reference,
}


def setting(shape: Shape) -> tuple[Llava, Batch]:
    torch.manual_seed(0)
    model = Llava(shape)
    patches = torch.randn(shape.batch, SIDE * SIDE, PATCH)
    return model, {"patches": patches, "text": torch.randint(shape.vocabulary, (shape.batch, TEXT))}


def step_of(losses: Losses, model: Llava, batch: Batch) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad(set_to_none=True)
        pieces = iter(losses(model, batch))
        while _back(pieces):
            pass

    return step


def _back(pieces: Any) -> bool:
    """As the training loop does: no name keeps the graph of a loss."""
    part = next(pieces, None)
    if part is not None:
        part.total.backward()
    return part is not None


def parts_of_a_step(model: Llava, batch: Batch) -> dict[str, Callable[[], None]]:
    """The language model at each scale, from features that are computed already, and one encoding."""
    with torch.no_grad():
        values = model.encode(batch).values

    def encoding() -> None:
        model.zero_grad(set_to_none=True)
        model.encode(batch).values.backward(torch.ones_like(values))

    def at_scale(at: Granularity) -> Callable[[], None]:
        def act() -> None:
            model.zero_grad(set_to_none=True)
            leaf = values.detach().requires_grad_()
            model.loss(Tokens(leaf, None, (SIDE, SIDE)), batch, at).backward()

        return act

    return {"encoding": encoding, **{str(at): at_scale(at) for at in SCALES}}


def peak_megabytes(method: str, shape: Shape) -> float:
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)  # freed tensors leave the process, as on a GPU
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_grow, (method, shape))


def _grow(method: str, shape: Shape) -> float:
    torch.set_num_threads(1)

    def trainer(shape: Shape) -> Callable[[], object]:
        model, batch = setting(shape)
        config = TrainConfig(batch_size=shape.batch, epochs=2)
        return lambda: fit(model, METHODS[method], batch, config)

    trainer(SMALL)()  # what the libraries allocate at first use
    return grown_megabytes(trainer(shape))


def add_memory(found: Ratios, shape: Shape, rounds: int) -> None:
    peaks = {method: [peak_megabytes(method, shape) for _ in range(rounds)] for method in METHODS}
    for method, target in ((TURN, 1.25), (SUMMED, None), (REFERENCE, None)):
        found.add(
            f"peak memory, 5 scales {method}, over {ALONE}", ratio(peaks, method, ALONE), at_most=target
        )
    for method, each in peaks.items():
        print(f"  {method}: {min(each):.0f} to {max(each):.0f} MB")


def add_time(found: Ratios, shape: Shape, rounds: int) -> None:
    torch.set_num_threads(1)
    model, batch = setting(shape)
    parts = parts_of_a_step(model, batch)
    steps = {name: step_of(losses, model, batch) for name, losses in METHODS.items()}
    seconds = in_turn({**parts, **steps}, rounds, clock=time.process_time)
    parts_together = "its parts"
    seconds[parts_together] = [sum(each) for each in zip(*(seconds[name] for name in parts), strict=True)]
    for method, target in ((TURN, 1.0), (SUMMED, None), (REFERENCE, None)):
        figures = ratio(seconds, method, parts_together)
        found.add(f"step time, 5 scales {method}, over {parts_together}", figures, at_most=target)
    found.add(f"step time, 5 scales {TURN}, over {ALONE}", ratio(seconds, TURN, ALONE))
    print("  " + ", ".join(f"{name} {min(each):.3f} s" for name, each in seconds.items()))


def main() -> None:
    given = parsed(arguments(__doc__, rounds=5))
    shape = SMALL if given.quick else Shape()
    found = Ratios("tokens_step", given.output)
    add_memory(found, shape, max(1, given.rounds // 2))
    add_time(found, shape, given.rounds)


if __name__ == "__main__":
    main()
