"""Real text vectors for the comparison, made on this machine from the texts that lie on it.

Run: python benchmarks/search/data.py CACHE [--encoder wordllama] [--rows 1000000] [--root FOLDER ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from texts import default_roots, distinct_texts

QUERIES, QUICK_ROWS = 2_000, 5_000
_ROWS_AT_A_TIME = 20_000


@dataclass(frozen=True, eq=False)
class VectorSet:
    """Unit vectors to search in, and held-out queries, none of whose texts is in the base.

    Args:
        name: encoder and rows, such as ``wordllama-200k``.
        base: ``Float32[rows, dim]``.
        tuning: ``Float32[queries, dim]`` to choose operating points with.
        queries: ``Float32[queries, dim]`` to report on.
    """

    name: str
    base: NDArray[np.float32]
    tuning: NDArray[np.float32]
    queries: NDArray[np.float32]


def load(cache: Path, encoder: str, rows: int) -> VectorSet:
    """The first ``rows`` of what :func:`make` saved; they are in random order, so subsets are samples."""
    folder = cache / encoder
    if not (folder / "base.npy").is_file():
        raise SystemExit(f"{folder} holds no vectors; run data.py first, with --quick for a quick run")
    stored = np.load(folder / "base.npy", mmap_mode="r", allow_pickle=False)
    if len(stored) < rows:
        raise SystemExit(
            f"{folder} holds {len(stored)} vectors, fewer than {rows}; run data.py with --rows {rows}"
        )
    held_out = np.load(folder / "held_out.npy", allow_pickle=False)
    half = len(held_out) // 2
    base = np.ascontiguousarray(stored[:rows])
    return VectorSet(f"{encoder}-{rows // 1000}k", base, held_out[:half], held_out[half:])


def make(cache: Path, encoder: str, rows: int, texts: list[str], seed: int = 0) -> Path:
    """Encode held-out texts and ``rows`` others, in random order, and save distinct unit vectors."""
    if len(texts) < rows + QUERIES:
        raise SystemExit(f"only {len(texts)} distinct texts for {rows} rows; give more folders with --root")
    order = np.random.default_rng(seed).permutation(len(texts))
    chosen = [texts[row] for row in order[: min(len(texts), rows + rows // 20 + QUERIES)]]
    vectors = _distinct(_encode(encoder, chosen))
    folder = cache / encoder
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "held_out.npy", vectors[:QUERIES])
    np.save(folder / "base.npy", vectors[QUERIES : QUERIES + rows])
    digest = hashlib.sha256("\n".join(chosen).encode()).hexdigest()
    kept = min(rows, len(vectors) - QUERIES)
    facts = {"rows": kept, "dim": vectors.shape[1], "seed": seed, "sha256_of_texts": digest}
    (folder / "facts.json").write_text(json.dumps(facts, indent=2))
    return folder


def _encode(name: str, texts: list[str]) -> NDArray[np.float32]:
    from nestling.encoders.text.encoder import TextEncoder

    encoder = TextEncoder.open(name)
    parts = [
        encoder.encode(texts[start : start + _ROWS_AT_A_TIME], batch_size=256)
        for start in range(0, len(texts), _ROWS_AT_A_TIME)
    ]
    return np.concatenate(parts)


def _distinct(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vectors in their order, each once: texts of the same words share one, and ties say nothing."""
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    prints = np.array([hash(np.round(row, 5).tobytes()) for row in vectors])
    return vectors[np.sort(np.unique(prints, return_index=True)[1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path, help="folder for texts and vectors, outside the repository")
    parser.add_argument(
        "--encoder", nargs="+", default=["wordllama"], help="wordllama, minilm, or a model's name"
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--root", type=Path, action="append", default=[], help="one more folder of texts")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few vectors, for run.py --quick")
    given = parser.parse_args()
    roots = [*default_roots(), *given.root]
    if given.quick:
        given.cache, given.rows, roots = given.cache / "quick", QUICK_ROWS, [Path(np.__file__).parent]
    given.cache.mkdir(parents=True, exist_ok=True)
    kept = given.cache / "texts.txt"
    if not kept.is_file():
        texts = distinct_texts(roots, given.workers)
        kept.write_text("\n".join(texts))
    texts = kept.read_text().split("\n")
    print(f"{len(texts)} distinct texts")
    for encoder in given.encoder:
        print(make(given.cache, encoder, given.rows, texts, given.seed))


if __name__ == "__main__":
    main()
