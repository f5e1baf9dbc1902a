"""Comparing representations against rsatoolbox: dissimilarity matrices and what is done with them.

Run: python benchmarks/compare.py [--only rdms] [--rounds 9]   (one thread; the seconds are the processor's)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import calc_rdm
from threadpoolctl import threadpool_limits

from nestling.compare import rdm
from record import in_turn, ratio, stamp, verdict, write_csv


@dataclass(frozen=True)
class Row:
    """How many times faster one way is than another, and whether both say the same."""

    what: str
    ratio: str
    low: str
    high: str
    reach: str
    verdict: str
    agreement: str


def faster(
    what: str,
    ways: tuple[Callable[[], object], Callable[[], object]],
    *,
    rounds: int,
    reach: float | None,
    agreement: float | None = None,
) -> Row:
    """Times the second way (the peer's) over the first (ours), taken in turn in one process."""
    seconds = in_turn(dict(zip(("ours", "theirs"), ways, strict=True)), rounds, clock=time.process_time)
    value, low, high = ratio(seconds, "theirs", "ours")
    return Row(
        what,
        *(f"{figure:.2f}" for figure in (value, low, high)),
        "" if reach is None else f">= {reach:g}",
        "" if reach is None else verdict(value, reach, at_most=False),
        "" if agreement is None else f"{agreement:.1e}",
    )


def rdms(rounds: int) -> Iterator[Row]:
    """Matrices of 4000 patterns of 512 channels; agreement is the largest gap over the largest entry."""
    x = np.random.default_rng(0).normal(size=(4000, 512))
    data = Dataset(x)
    for metric, dtype, reach in (
        ("correlation", np.float64, 5.0),
        ("correlation", np.float32, 5.0),
        ("sqeuclidean", np.float64, None),
        ("sqeuclidean", np.float32, 2.0),
    ):
        method, factor = (metric, 1) if metric == "correlation" else ("euclidean", x.shape[1])
        ours, theirs = partial(rdm, x, metric, dtype=dtype), partial(calc_rdm, data, method=method)
        expected = factor * theirs().dissimilarities
        gap = float(np.abs(ours().vectors - expected).max() / expected.max())
        what = f"{metric}, 4000 x 512, {np.dtype(dtype)}"
        yield faster(what, (ours, theirs), rounds=rounds, reach=reach, agreement=gap)


SECTIONS: dict[str, Callable[[int], Iterator[Row]]] = {"rdms": rdms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SECTIONS, help="one section; all by default")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    with threadpool_limits(1):
        for name in [given.only] if given.only else SECTIONS:
            rows = [asdict(row) for row in SECTIONS[name](given.rounds)]
            for row in rows:
                print("{what:48} {ratio:>6} ({low} to {high})  reach {reach}: {verdict}".format(**row))
            write_csv(f"compare_{name}", rows, stamp())


if __name__ == "__main__":
    main()
