"""Training for few bits beside the same training for floats, whose codes are made afterwards (claim B4).

An adapter on static or MiniLM vectors is trained on pairs (docstrings; first sentences and rest of the
Cranfield abstracts) or scored pairs (STS-B) at every size, with and without codes in the loss. Then all get
a code that is calibrated on the training documents. Queries stay floats unless the method codes them too.

Run: python benchmarks/bits/training.py [--data docstrings] [--methods codes] [--seeds 0 1 2]
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from nestling import Nesting, PCARotation, TextEncoder
from nestling.cut import RAW, CutRule, cut
from nestling.data import cranfield, docstring_pairs
from nestling.data.sets.sts import stsb
from nestling.losses import AlignScores, CoSENT, InfoNCE, Nested, Parts, Quantisation
from nestling.measure import STS, Retrieval
from nestling.nn.adapter import Adapter
from nestling.training import TrainConfig, fit
from record import Results, arguments, parsed

BITS, DIMS = (1, 2, 4, 8, 32), (32, 64, 128, 256, 384)
PAIRS, SEEDS = 15_000, 3
CACHE = Path(tempfile.gettempdir()) / "nestling-benchmarks"
Floats = np.ndarray


@dataclass(frozen=True)
class Method:
    """A method of training an adapter, and how codes are made when it is compared.

    Args:
        bits: in the loss.
        start: share of the steps before codes enter it.
        both_sides: queries in codes too, in the loss and when compared.
        learn_ranges: as in :class:`Quantisation`.
        distil: scores at every size and precision follow those of the full floats.
    """

    bits: tuple[int, ...] = BITS
    start: float = 0.0
    both_sides: bool = False
    learn_ranges: bool = False
    distil: bool = False

    def loss(self, base: Any, sizes: Nesting, steps: int) -> Nested:
        """The nested loss of so many training steps."""
        nesting = sizes.times(bits=self.bits) if self.bits else sizes
        how = Quantisation(self.both_sides, round(self.start * steps), self.learn_ranges)
        align = AlignScores() if self.distil else None
        return Nested(base, nesting, align=align, quantisation=how)


METHODS = {
    "floats": Method(bits=()),
    "codes": Method(),
    "codes of 1 bit": Method(bits=(1, 32)),
    "codes after 30 % of the steps": Method(start=0.3),
    "codes with learned ranges": Method(learn_ranges=True),
    "codes distilled from floats": Method(distil=True),
    "floats, queries coded too": Method(bits=(), both_sides=True),
    "codes, queries coded too": Method(both_sides=True),
}


@dataclass(frozen=True)
class Problem:
    """Training vectors, and a task on others.

    Args:
        rows: ``first`` and ``second`` vectors, and other arguments of the loss, by name.
        base: the loss at one size.
        tested: vectors of the task's inputs by name, queries or first sentences first.
        task: the evaluation task.
        config: of the training.
    """

    rows: dict[str, Floats]
    base: nn.Module
    tested: dict[str, Floats]
    task: Any
    config: TrainConfig


class Objective(nn.Module):
    """The nested loss of rows that an adapter maps."""

    def __init__(self, loss: Nested) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> Parts:
        rest = {name: values for name, values in batch.items() if name not in ("first", "second")}
        return self.loss.parts(model(batch["first"]), model(batch["second"]), **rest)


def trained(problem: Problem, method: Method, seed: int) -> tuple[Adapter, CutRule]:
    """The adapter, from the principal axes on, and the rule of its vectors with a code."""
    first, second = problem.rows["first"], problem.rows["second"]
    sizes = Nesting.doubling(16, first.shape[1])
    adapter = Adapter(sizes, first.shape[1])
    axes = PCARotation([first.shape[1]]).fit(np.concatenate([first, second])).components_
    adapter.load_state_dict({"linear.weight": torch.from_numpy(axes).float()})
    config = replace(problem.config, seed=seed)
    loss = method.loss(problem.base, sizes, config.epochs * (len(first) // config.batch_size))
    rows = {name: torch.from_numpy(values) for name, values in problem.rows.items()}
    fit(adapter, Objective(loss), rows, config)
    return adapter, loss.calibrated(CutRule(), mapped(adapter, second))


@torch.no_grad()
def mapped(adapter: Adapter, x: Floats) -> Floats:
    return adapter(torch.from_numpy(x)).numpy()


def values(
    problem: Problem, method: Method, adapter: Adapter, rule: CutRule
) -> Iterator[tuple[int, int, float]]:
    """(dim, bits, quality) at every size and precision."""
    (first, x), (second, y) = ((name, mapped(adapter, each)) for name, each in problem.tested.items())
    for dim in (dim for dim in DIMS if dim <= x.shape[1]):
        for bits in BITS:
            left = cut(x, dim, rule, bits=bits if method.both_sides else 32)
            held = {first: left, second: cut(y, dim, rule, bits=bits)}
            scores = problem.task.score(held, [dim], RAW)
            yield dim, bits, float(scores.statistic(np.ones((1, sum(scores.groups))))[0, 0, 0])


def encoded(encoder: TextEncoder, texts: Sequence[str], cache: Path, name: str) -> Floats:
    path = cache / f"{name}-{len(texts)}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, encoder.encode(texts))
    return np.load(path)


def docstrings(cache: Path, quick: bool) -> Problem:
    """Names and signatures look for their descriptions; static vectors, as in the demo."""
    encoder = TextEncoder.open("wordllama")
    training, _, test = docstring_pairs(limit=2_000 if quick else PAIRS).split(seed=0)
    sides = (training.queries, training.documents, test.queries, test.documents)
    q, d, x, y = (encoded(encoder, texts, cache, f"b4-{n}") for n, texts in enumerate(sides))
    ids = np.unique(training.documents, return_inverse=True)[1]
    rows = {"first": q, "second": d, "ids": ids.astype(np.int64)}
    task = Retrieval.from_vectors(x, y, measures="ndcg")
    config = TrainConfig(epochs=6, batch_size=256 if quick else 512, lr=3e-3)
    return Problem(rows, InfoNCE(0.05), dict(task.inputs), task, config)


def text_model(quick: bool) -> TextEncoder:
    """MiniLM, whose vectors take minutes; static vectors in a quick run."""
    return TextEncoder.open("wordllama" if quick else "minilm")


def abstracts(cache: Path, quick: bool) -> Problem:
    """Questions look for abstracts of Cranfield; trained on their first sentences and the rest."""
    encoder, data = text_model(quick), cranfield()
    halves = [re.split(r" \. ", text, maxsplit=1) for text in data.documents.values()]
    pairs = [(first, rest) for first, *more in halves for rest in more if first.strip() and rest.strip()]
    task = Retrieval.from_data(data, measures="ndcg")
    sides = (*zip(*pairs, strict=True), task.queries, task.documents)
    q, d, x, y = (encoded(encoder, texts, cache, f"b4-cranfield-{n}") for n, texts in enumerate(sides))
    config = TrainConfig(epochs=2 if quick else 12, batch_size=256, lr=1e-3)
    rows = {"first": q, "second": d}
    return Problem(rows, InfoNCE(0.05), {"queries": x, "documents": y}, task, config)


def sentences(cache: Path, quick: bool) -> Problem:
    """Similarities of sentences as people score them (STS-B)."""
    encoder, (training, test) = text_model(quick), (stsb("train"), stsb("test"))
    sides = (training.first, training.second, test.first, test.second)
    q, d, x, y = (encoded(encoder, texts, cache, f"b4-sts-{n}") for n, texts in enumerate(sides))
    rows = {"first": q, "second": d, "scores": training.scores.astype(np.float32)}
    config = TrainConfig(epochs=1 if quick else 6, batch_size=256, lr=1e-3)
    return Problem(rows, CoSENT(), {"first": x, "second": y}, STS(x, y, test.scores), config)


PROBLEMS = {"docstrings": docstrings, "Cranfield": abstracts, "STS-B": sentences}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", nargs="+", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(SEEDS)))
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for vectors (%(default)s)")
    given = parsed(parser)
    results = Results("bits_training", given.output, keys=("data", "method", "seed"), order=place)
    cache = given.cache / "quick" if given.quick else given.cache
    for data in given.data:
        problem = PROBLEMS[data](cache, given.quick)
        for seed in given.seeds[: 1 if given.quick else None]:
            for name in given.methods:
                start = time.process_time()
                adapter, rule = trained(problem, METHODS[name], seed)
                seconds = f"{time.process_time() - start:.1f}"
                found = list(values(problem, METHODS[name], adapter, rule))
                about = {"data": data, "method": name, "seed": seed}
                measure = {"metric": problem.task.metrics[0], "seconds": seconds}
                results.add(
                    *(
                        {**about, "dim": dim, "bits": bits, "value": f"{value:.4f}", **measure}
                        for dim, bits, value in found
                    )
                )
                line = " ".join(f"{dim}x{bits} {100 * value:.2f}" for dim, bits, value in found)
                print(f"{data} {name}, seed {seed} ({seconds} s): {line}", flush=True)


def place(row: dict[str, object]) -> tuple[int, ...]:
    """Of a row in the results."""
    names = (list(PROBLEMS).index(str(row["data"])), list(METHODS).index(str(row["method"])))
    return (*names, *(int(str(row[name])) for name in ("seed", "dim", "bits")))


if __name__ == "__main__":
    main()
