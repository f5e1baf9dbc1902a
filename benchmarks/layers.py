"""Training cost of nesting in layers and dims, and the speed-up of fewer layers in use, with MiniLM.

Run: python benchmarks/layers.py   (one thread; the seconds are those of the processor)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from sentence_transformers.sentence_transformer import losses as stock
from torch import Tensor, nn

from nestling.encoders.text.encoder import TextEncoder
from nestling.granularity import Granularity, Nesting
from nestling.losses import AlignScores, GradientCache, InfoNCE, Nested
from nestling.losses.nested import Views
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import STS, Retrieval
from record import Ratios, apart, arguments, grown_megabytes, in_turn, parsed, ratio
from sentences import sentences

LAYERS, DIMS = (1, 2, 3, 4, 5, 6), (32, 64, 128, 192, 256, 384)
PAIRS, GRID = Nesting.pairs(layer=LAYERS, dim=DIMS), Nesting.grid(layer=LAYERS, dim=DIMS)
MEASURED = Nesting.grid(layer=LAYERS, dim=DIMS[1:])
FULL = Nesting((GRID.full,))
BATCH, LARGE_BATCH, CHUNK = 32, 1024, 32
Step = Callable[[], None]


def texts(count: int, seed: int, words: int = 24) -> list[str]:
    """Sentences of real texts; a few long ones would have all others of their batch padded."""
    return [" ".join(text.split()[:words]) for text in sentences(count, seed)]


def step_of(model: nn.Module, lose: Callable[[], Tensor]) -> Step:
    """Forward, backward and an optimiser that leaves the weights where they are."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0)

    def step() -> None:
        optimiser.zero_grad()
        lose().backward()
        optimiser.step()

    return step


def nested(nesting: Nesting) -> Nested:
    return Nested(InfoNCE(), nesting, align=AlignScores(), reduction="mean")


def our_step(nesting: Nesting | None, batch: int = BATCH, chunk: int | None = None) -> Step:
    """A step over pairs of texts: of the plain loss, or of one over a nesting."""
    model = TextEncoder.open("minilm", GRID).train()
    queries, documents = (texts(batch, seed, words=12 if chunk else 24) for seed in (0, 1))
    loss = InfoNCE() if nesting is None else nested(nesting)

    def encode(some: list[str]) -> Tensor | Views:
        return model(some) if nesting is None else model.views(some, nesting.rests)

    if chunk is not None:
        cached = GradientCache(encode, loss, chunk_size=chunk)
        return step_of(model, lambda: cached(queries, documents))
    return step_of(model, lambda: loss(encode(queries), encode(documents)))


def their_step(modifier: str | None, batch: int = BATCH) -> Step:
    model = TextEncoder.open("minilm").model.train()
    loss: nn.Module = stock.MultipleNegativesRankingLoss(model)
    if modifier is not None:
        loss = getattr(stock, modifier)(model, loss, list(reversed(DIMS)))
    columns = [texts(batch, 0), texts(batch, 1)]

    def lose() -> Tensor:
        found: Tensor = loss([model.preprocess(column) for column in columns], torch.zeros(0))
        return found

    return step_of(model, lose)


STEPS: Mapping[str, Nesting | None] = {"plain": None, "6 pairs": PAIRS, "6 x 6 grid": GRID}


def peak_megabytes(name: str, batch: int) -> float:
    """Growth of peak memory over two steps; run it in a separate process."""
    torch.set_num_threads(1)
    step = our_step(STEPS[name], batch)
    return grown_megabytes(lambda: [step() for _ in range(2)])


def encoding(rounds: int, count: int, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by the number of layers, of batches of short and long texts and of a repeated single one."""
    model = TextEncoder.open("minilm", GRID).eval()
    short = texts(count, 2)
    long = [" ".join(short[start : start + 8]) for start in range(0, count // 2, 8)]
    found = {}
    for name, some in (("short texts", short), ("long texts", long), ("one short text", short[:1])):
        times = repeats if len(some) == 1 else 1

        def encode(layer: int, some: list[str] = some, times: int = times) -> None:
            for _ in range(times):
                model.encode(some, Granularity(layer=layer, dim=DIMS[-1]))

        methods = {str(layer): partial(encode, layer) for layer in LAYERS}
        found[name] = in_turn(methods, rounds, clock=time.process_time)
    return found


def evaluating(rounds: int, count: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of measuring the whole grid and the full size alone, with scores that are the same."""
    model = TextEncoder.open("minilm", MEASURED).eval()
    first, second = texts(count // 2, 3), texts(count // 2, 4)
    scores = np.random.default_rng(0).random(len(first))
    documents = texts(count, 5)
    queries = [" ".join(text.split()[::2]) for text in documents[: count // 5]]
    found = {}
    for name, task in (
        ("similarity", STS(first, second, scores)),
        ("retrieval", Retrieval(queries, documents, range(len(queries)))),
    ):
        whole = {row.granularity: row.value for row in sweep(model, task, MEASURED).column()}
        for cell in (MEASURED.full, Granularity(layer=1, dim=64), Granularity(layer=3, dim=192)):
            alone = sweep(model.extract(cell), task, Nesting((cell,))).column()[0].value
            assert abs(alone - whole[cell]) < 1e-6, (name, cell, alone, whole[cell])
        methods = {"grid": partial(sweep, model, task, MEASURED), "full": partial(sweep, model, task, FULL)}
        found[name] = in_turn(methods, rounds, clock=time.process_time)
    return found


def main() -> None:
    given = parsed(arguments(__doc__, rounds=9))
    rounds, batch = given.rounds, 4 if given.quick else BATCH
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    found = Ratios("layers", given.output, digits=3)
    clock = time.process_time
    methods = {name: our_step(nesting, batch) for name, nesting in STEPS.items()}
    theirs = {name: their_step(name, batch) for name in ("MatryoshkaLoss", "Matryoshka2dLoss")}
    theirs["MultipleNegativesRankingLoss"] = their_step(None, batch)
    seconds = in_turn({**methods, **theirs}, rounds, clock=clock)
    found.add("step over 6 pairs over the plain step", ratio(seconds, "6 pairs", "plain"), at_most=1.05)
    over_grid = ratio(seconds, "6 x 6 grid", "plain")
    found.add("step over the 6 x 6 grid over the plain step", over_grid, at_most=1.05)
    for name in ("MatryoshkaLoss", "Matryoshka2dLoss"):
        theirs_over = ratio(seconds, name, "MultipleNegativesRankingLoss")
        found.add(f"{name} over MultipleNegativesRankingLoss", theirs_over)
    found.add("their plain step over ours", ratio(seconds, "MultipleNegativesRankingLoss", "plain"))
    memory = {name: apart(peak_megabytes, name, batch) for name in STEPS}
    for name in ("6 pairs", "6 x 6 grid"):
        found.add(f"peak memory, {name} over plain", (memory[name] / memory["plain"],) * 3, at_most=1.1)
    for name, by_layer in encoding(rounds, *((16, 3) if given.quick else (512, 30))).items():
        for layer in LAYERS[:-1]:
            what = f"speed-up of {layer} of {LAYERS[-1]} layers over {LAYERS[-1]}/{layer}, {name}"
            share = layer / LAYERS[-1]
            value, low, high = (share * each for each in ratio(by_layer, str(LAYERS[-1]), str(layer)))
            found.add(what, (value, low, high), at_least=0.85)
    for name, both in (evaluating(1, 20) if given.quick else evaluating(max(3, rounds // 3), 1_000)).items():
        over_full = ratio(both, "grid", "full")
        found.add(f"{name}: the 6 x 5 grid over the full size alone", over_full, at_most=1.25)
    if given.quick:
        return
    large = {name: our_step(nesting, LARGE_BATCH, CHUNK) for name, nesting in STEPS.items()}
    seconds = in_turn(large, max(2, rounds // 4), clock=clock)
    for name in ("6 pairs", "6 x 6 grid"):
        what = f"batch of {LARGE_BATCH} in chunks, {name} over plain"
        found.add(what, ratio(seconds, name, "plain"), at_most=1.1)


if __name__ == "__main__":
    main()
