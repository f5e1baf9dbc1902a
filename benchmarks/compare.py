"""Comparing representations against rsatoolbox: dissimilarity matrices and what is done with them.

Run: python benchmarks/compare.py [--only rdms]   (one thread; the seconds are the processor's)
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from io import StringIO

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.neighbors import NearestCentroid
from threadpoolctl import threadpool_limits

from nestling.compare import rdm
from nestling.compare.inference.evaluation import evaluate
from nestling.compare.inference.threshold_search import search_thresholds
from nestling.compare.similarity.adaptive import adaptive_dependence
from nestling.compare.similarity.comparators import Method, compare
from nestling.compare.transforms.geodesic import Geodesic
from nestling.compare.transforms.thresholds import threshold_grid
from nestling.compare.transforms.topology import geo_topological
from record import Ratios, arguments, in_turn, parsed, ratio

try:
    from rsatoolbox.data import Dataset
    from rsatoolbox.inference import eval_dual_bootstrap, eval_fixed
    from rsatoolbox.model import ModelFixed
    from rsatoolbox.rdm import RDMs as PeerRDMs
    from rsatoolbox.rdm import calc_rdm
    from rsatoolbox.rdm import compare as peer_compare
    from rsatoolbox.rdm.transform import geodesic_transform, geotopological_transform
except ImportError as error:
    raise SystemExit(f"compare.py measures against rsatoolbox (pip install rsatoolbox): {error}") from None


def faster(
    found: Ratios,
    what: str,
    methods: tuple[Callable[[], object], Callable[[], object]],
    *,
    rounds: int,
    target: float | None,
    agreement: float | None = None,
) -> None:
    """Times the second method (the peer's) over the first (ours), taken in turn in one process."""
    seconds = in_turn(dict(zip(("ours", "theirs"), methods, strict=True)), rounds, clock=time.process_time)
    agreed = "" if agreement is None else f"{agreement:.1e}"
    found.add(what, ratio(seconds, "theirs", "ours"), at_least=target, agreement=agreed)


def rdms(found: Ratios, rounds: int, quick: bool) -> None:
    """Matrices of 4000 patterns of 512 channels; agreement is the largest gap over the largest entry."""
    n = 200 if quick else 4000
    x = np.random.default_rng(0).normal(size=(n, 512))
    data = Dataset(x)
    for metric, dtype, target in (
        ("correlation", np.float64, 5.0),
        ("correlation", np.float32, 5.0),
        ("sqeuclidean", np.float64, None),
        ("sqeuclidean", np.float32, 2.0),
    ):
        method, factor = (metric, 1) if metric == "correlation" else ("euclidean", x.shape[1])
        ours, theirs = partial(rdm, x, metric, dtype=dtype), partial(calc_rdm, data, method=method)
        expected = factor * theirs().dissimilarities
        gap = float(np.abs(ours().vectors - expected).max() / expected.max())
        what = f"{metric}, {n} x 512, {np.dtype(dtype)}"
        faster(found, what, (ours, theirs), rounds=rounds, target=target, agreement=gap)


def within(found: Ratios, what: str, method: Callable[[], object], seconds: float, *, rounds: int) -> None:
    """The seconds that a method was given, as a multiple of the time that it takes."""
    spent = in_turn({what: method}, rounds, clock=time.process_time)[what]
    value, low, high = (seconds / each for each in (min(spent), max(spent), min(spent)))
    found.add(what, (value, low, high), at_least=1.0, agreement="")


def networks(subjects: int = 10, layers: int = 9, n: int = 62) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances, layers and subjects of points that each layer has in common, seen with noise."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(layers, n, 8)) + rng.normal(size=(subjects, layers, n, 8))
    vectors = np.array([pdist(each) for each in points.reshape(-1, n, 8)])
    return vectors, np.tile(np.arange(layers), subjects), np.repeat(np.arange(subjects), layers)


def peer_transform(vectors: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """Of distances times 100, because the peer is wrong on those below 1; it pools over all matrices."""
    found = geotopological_transform(PeerRDMs(100 * vectors), lower, upper).dissimilarities
    return np.asarray(found)


def peer_search(
    vectors: np.ndarray, layer: np.ndarray, subject: np.ndarray, pairs: np.ndarray
) -> list[float]:
    """Accuracy at every pair, one subject left out at a time."""
    found = []
    for pair in pairs:
        x = peer_transform(vectors, *pair)
        right = []
        for who in np.unique(subject):
            seen = subject != who
            with warnings.catch_warnings(action="ignore"):  # of pairs that are 0 in all matrices
                model = NearestCentroid().fit(x[seen], layer[seen])
            right.extend(model.predict(x[~seen]) == layer[~seen])
        found.append(float(np.mean(right)))
    return found


def thresholds(found: Ratios, rounds: int, quick: bool) -> None:
    """90 matrices of 62 stimuli over the grid of 210 pairs; paths; the adaptive measure of all with all.

    The agreement is with the peer on one matrix at a time, where it does not pool.
    """
    vectors, layer, subject = networks(subjects=3) if quick else networks()
    pairs = threshold_grid()[:: 70 if quick else 1]

    def gap(pair: np.ndarray) -> float:
        ours = geo_topological(vectors[:1], [pair], rank=False)[0]
        return float(np.abs(ours - peer_transform(vectors[:1], *pair)).max())

    faster(
        found,
        f"{len(pairs)} thresholds, {len(vectors)} matrices of 62",
        (
            lambda: geo_topological(vectors, pairs, rank=False),
            lambda: [peer_transform(vectors, *pair) for pair in pairs],
        ),
        rounds=rounds,
        target=None,
        agreement=max(map(gap, pairs)),
    )

    def search() -> object:
        return search_thresholds(vectors, label=layer, subject=subject)

    faster(
        found,
        "the same with identification",
        (search, lambda: peer_search(vectors, layer, subject, pairs)),
        rounds=max(1, rounds // 4),
        target=None,
    )
    within(found, "5 s over the same with identification", search, 5.0, rounds=rounds)
    for n in (20,) if quick else (92, 200, 500):
        paths(found, n, rounds)
    within(
        found,
        f"1 s over the adaptive measure, {len(vectors)} x {len(vectors)}",
        lambda: adaptive_dependence(vectors),
        1.0,
        rounds=rounds,
    )


def paths(found: Ratios, n: int, rounds: int) -> None:
    """Shortest paths below the 0.3 quantile, with the peer's rule that edges of length 0 are none."""
    vectors = pdist(np.random.default_rng(1).normal(size=(n, 8)))[None]
    geodesic = Geodesic(upper=0.3, rank=False, zero_edges="drop", disconnected="inf")

    def peer() -> np.ndarray:
        kept = PeerRDMs(peer_transform(vectors, 0.0, 0.3))
        return np.asarray(geodesic_transform(kept).dissimilarities)

    ours, theirs = geodesic.transform(vectors), peer()
    joined = np.isfinite(ours) | np.isfinite(theirs)
    agreement = float(np.abs(ours[joined] - theirs[joined]).max())
    methods = (lambda: geodesic.transform(vectors), peer)
    faster(found, f"paths, {n} stimuli", methods, rounds=rounds, target=None, agreement=agreement)


PEER_METHODS: dict[Method, str] = {
    "cosine": "cosine",
    "pearson": "corr",
    "spearman": "spearman",
    "rho_a": "rho-a",
    "kendall": "kendall",
    "tau_a": "tau-a",
    "cosine_whitened": "cosine_cov",
    "bures": "bures",
}


def comparators(found: Ratios, rounds: int, quick: bool) -> None:
    """10 x 10 matrices of 300 stimuli, squared distances of points that they see with noise."""
    rng, n = np.random.default_rng(2), 20 if quick else 300
    points = rng.normal(size=(n, 40)) + rng.normal(size=(20, n, 40))
    vectors = np.array([pdist(each, "sqeuclidean") for each in points])
    a, b = vectors[:10], vectors[10:]
    for method, name in PEER_METHODS.items():
        ours = partial(compare, a, b, method)
        theirs = partial(peer_compare, PeerRDMs(a), PeerRDMs(b), name)
        faster(
            found,
            f"{method}, 10 x 10 matrices of {n}",
            (ours, theirs),
            rounds=max(1, rounds // 3),
            target=20.0 if method in ("kendall", "tau_a") else None,
            agreement=float(np.abs(ours() - theirs()).max()),
        )


def bootstrap(found: Ratios, rounds: int, quick: bool) -> None:
    """20 draws of subjects and stimuli, 8 models, 8 subjects, 92 stimuli; agreement of plain values."""
    rng, draws, n = np.random.default_rng(3), *((2, 20) if quick else (20, 92))
    points = rng.normal(size=(n, 20))
    subjects = np.array([pdist(points + rng.normal(size=points.shape)) for _ in range(8)])
    models = np.array([pdist(points + noise * rng.normal(size=points.shape)) for noise in range(1, 9)])
    data, fixed = PeerRDMs(subjects), [ModelFixed(str(i), each) for i, each in enumerate(models)]
    for method in ("cosine", "pearson", "spearman"):
        name = PEER_METHODS[method]
        ours = partial(evaluate, models, subjects, method, subject=None, draws=draws)

        def theirs(name: str = name) -> object:
            with redirect_stderr(StringIO()):  # a bar of progress
                return eval_dual_bootstrap(fixed, data, method=name, N=draws)

        values = eval_fixed(fixed, data, method=name).get_means()
        faster(
            found,
            f"{method}, {draws} draws of 8 models, 8 subjects, {n}",
            (ours, theirs),
            rounds=max(1, rounds // 3),
            target=8.0,
            agreement=float(np.abs(ours().values - values).max()),
        )


SECTIONS: dict[str, Callable[[Ratios, int, bool], None]] = {
    "rdms": rdms,
    "thresholds": thresholds,
    "comparators": comparators,
    "bootstrap": bootstrap,
}


def main() -> None:
    parser = arguments(__doc__, rounds=9)
    parser.add_argument("--only", choices=SECTIONS, help="one section; all by default")
    given = parsed(parser)
    with threadpool_limits(1):
        for name in [given.only] if given.only else SECTIONS:
            SECTIONS[name](Ratios(f"compare_{name}", given.output), given.rounds, given.quick)


if __name__ == "__main__":
    main()
