"""Coverage of the 95 % intervals of ``report_``, and cost of the check relative to the fit.

The true gain is 0 for rotations of vectors whose directions are all alike. For the principal axes of real
vectors of docstrings it is the mean over all draws of so many rows. Beside it: an interval over the rows that
ask alone, which takes the rows that are found as given.

Run: python benchmarks/fit_reports.py [--cache FOLDER]

The real vectors are those of ``adapters.py``, and share its cache.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from adapters import CACHE, MANY, PAIRS, vectors_of
from nestling import NestedAdapter, PCARotation
from nestling.cut import CutRule
from nestling.data import docstring_pairs
from nestling.encoders.maps.fit_report import compare_with_truncation
from nestling.encoders.maps.held_out import MOST, HeldOut, interval
from nestling.errors import NoGainWarning
from record import Ratios, Results, arguments, in_turn, parsed, ratio

DRAWS, DIM, SIZES, ROWS = 400, 32, (4, 16), (50, 100, 200, MOST)
Draw = Callable[[int, int], tuple[HeldOut, np.ndarray]]


def alike(kind: str) -> Draw:
    """Vectors without direction, and a rotation of them."""

    def draw(rows: int, seed: int) -> tuple[HeldOut, np.ndarray]:
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((rows, DIM), dtype=np.float32)
        partners = x + rng.standard_normal((rows, DIM), dtype=np.float32)
        labels = rng.integers(4, size=rows)
        turn = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0].astype(np.float32)
        held = HeldOut(x, partners if kind == "pairs" else None, labels if kind == "labels" else None)
        return held, turn

    return draw


def real(kind: str, queries: np.ndarray, documents: np.ndarray) -> Draw:
    """Some of the vectors that the axes were not fitted on, and the axes."""
    warnings.simplefilter("ignore", NoGainWarning)
    turn = PCARotation().fit(documents[:MANY]).components_.T.astype(np.float32)

    def draw(rows: int, seed: int) -> tuple[HeldOut, np.ndarray]:
        drawn = MANY + np.random.default_rng(seed).choice(len(documents) - MANY, rows, replace=False)
        if kind == "pairs":
            return HeldOut(queries[drawn], documents[drawn]), turn
        return HeldOut(documents[drawn]), turn

    return draw


def coverage(draw: Draw, rows: int, true: float | None, draws: int) -> tuple[str, dict[str, object]]:
    """Share of intervals that hold the true gain, or the mean of the gains where that is not known."""
    found = np.empty((2, draws, len(SIZES), 3))
    for seed in range(draws):
        held, turn = draw(rows, seed)
        mapped = HeldOut(held.x @ turn, None if held.pairs is None else held.pairs @ turn, held.labels)
        right = held.right(CutRule())
        for place, dim in enumerate(SIZES):
            ours, theirs = (each.answers(dim, CutRule(), right) for each in (mapped, held))
            found[0, seed, place] = interval(ours, theirs, held.freedom)
            gains = ours.values - theirs.values
            mean, reach = gains.mean(), 1.96 * gains.std(ddof=1) / np.sqrt(rows)
            found[1, seed, place] = mean, mean - reach, mean + reach
    truth = found[0, :, :, 0].mean(axis=0) if true is None else true
    held_true = ((found[..., 1] <= truth) & (truth <= found[..., 2])).mean(axis=(1, 2))
    shares = dict(zip(("coverage", "coverage over queries alone"), held_true, strict=True))
    width = (found[0, :, :, 2] - found[0, :, :, 1]).mean() / 2
    return held.metric, {**{name: f"{x:.3f}" for name, x in shares.items()}, "half width": f"{width:.4f}"}


def costs(output: Path, count: int) -> None:
    """Cost of the check relative to the fit, 60,000 x 256, in seconds of the processor."""
    ratios, rng = Ratios("fit_reports_cost", output, digits=3), np.random.default_rng(0)
    x = rng.standard_normal((count, 256), dtype=np.float32) * np.linspace(2, 0.1, 256, dtype=np.float32)
    methods = {
        "with": lambda: PCARotation().fit(x),
        "without": lambda: PCARotation().partial_fit(x),  # it makes no report
    }
    seconds = in_turn(methods, rounds=7, clock=time.process_time)
    ratios.add("PCA, fit with its check over fit alone", ratio(seconds, "with", "without"), at_most=2)
    start = time.process_time()
    adapter = NestedAdapter(epochs=1).fit(x)
    whole = time.process_time() - start
    checks = []
    for _ in range(3):
        start = time.process_time()
        compare_with_truncation(adapter.transform, HeldOut(x[:MOST]), adapter.nesting, CutRule())
        checks.append(time.process_time() - start)
    shares = [check / (whole - check) for check in checks]
    figures = (min(shares), min(shares), max(shares))
    ratios.add("adapter, check over one epoch of fit", figures, at_most=1)


def main() -> None:
    warnings.simplefilter("ignore", NoGainWarning)
    parser = arguments(__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for vectors (%(default)s)")
    given = parsed(parser)
    draws, sizes = (3, ROWS[:1]) if given.quick else (DRAWS, ROWS)
    training, _, test = docstring_pairs(limit=PAIRS).split(seed=0)
    x = vectors_of("wordllama", (training, test), given.cache)
    cases = [(f"alike, {kind}", alike(kind), 0.0) for kind in ("vectors", "labels", "pairs")]
    cases += [
        (f"docstrings, {kind}", real(kind, x["train_q"], x["train_d"]), None) for kind in ("vectors", "pairs")
    ]
    results = Results("fit_reports", given.output)
    for name, draw, true in cases:
        for rows in sizes:
            metric, figures = coverage(draw, rows, true, draws)
            results.add({"data": name, "metric": metric, "rows": rows, "draws": draws, **figures})
            print(*list(results.rows[-1].values())[:-1], flush=True)
    costs(given.output, 2_000 if given.quick else 60_000)


if __name__ == "__main__":
    main()
