"""How often the 95 % intervals of ``report_`` hold the true gain, and what the check costs beside the fit.

The true gain is 0 for rotations of vectors whose directions are all alike. For the principal axes of real
vectors of docstrings it is the mean over all draws of so many rows. Beside it: an interval over the rows that
ask alone, which takes the rows that are found as given.

    python benchmarks/fit_reports.py CACHE

CACHE is that of ``adapters.py``, and holds the real vectors.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from adapters import MANY, vectors_of
from nestling import NestedAdapter, PCARotation
from nestling.cut import CutRule
from nestling.data import docstring_pairs
from nestling.encoders.maps.fit_report import compare_with_truncation
from nestling.encoders.maps.held_out import MOST, HeldOut, interval
from nestling.errors import NoGainWarning
from record import Ratios, in_turn, ratio, stamp, write_csv

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


def coverage(draw: Draw, rows: int, true: float | None) -> tuple[str, dict[str, object]]:
    """Share of intervals that hold the true gain, or the mean of the gains where that is not known."""
    found = np.empty((2, DRAWS, len(SIZES), 3))
    for seed in range(DRAWS):
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


def costs(rng: np.random.Generator) -> None:
    """What the check takes over the fit, 60,000 x 256, in seconds of the processor."""
    ratios = Ratios("fit_reports_cost", digits=3)
    x = rng.standard_normal((60_000, 256), dtype=np.float32) * np.linspace(2, 0.1, 256, dtype=np.float32)
    ways = {
        "with": lambda: PCARotation().fit(x),
        "without": lambda: PCARotation().partial_fit(x),  # which makes no report
    }
    seconds = in_turn(ways, rounds=7, clock=time.process_time)
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
    training, _, test = docstring_pairs(limit=24_000).split(seed=0)
    x = vectors_of("wordllama", (training, test), Path(sys.argv[1]))
    cases = [(f"alike, {kind}", alike(kind), 0.0) for kind in ("vectors", "labels", "pairs")]
    cases += [
        (f"docstrings, {kind}", real(kind, x["train_q"], x["train_d"]), None) for kind in ("vectors", "pairs")
    ]
    found: list[dict[str, object]] = []
    for name, draw, true in cases:
        for rows in ROWS:
            metric, figures = coverage(draw, rows, true)
            found.append({"data": name, "metric": metric, "rows": rows, "draws": DRAWS, **figures})
            print(*found[-1].values(), flush=True)
    write_csv("fit_reports", found, stamp())
    costs(np.random.default_rng(0))


if __name__ == "__main__":
    main()
