"""Maps of vectors beside plain truncation: two models, with and without pairs, many rows and few.

Vectors are those of docstrings (names and signatures as queries, first paragraphs as documents). Maps are
fitted on the packages that train, and measured by ndcg@10 on packages that were held out. The
results also give what ``fit`` reports of the same map: without pairs, the share of neighbours kept. All
intervals are of 95 %.

    python benchmarks/adapters.py [CACHE [MODEL ...]]

CACHE keeps the vectors, which take longer to make than most maps. With models, only those are measured anew.
"""

from __future__ import annotations

import csv
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nestling import NestedAdapter, Nesting, PCARotation, TextEncoder, sweep
from nestling.data import TextPairs, docstring_pairs
from nestling.errors import NoGainWarning
from nestling.gain import Gain
from nestling.measure import Curve, Retrieval
from record import RESULTS, stamp, write_csv

PAIRS, MANY, FEW, SEEDS = 24_000, 8_000, 2_000, 3
MODELS = ("wordllama", "minilm")
PARTS = ("train_q", "train_d", "test_q", "test_d")


def vectors_of(model: str, parts: tuple[TextPairs, TextPairs], cache: Path | None) -> dict[str, np.ndarray]:
    path = None if cache is None else cache / f"{model}.npz"
    if path is not None and path.exists():
        return dict(np.load(path))
    encoder = TextEncoder.open(model)
    texts = [side for part in parts for side in (part.queries, part.documents)]
    found = dict(zip(PARTS, map(encoder.encode, texts), strict=True))
    if path is not None:
        np.savez(path, **found)
    return found


def ways(
    queries: np.ndarray, documents: np.ndarray, nesting: Nesting
) -> Iterator[tuple[str, int, Callable[[int], Any]]]:
    """Each map by name, with how many seeds, and what fits it with one."""
    kinds = (("a rotation", True), ("any linear map", False))
    for count in (MANY, FEW):
        name, x = f"{count:,} documents", documents[:count]
        yield f"PCA of {name}", 1, lambda _, x=x: PCARotation(nesting).fit(x)
        for kind, orthogonal in kinds:
            yield (
                f"adapter of {name}, {kind}",
                SEEDS,
                lambda seed, x=x, o=orthogonal: NestedAdapter(nesting, orthogonal=o, seed=seed).fit(x),
            )
    yield "PCA of pairs", 1, lambda _: PCARotation(nesting).fit(queries, pairs=documents)
    yield (
        "PCA of pairs, centred",
        1,
        lambda _: PCARotation(nesting, center=True).fit(queries, pairs=documents),
    )
    for kind, orthogonal in kinds:
        yield (
            f"adapter of pairs, {kind}",
            SEEDS,
            lambda seed, o=orthogonal: NestedAdapter(nesting, orthogonal=o, seed=seed).fit(
                queries, pairs=documents
            ),
        )


def rows_of(
    model: str, way: str, seed: int, curve: Curve, fitted: Any, seconds: float
) -> Iterator[dict[str, object]]:
    report = getattr(fitted, "report_", None)
    gains = {} if report is None else {gain.granularity: gain for gain in report.gains}
    for row in curve.column():
        gain = gains.get(row.granularity)
        said = next((each for each in curve.gains if each.granularity == row.granularity), None)
        yield {
            "model": model,
            "way": way,
            "seed": seed,
            "dim": row.granularity["dim"],
            "ndcg@10": f"{row.value:.4f}",
            **_gained("over truncation", said),
            "verdict": "" if said is None else said.verdict,
            "report": "" if report is None else report.metric,
            **_gained("report's gain", gain),
            "report's verdict": "" if gain is None else gain.verdict,
            "seconds": f"{seconds:.1f}",
        }


def _gained(name: str, gain: Gain | None) -> dict[str, str]:
    """A gain and the ends of its interval, as columns."""
    figures = ("", "", "") if gain is None else (f"{x:+.4f}" for x in (gain.value, gain.low, gain.high))
    return dict(zip((name, f"{name}, low", f"{name}, high"), figures, strict=True))


def _measured_before(models: Sequence[str]) -> list[dict[str, object]]:
    """The rows of all other models."""
    path = RESULTS / "adapters.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [dict(row) for row in csv.DictReader(stream) if row["model"] not in models]


def main() -> None:
    warnings.simplefilter("ignore", NoGainWarning)
    cache = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    models = sys.argv[2:] or MODELS
    training, _, test = docstring_pairs(limit=PAIRS).split(seed=0)
    rows = _measured_before(models)
    for model in models:
        x = vectors_of(model, (training, test), cache)
        task = Retrieval.from_vectors(x["test_q"], x["test_d"], measures="ndcg")
        nesting = Nesting.doubling(8, x["test_q"].shape[1])
        plain = sweep(lambda vectors: vectors, task, nesting)
        rows += rows_of(model, "truncation", 0, plain, None, 0.0)
        for seed in range(SEEDS):
            for way, seeds, fit in ways(x["train_q"][:MANY], x["train_d"][:MANY], nesting):
                if seed >= seeds:
                    continue
                start = time.perf_counter()
                fitted = fit(seed)
                seconds = time.perf_counter() - start
                rows += rows_of(model, way, seed, sweep(fitted, task), fitted, seconds)
                values = [row["ndcg@10"] for row in rows[-len(nesting) :]]
                print(f"{model:10} {way:40} {seed} {' '.join(map(str, values))}", flush=True)
                write_csv("adapters", rows, stamp())


if __name__ == "__main__":
    main()
