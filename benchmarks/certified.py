"""Certified search against faiss's flat index: single queries and batches, exact and at confidence 0.9999.

The vectors are of sentences of the docstrings and comments of the installed Python packages, by wordllama;
the queries are held out. Every method uses one thread, and seconds are those of the processor. faiss compares
single queries with its own kernels (its default) and batches through BLAS, which its present releases leave
off by default.

Run: python benchmarks/certified.py [--rows 200000]
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import faiss
import numpy as np

from nestling import kernels
from nestling.encoders.text.encoder import TextEncoder
from nestling.search.certified.scan import Certificate, CertifiedNeighbours, CertifiedScan
from nestling.search.exact.recall import Questions
from record import Results, arguments, in_turn, parsed, ratio, verdict
from sentences import sentences

K, BATCH, SINGLES, FLAT_SINGLES = 10, 100, 100, 10
LIKELY = 0.9999
TARGETS = {"exact, single": 6.0, "likely, single": 10.0, "exact, batch": 2.5}


def text_vectors(count: int) -> np.ndarray:
    """Vectors of that many distinct sentences, kept for the next run."""
    kept = Path(tempfile.gettempdir()) / f"nestling-sentences-{count}.npy"
    if not kept.is_file():
        np.save(kept, TextEncoder.open("wordllama").encode(sentences(count), batch_size=4096))
    return np.load(kept, allow_pickle=False)


def flat(index: faiss.Index, queries: np.ndarray, *, blas: bool) -> np.ndarray:
    faiss.cvar.distance_compute_blas_threshold = 20 if blas else 128_000
    return index.search(queries, K)[1]


def one_by_one(search: Callable[[np.ndarray], object], queries: np.ndarray) -> Callable[[], object]:
    return lambda: [search(queries[i : i + 1]) for i in range(len(queries))]


def bandwidth(megabytes: int = 256) -> float:
    """Bytes a second that one thread reads from memory, the best of a few."""
    block = np.ones(megabytes << 17, np.float64)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        block.sum()
        seconds.append(time.process_time() - start)
    return block.nbytes / min(seconds)


def bytes_read(documents: np.ndarray, many: Certificate, few: Certificate, how: str) -> float:
    """Bytes of codes and vectors that one query reads; a batch reads all codes once for all of it."""
    rows, dim = documents.shape
    half, vector = dim / 4 + 8, 4 * dim + 8
    if how == "batch":
        return 2 * half * rows / BATCH + many.verified.mean() * vector
    return half * (rows + few.refined.mean()) + few.verified.mean() * vector


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--rows", type=int, default=200_000)
    given = parsed(parser)
    count = 5_000 if given.quick else given.rows
    faiss.omp_set_num_threads(1)
    vectors = text_vectors(count + 1_000)
    documents, queries = vectors[:count], vectors[count:]

    start = time.process_time()
    scan = CertifiedScan.build(documents)
    build_s = time.process_time() - start
    index = faiss.IndexFlatIP(documents.shape[1])
    index.add(documents)

    def certified(some: np.ndarray, confidence: float = 1.0) -> CertifiedNeighbours:
        return scan.search(some, K, confidence=confidence, workers=1)

    methods = {
        "faiss flat, single": one_by_one(lambda q: flat(index, q, blas=False), queries[:FLAT_SINGLES]),
        "exact, single": one_by_one(certified, queries[:SINGLES]),
        "likely, single": one_by_one(lambda q: certified(q, LIKELY), queries[:SINGLES]),
        "faiss flat, batch": lambda: flat(index, queries[:BATCH], blas=True),
        "exact, batch": lambda: certified(queries[:BATCH]),
        "likely, batch": lambda: certified(queries[:BATCH], LIKELY),
    }
    asked = {"faiss flat, single": FLAT_SINGLES}
    seconds = in_turn(methods, given.rounds, clock=time.process_time)
    each = {name: [s / asked.get(name, 100) for s in taken] for name, taken in seconds.items()}

    truth, questions = scan.search(queries, K), Questions.ask(queries, documents, K)
    likely = scan.search(queries, K, confidence=LIKELY)
    found = {"exact": truth, "likely": likely, "faiss flat": None}
    # Fewer queries than a batch are answered as single ones are.
    singles = {"exact": certified(queries[:4]), "likely": certified(queries[:4], LIKELY)}
    limit, results = bandwidth(), Results("certified", given.output)
    for name, taken in each.items():
        kind, how = name.split(", ")
        answers = found[kind]
        read = documents.nbytes
        if answers is not None:
            read = bytes_read(documents, answers.certificate, singles[kind].certificate, how)
        times, low, high = ratio(each, f"faiss flat, {how}", name)
        recall = 1.0 if answers is None else questions.recalls(answers.indices).mean()
        target = TARGETS.get(name)
        results.add(
            {
                "method": name,
                "rows": len(documents),
                "dim": documents.shape[1],
                "queries_per_second": round(1 / min(taken), 1),
                "times_faiss_flat": round(times, 2),
                "times_lowest_round": round(low, 2),
                "times_highest_round": round(high, 2),
                "recall_at_10": round(float(recall), 5),
                "megabytes_read_per_query": round(read / 1e6, 2),
                "share_of_bandwidth": round(read / min(taken) / limit, 2) if how == "single" else "",
                "build_s": round(build_s, 2) if answers is not None else "",
                "code_bytes_per_row": scan.cost().output_bytes if answers is not None else "",
                "kernels": kernels.level(),
                "verdict": ""
                if target is None
                else verdict(times, target, at_most=False) + f" (>= {target}x)",
            }
        )
        print(*results.rows[-1].values(), sep="\t")
    print(f"read from memory: {limit / 1e9:.1f} GB/s; load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
