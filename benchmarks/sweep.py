"""Time of a sweep over 8 sizes against one exact evaluation, and against evaluating size by size.

The sweep over 8 even sizes and 5 precisions (claim B5) is timed on given vectors, where scoring is all
there is to do, and with two encoders of texts: static embeddings, and a transformer. In codes of 1 bit,
many vectors of a few dims are equal, and exact search takes long to tell that they are.

Run: python benchmarks/sweep.py
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace

import faiss
import numpy as np
import torch
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.util import cos_sim

from nestling import TextEncoder
from nestling.data import docstring_pairs
from nestling.granularity import Nesting
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import Retrieval
from nestling.search.exact.neighbours import nearest, nearest_each
from record import Ratios, arguments, in_turn, parsed, ratio

DOCUMENTS, QUERIES, DIM, K = 50_000, 2_000, 384, 10
EIGHT = Nesting.doubling(3, DIM)
EVEN = Nesting.parse(f"dim=48..{DIM}+48")
FULL = Nesting.chain(dim=[DIM])
FIVE = (1, 2, 4, 8, 32)
ENCODERS, TEXTS = ("wordllama", "minilm"), 2_000
EVALUATOR = "InformationRetrievalEvaluator size by size"


def vectors(quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """Queries near the first documents, and documents whose energy falls along the entries."""
    documents, queries = (2_000, 200) if quick else (DOCUMENTS, QUERIES)
    rng = np.random.default_rng(0)
    energy = np.linspace(2, 0.5, DIM, dtype=np.float32)
    found = rng.standard_normal((documents, DIM), dtype=np.float32) * energy
    noise = rng.standard_normal((queries, DIM), dtype=np.float32) * energy
    return found[:queries] + 1.5 * noise, found


def of_texts(name: str, quick: bool) -> dict[str, Callable[[], object]]:
    """One evaluation of an encoder, and its sweep over 8 sizes and 5 precisions."""
    _, _, test = docstring_pairs().split(seed=0)
    task = Retrieval.from_pairs(test.head(100 if quick else TEXTS), k=K)
    encoder = TextEncoder.open(name)
    full = encoder.nesting.full["dim"]
    return {
        f"{name}: evaluation at full size": lambda: sweep(encoder, task, [full], truncation=False),
        f"{name}: sweep, 5 precisions": lambda: sweep(
            encoder, task, f"dim={full // 8}..{full}+{full // 8}", bits=FIVE, truncation=False
        ),
    }


class Stored:
    """Stands for an encoder of sentence-transformers whose vectors are there already."""

    model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_: None)

    def __init__(self, queries: np.ndarray, documents: np.ndarray) -> None:
        self.vectors = {"q": torch.from_numpy(queries), "d": torch.from_numpy(documents)}

    def encode(self, texts: list[str], *, truncate_dim: int, **_: object) -> torch.Tensor:
        """All rows of a kind, as all are asked for; copying them would only add to its time."""
        return self.vectors[texts[0][0]][:, :truncate_dim]

    encode_query = encode_document = encode


def theirs(queries: np.ndarray, documents: np.ndarray) -> Callable[[], dict[int, float]]:
    model = Stored(queries, documents)
    asked = {f"q{i}": f"q{i}" for i in range(len(queries))}
    corpus = {f"d{i}": f"d{i}" for i in range(len(documents))}
    relevant = {f"q{i}": {f"d{i}"} for i in range(len(queries))}

    def evaluate() -> dict[int, float]:
        found = {}
        for dim in EIGHT.sizes("dim"):
            evaluator = InformationRetrievalEvaluator(
                asked, corpus, relevant,
                mrr_at_k=[K], ndcg_at_k=[K], accuracy_at_k=[K], precision_recall_at_k=[K], map_at_k=[K],
                score_functions={"cosine": cos_sim}, truncate_dim=dim, write_csv=False,
            )  # fmt: skip
            found[dim] = evaluator(model)[f"cosine_ndcg@{K}"]
        return found

    return evaluate


def main() -> None:
    given = parsed(arguments(__doc__, rounds=7))
    logging.disable(logging.INFO)
    queries, documents = vectors(given.quick)
    task = Retrieval(queries, documents, range(len(queries)), k=K)
    index = faiss.IndexFlatIP(DIM)
    unit = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    index.add(unit)
    unit_queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)

    def measured(nesting: Nesting, bits: tuple[int, ...] | None = None) -> Callable[[], object]:
        return lambda: sweep(lambda x: x, task, nesting, bits=bits)

    size_by_size = theirs(queries, documents)
    expected = size_by_size()
    for row in sweep(lambda x: x, task, EIGHT).column():
        assert abs(row.value - expected[row.granularity["dim"]]) < 1e-3, row
    methods = {
        "evaluation at full size": measured(FULL),
        "sweep": measured(EIGHT),
        "sweep, even sizes": measured(EVEN),
        "sweep, 5 precisions": measured(EVEN, FIVE),
        "search at full size": lambda: nearest(queries, documents, K),
        "search at 8 sizes": lambda: nearest_each(queries, documents, EIGHT.sizes("dim"), K),
        "faiss at full size": lambda: index.search(unit_queries, K),
        "evaluation size by size": lambda: [measured(Nesting.chain(dim=[d]))() for d in EIGHT.sizes("dim")],
        EVALUATOR: size_by_size,
    }
    for name in ENCODERS:
        methods |= of_texts(name, given.quick)
    seconds = in_turn(methods, given.rounds)
    found = Ratios("sweep", given.output)
    full = "evaluation at full size"
    for what, method, over, target in (
        ("sweep of 8 sizes over one evaluation at full size", "sweep", full, {"at_most": 1.6}),
        ("the same, sizes every 48", "sweep, even sizes", full, {"at_most": 1.6}),
        ("search alone, 8 sizes over 1", "search at 8 sizes", "search at full size", {"at_most": 1.6}),
        (
            "faiss over our search, both at full size",
            "faiss at full size",
            "search at full size",
            {"at_least": 1.0},
        ),
        ("our evaluation size by size over the sweep", "evaluation size by size", "sweep", {"at_least": 1.0}),
        (
            "InformationRetrievalEvaluator size by size over the sweep",
            EVALUATOR,
            "sweep",
            {"at_least": 4.0},
        ),
    ):
        found.add(what, ratio(seconds, method, over), **target)
    precisions = "8 even sizes x 5 precisions over one float32 evaluation at full size"
    found.add(f"{precisions}, given vectors", ratio(seconds, "sweep, 5 precisions", full), at_most=3)
    for name in ENCODERS:
        each = ratio(seconds, f"{name}: sweep, 5 precisions", f"{name}: evaluation at full size")
        found.add(f"{precisions}, texts encoded by {name}", each, at_most=3)
    for name, each in seconds.items():
        print(f"{name:58} {np.median(each):6.2f} s")


if __name__ == "__main__":
    main()
