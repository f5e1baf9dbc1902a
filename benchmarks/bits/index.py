"""Indexes that keep codes beside one of floats: bytes on the disk and in memory, recall, latency.

The vectors are of sentences of the docstrings and comments of the installed Python packages, by wordllama;
the queries are held out. Each index is a folder as ``AdaptiveIndex.create`` writes it, with ids. Searches use
one thread, and seconds are those of the processor. Recall is of the ten nearest among the floats.

Run: python benchmarks/bits/index.py [--rows 100000]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from certified import text_vectors
from nestling.search import AdaptiveIndex
from nestling.search.exact.recall import Questions
from record import Results, arguments, in_turn, parsed

K, QUERIES, TIMED, ROUNDS = 10, 500, 100, 5
# Granularity of the stored rows, and the plan: an exact scan, or fewer bits first.
INDEXES: tuple[tuple[str | None, str], ...] = (
    (None, "flat@full"),
    (None, "bits2@full > rerank@full"),
    ("bits=8", "bits8@full"),
    ("bits=8", "bits2@full > rerank:bits8@full"),
    ("bits=4", "bits4@full"),
    ("bits=4", "bits1@full > rerank:bits4@full"),
    ("bits=2", "bits2@full"),
    ("bits=2", "bits1:binary@full > rerank:bits2@full"),
    ("bits=1", "bits1@full"),
)


def measured(folder: Path, questions: Questions, at: str | None, plan: str) -> dict[str, Any]:
    """One index, built and searched."""
    with AdaptiveIndex.create(folder, questions.rows, at=at, plan=plan) as index:
        found = index.search(questions.queries, K, workers=1).ids

        def singles() -> None:
            for query in questions.queries[:TIMED]:
                index.search(query[None], K, workers=1)

        seconds = min(in_turn({"single": singles}, ROUNDS, clock=time.process_time)["single"])
        files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        return {
            "disk_bytes_per_row": round(sum(files) / len(index), 1),
            "memory_bytes_per_row": round(index.info().kept_bytes / len(index), 1),
            "recall_at_10": round(float(questions.recalls(found).mean()), 4),
            "single_ms": round(1e3 * seconds / TIMED, 3),
        }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    given = parsed(parser)
    rows = 4_000 if given.quick else given.rows
    vectors = text_vectors(rows + QUERIES)
    questions = Questions.ask(vectors[rows:], vectors[:rows], K)
    results = Results("bits_index", given.output)
    with tempfile.TemporaryDirectory() as base:
        for number, (at, plan) in enumerate(INDEXES):
            about = {"rows": rows, "dim": vectors.shape[1], "kept": at or "floats", "plan": plan}
            results.add({**about, **measured(Path(base) / str(number), questions, at, plan)})
            print(*list(results.rows[-1].values())[:-1], sep="\t", flush=True)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
