"""Cranfield by the token vectors of MiniLM and MaxSim: tokens a document against nDCG@10.

Documents keep n of their token vectors by pooling (clusters of similar vectors, means of equal runs) or by
choice (the first, evenly spaced, at random); queries keep all. MiniLM was trained for one vector a text,
and nothing is trained here. Differences are to its own single vector of a text.

Run: NESTLING_DATA=<folder> python benchmarks/tokens/late_interaction.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from nestling.cut import CutRule, cut
from nestling.data import cranfield
from nestling.encoders.text import TextEncoder, TokenEncoder
from nestling.granularity import Granularity, Nesting
from nestling.measure.bootstrap import Resampled
from nestling.measure.tasks.scores import MeanScores
from nestling.measure.tasks.tasks import Retrieval
from nestling.nn.tokens import BudgetPool, Tokens
from nestling.vectors.token_vectors import TokenVectors
from record import Results, arguments, parsed

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
K, SEED, CONFIDENCE, RESAMPLES = 10, 0, 0.95, 1000
ONE = "one vector"
POOLS = {"clusters": "cluster", "means of runs": "mean", "evenly spaced": "stride"}


@dataclass(frozen=True)
class Measured:
    """A method at a number of tokens: nDCG@10 of every query, and tokens and bytes of a document."""

    method: str
    tokens: int
    mean_tokens: float
    size_bytes: int
    values: np.ndarray


def chosen(documents: TokenVectors, method: str, size: int) -> TokenVectors:
    """Documents that keep the first vectors, or random ones; those of a smaller size are among them."""
    rng = np.random.default_rng(SEED)
    orders = [np.arange(n) if method == "the first" else rng.permutation(n) for n in documents.counts]
    kept = zip(documents.items(), orders, strict=True)
    return TokenVectors.of(x[np.sort(order[:size])] for x, order in kept)


def pooled(documents: TokenVectors, mode: Any) -> dict[int, TokenVectors]:
    """Documents pooled to every size, from one hierarchy each."""
    pool = BudgetPool(documents.shape[1], SIZES, mode=mode)
    found: dict[int, list[np.ndarray]] = {size: [] for size in SIZES}
    for x in documents.items():
        for g, tokens in pool.forward_each(Tokens(torch.from_numpy(x)[None])).items():
            found[g["tokens"]].append(tokens.values[0].numpy())
    return {size: TokenVectors.of(items) for size, items in found.items()}


def late(task: Retrieval, documents: TokenVectors, method: str, size: int) -> Measured:
    held = TokenVectors(cut(documents.values, documents.shape[1]), documents.starts)
    scores = task.score({"queries": task.queries, "documents": held}, [held.shape[1]], CutRule())
    mean = float(held.counts.mean())
    return Measured(method, size, mean, round(4 * mean * held.shape[1]), scores.values[0, :, 0])


def measured(quick: bool) -> Iterator[Measured]:
    texts = Retrieval.from_data(cranfield(), k=K, measures=["ndcg"])
    if quick:
        texts = Retrieval(texts.queries[:20], texts.documents[:80], [[i] for i in range(20)], K, ["ndcg"])
    encoder = TextEncoder.open("minilm", [384])
    vectors = texts.with_inputs({name: encoder.encode(x) for name, x in texts.inputs.items()})
    plain = vectors.score(vectors.inputs, [384], encoder.rule)
    yield Measured(ONE, 1, 1.0, 4 * 384, plain.values[0, :, 0])
    tokens = TokenEncoder(encoder.model, Nesting.chain(tokens=[SIZES[-1]]))
    task = texts.with_inputs({"queries": tokens.queries.encode(texts.queries), "documents": texts.documents})
    documents = tokens.encode(texts.documents)
    for method, mode in POOLS.items():
        for size, held in pooled(documents, mode).items():
            yield late(task, held, method, size)
    for method in ("the first", "random"):
        for size in SIZES:
            yield late(task, chosen(documents, method, size), method, size)


def main() -> None:
    """Measure every method at every size, and write the results."""
    given = parsed(arguments(__doc__))
    found = list(measured(given.quick))
    nesting = [Granularity(tokens=i + 1) for i in range(len(found))]
    drawn = Resampled.of(MeanScores([each.values[:, None] for each in found], ["ndcg@10"]), RESAMPLES, SEED)
    estimate = drawn.estimate(len(nesting) - 1, CONFIDENCE)
    first = drawn.at([0] * len(found))
    gains = drawn.at(range(len(found))).minus(first, CONFIDENCE)
    results = Results("late_interaction", given.output)
    for i, each in enumerate(found):
        value, low, high = (float(table[i, 0]) for table in (estimate.value, estimate.low, estimate.high))
        gain, gain_low, gain_high = (float(table[i, 0]) for table in gains)
        results.add(
            {
                "method": each.method, "tokens": each.tokens, "mean_tokens": round(each.mean_tokens, 2),
                "bytes": each.size_bytes, "ndcg@10": round(value, 4), "low": round(low, 4),
                "high": round(high, 4), "over_one_vector": round(gain, 4), "over_low": round(gain_low, 4),
                "over_high": round(gain_high, 4), "queries": len(each.values), "seed": SEED,
            }
        )  # fmt: skip
        print(f"{each.method:20} {each.tokens:4} {each.size_bytes:8} {value:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
