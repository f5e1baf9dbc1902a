"""Maps of vectors beside plain truncation: two models, with and without pairs, many rows and few.

Vectors are those of docstrings (names and signatures as queries, first paragraphs as documents). Maps are
fitted on the packages that train, and measured by ndcg@10 on packages that were held out. The
results also give what ``fit`` reports of the same map: without pairs, the share of neighbours kept. All
intervals are of 95 %.

Run: python benchmarks/adapters.py [--models minilm] [--cache FOLDER]

Vectors take longer to make than most maps, and are kept in the cache. With models, only these are measured.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nestling import NestedAdapter, Nesting, PCARotation, TextEncoder, sweep
from nestling.data import TextPairs, docstring_pairs
from nestling.errors import NoGainWarning
from nestling.gain import Gain
from nestling.measure import Curve, Retrieval
from record import Results, arguments, parsed

PAIRS, MANY, FEW, SEEDS = 24_000, 8_000, 2_000, 3
MODELS = ("wordllama", "minilm")
CACHE = Path(tempfile.gettempdir()) / "nestling-benchmarks"
PARTS = ("train_q", "train_d", "test_q", "test_d")


def vectors_of(model: str, parts: tuple[TextPairs, TextPairs], cache: Path) -> dict[str, np.ndarray]:
    path = cache / f"{model}-{len(parts[0])}.npz"
    if path.exists():
        return dict(np.load(path))
    encoder = TextEncoder.open(model)
    texts = [side for part in parts for side in (part.queries, part.documents)]
    found = dict(zip(PARTS, map(encoder.encode, texts), strict=True))
    cache.mkdir(parents=True, exist_ok=True)
    np.savez(path, **found)
    return found


def methods(
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
    model: str, method: str, seed: int, curve: Curve, fitted: Any, seconds: float
) -> Iterator[dict[str, object]]:
    report = getattr(fitted, "report_", None)
    gains = {} if report is None else {gain.granularity: gain for gain in report.gains}
    for row in curve.column():
        gain = gains.get(row.granularity)
        said = next((each for each in curve.gains if each.granularity == row.granularity), None)
        yield {
            "model": model,
            "method": method,
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


def order(model: str) -> int:
    return MODELS.index(model) if model in MODELS else len(MODELS)


def main() -> None:
    warnings.simplefilter("ignore", NoGainWarning)
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for vectors (%(default)s)")
    given = parsed(parser)
    training, _, test = docstring_pairs(limit=600 if given.quick else PAIRS).split(seed=0)
    models = given.models[:1] if given.quick else given.models
    results = Results("adapters", given.output, keys=("model",), order=lambda row: order(str(row["model"])))
    for model in models:
        x = vectors_of(model, (training, test), given.cache)
        task = Retrieval.from_vectors(x["test_q"], x["test_d"], measures="ndcg")
        nesting = Nesting.doubling(8, x["test_q"].shape[1])
        plain = sweep(lambda vectors: vectors, task, nesting)
        results.add(*rows_of(model, "truncation", 0, plain, None, 0.0))
        for seed in range(1 if given.quick else SEEDS):
            for method, seeds, fit in methods(x["train_q"][:MANY], x["train_d"][:MANY], nesting):
                if seed >= seeds:
                    continue
                start = time.perf_counter()
                fitted = fit(seed)
                seconds = time.perf_counter() - start
                rows = list(rows_of(model, method, seed, sweep(fitted, task, bits=None), fitted, seconds))
                values = [row["ndcg@10"] for row in rows]
                print(f"{model:10} {method:40} {seed} {' '.join(map(str, values))}", flush=True)
                results.add(*rows)


if __name__ == "__main__":
    main()
