"""Exact scans of codes against BLAS in float32, faiss, usearch and sentence-transformers.

The vectors are of sentences of the docstrings and comments of the installed Python packages, by wordllama;
the queries are held out. Where more rows are asked for than there are sentences, rows are repeated with
noise. Every method uses one thread, and seconds are those of the processor. Recall is of the ten nearest in
float32.

Run: python benchmarks/bits/scan.py [--rows 200000 1000000] [--sentences 200000]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import time

import faiss
import numpy as np
from numpy.typing import NDArray

from certified import text_vectors
from nestling import kernels
from nestling.search.engine.engine import build
from nestling.search.exact.recall import Questions
from nestling.search.plan.plan import Point
from record import Results, arguments, in_turn, parsed, ratio, verdict

K, BATCH = 10, 100
BLAS = "numpy: float32 by BLAS"
SLOW, FAST = 5, 50  # single queries in a round
TARGETS = {"nestling: bits2@full": 6.0, "nestling: bits1:binary@full, shortlist 10": 20.0}
SHORTLISTS = (2, 4, 8, 16, 32)

Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]


@dataclass
class Method:
    """One search method: its bytes a vector, and the rows that it finds."""

    name: str
    row_bytes: float
    search: Search
    singles: int = SLOW


def vectors(rows: int, distinct: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors, and the queries that are held out."""
    texts = text_vectors(min(rows, distinct) + BATCH)
    documents, queries = texts[:-BATCH], texts[-BATCH:]
    if rows > len(documents):
        draw, dim = np.random.default_rng(0), documents.shape[1]
        documents = documents[np.arange(rows) % len(documents)]
        documents[len(texts) - BATCH :] += 0.3 / dim**0.5 * draw.normal(size=(rows - len(texts) + BATCH, dim))
        documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    return documents, queries


def by_blas(documents: NDArray[np.float32]) -> Search:
    def search(queries: NDArray[np.float32]) -> NDArray[np.int64]:
        found = []
        for start in range(
            0, len(queries), 20
        ):  # products of more would not fit into memory at a million rows
            scores = queries[start : start + 20] @ documents.T
            best = np.argpartition(scores, -K, axis=1)[:, -K:]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
            found.append(np.take_along_axis(best, order, 1))
        return np.concatenate(found)

    return search


def of_faiss(documents: NDArray[np.float32]) -> list[Method]:
    dim, found = documents.shape[1], []
    for name, kind in (("QT_8bit", 8), ("QT_4bit", 4)):
        index = faiss.IndexScalarQuantizer(
            dim, getattr(faiss.ScalarQuantizer, name), faiss.METRIC_INNER_PRODUCT
        )
        index.train(documents[:100_000])
        index.add(documents)
        found.append(
            Method(
                f"faiss: IndexScalarQuantizer {name}",
                dim * kind / 8,
                lambda q, index=index: index.search(q, K)[1],
            )
        )
    binary = faiss.IndexBinaryFlat(dim)
    binary.add(np.packbits(documents > 0, axis=1))
    found.append(
        Method("faiss: IndexBinaryFlat", dim / 8, lambda q: binary.search(np.packbits(q > 0, axis=1), K)[1])
    )
    return found


def of_usearch(documents: NDArray[np.float32]) -> list[Method]:
    if find_spec("usearch") is None:
        print("usearch: not measured: it is not installed")
        return []
    from usearch.index import MetricKind
    from usearch.index import search as scan

    dim, scale = documents.shape[1], 127 / np.abs(documents).max()
    forms: dict[str, tuple[Any, Callable[[Any], Any], float]] = {
        "b1": (MetricKind.Hamming, lambda x: np.packbits(x > 0, axis=1), dim / 8),
        "i8": (MetricKind.Cos, lambda x: np.rint(x * scale).astype(np.int8), dim),
    }
    methods = []
    for name, (metric, coded, size) in forms.items():
        held = coded(documents)

        def search(
            queries: Any, held: Any = held, coded: Any = coded, metric: Any = metric
        ) -> NDArray[np.int64]:
            found = scan(held, coded(queries), K, metric, exact=True, threads=1)
            return np.asarray(found.keys, np.int64).reshape(len(queries), -1)

        methods.append(Method(f"usearch: exact, {name}", size, search))
    return methods


def of_sentence_transformers(documents: NDArray[np.float32]) -> list[Method]:
    if find_spec("sentence_transformers") is None:
        print("sentence-transformers: not measured: it is not installed")
        return []
    try:
        from sentence_transformers.util.quantization import quantize_embeddings, semantic_search_faiss
    except ImportError:  # before 5.0
        from sentence_transformers.quantization import quantize_embeddings, semantic_search_faiss

    index = faiss.IndexBinaryFlat(documents.shape[1])
    index.add(quantize_embeddings(documents, precision="ubinary"))

    def search(queries: NDArray[np.float32], times: int) -> NDArray[np.int64]:
        options: dict[str, Any] = {"corpus_index": index, "corpus_precision": "ubinary", "top_k": K}
        hits = semantic_search_faiss(queries, **options, rescore=True, rescore_multiplier=times)[0]
        return np.array([[each["corpus_id"] for each in one] for one in hits])

    return [
        Method(
            f"sentence-transformers: ubinary, rescore_multiplier {times}",
            documents.shape[1] / 8,
            lambda q, times=times: search(q, times),
        )
        for times in SHORTLISTS
    ]


def ours(documents: NDArray[np.float32]) -> list[Method]:
    plans = [(f"bits{bits}@full", 0) for bits in (8, 4, 2, 1)]
    plans += [("bits2@full > rerank:bits8@full", 10 * K), ("bits1@full > rerank:bits8@full", 20 * K)]
    plans += [("bits1:binary@full > rerank:bits8@full", 40 * K)]
    plans += [("bits1:binary@full > rerank:bits1@full", times * K) for times in (1, *SHORTLISTS)]
    found = []
    for plan, shortlist in plans:
        engine = build(plan, documents)
        point = Point(shortlists=(shortlist,)) if shortlist else None
        name = plan.removesuffix(" > rerank:bits1@full")
        found.append(
            Method(
                f"nestling: {name}" + (f", shortlist {shortlist}" if shortlist else ""),
                engine.cost().bytes_stored / len(documents),
                lambda q, engine=engine, point=point: engine.search(q, K, point, workers=1).indices,
                FAST,
            )
        )
    return found


def compared(
    methods: list[Method], queries: NDArray[np.float32], rounds: int
) -> tuple[dict[str, list[float]], ...]:
    """Seconds a query of each method in each round: single queries, and a batch."""

    def one_by_one(method: Method) -> Callable[[], object]:
        return lambda: [method.search(queries[i : i + 1]) for i in range(method.singles)]

    single = in_turn({each.name: one_by_one(each) for each in methods}, rounds, clock=time.process_time)
    batch = in_turn(
        {each.name: lambda each=each: each.search(queries) for each in methods},
        rounds,
        clock=time.process_time,
    )
    count = {each.name: each.singles for each in methods}
    return (
        {name: [s / count[name] for s in taken] for name, taken in single.items()},
        {name: [s / len(queries) for s in taken] for name, taken in batch.items()},
    )


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--sentences", type=int, default=200_000, help="of which vectors are made")
    given = parsed(parser)
    results = Results("bits_scan", given.output, keys=("rows", "method"))
    faiss.omp_set_num_threads(1)
    for rows in [4_000] if given.quick else given.rows:
        documents, queries = vectors(rows, given.sentences)
        methods = [Method(BLAS, 4.0 * documents.shape[1], by_blas(documents))]
        for family in (ours, of_faiss, of_usearch, of_sentence_transformers):
            methods += family(documents)
        single, batch = compared(methods, queries, given.rounds)
        questions = Questions.ask(queries, documents, K)
        for method in methods:
            name, target = method.name, TARGETS.get(method.name)
            times, low, high = ratio(single, BLAS, name)
            results.add(
                {
                    "rows": len(documents),
                    "dim": documents.shape[1],
                    "method": name,
                    "bytes_per_row": round(method.row_bytes, 1),
                    "recall_at_10": round(float(questions.recalls(method.search(queries)).mean()), 4),
                    "single_ms": round(1e3 * min(single[name]), 3),
                    "times_blas": round(times, 2),
                    "times_lowest_round": round(low, 2),
                    "times_highest_round": round(high, 2),
                    "batch_ms": round(1e3 * min(batch[name]), 3),
                    "times_blas_batch": round(ratio(batch, BLAS, name)[0], 2),
                    "kernels": kernels.level(),
                    "verdict": ""
                    if target is None
                    else f"{verdict(times, target, at_most=False)} (>= {target:g}x)",
                }
            )
            print(*list(results.rows[-1].values())[:-1], sep="\t", flush=True)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
