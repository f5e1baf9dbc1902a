"""tRSA, the topology and geometry of neural representations (Lin and Kriegeskorte, arXiv 2309.11028).

A family of thresholds transforms dissimilarities before their matrices are compared, so that a comparison
weighs who is near whom (topology) or exact distances (geometry). The paper asks which member of the family
best identifies the layer of a network, or the area of a brain, that a matrix comes from
(:func:`identification`).

The paper's recordings of 24 people are not public. Simulated measurements of AlexNet and small trained
networks replace them (``nestling.papers.problems.representations``). The margins come from a pilot on
other draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

from nestling.compare.inference.identification import identify
from nestling.compare.rdms.rdms import RDMs
from nestling.compare.similarity.adaptive import adaptive_dependence
from nestling.compare.similarity.comparators import compare
from nestling.compare.transforms.geodesic import Geodesic
from nestling.compare.transforms.thresholds import Region, sample_thresholds
from nestling.compare.transforms.topology import GeoTopological
from nestling.errors import MissingExtraError, require
from nestling.papers.claims.checks import Checks, Run, Tour, measure_checks
from nestling.papers.claims.report import Claim
from nestling.papers.problems.representations import DRAWS, AlexNet, Brains, Networks, Shapes, Words

TITLE = "tRSA: the topology and geometry of neural representations (arXiv 2309.11028), claims at small scale"

STATISTICS: tuple[Region, ...] = ("topology", "geometry", "local", "global", "intermediate")
CHECKS: Checks[Any] = Checks()  # each on a problem of its own kind
_SAMPLES = 10  # pairs of thresholds of a region, as in the paper
_POINTS = (50, 100)
_RDM_RATIO, _GEODESIC_RATIO = 3.0, 0.8
_NEAR = 0.075  # share of the pairs that are edges, as in the paper's figures
_NOT_WORSE, _OVER_RAW = 0.02, 0.4
_NOISES = (0.0, 0.5, 1.0)
_ACTIVITY_NOISES = {"clean": 0.0, "activity noise 1": 1.0}
_NEAREST = "GT(0, .2)"
_RANGES = {"rank": (0, 1), _NEAREST: (0, 0.2), "GT(.4, .6)": (0.4, 0.6), "GT(.8, 1)": (0.8, 1)}
_PEERS_THRESHOLDS = ((0.2, 0.8), (0.4, 0.6))
_WITHIN = 0.03
_OVER_RANDOM, _DIM = 0.1, 64
_OVER_PEER = 0.15


def noisy(rdms: RDMs, share: float, seed: int) -> RDMs:
    """Noise of ``share`` standard deviations of a matrix on each of its entries, none below 0."""
    if not share:
        return rdms
    vectors = rdms.vectors.astype(np.float64)
    noise = np.random.default_rng([seed, round(100 * share)]).normal(size=vectors.shape)
    return rdms.replace(vectors=np.maximum(vectors + share * vectors.std(axis=1, keepdims=True) * noise, 0))


def identification(rdms: RDMs, label: str, subject: str, seed: int) -> dict[str, float]:
    """Share of matrices whose class is found, by the statistic they are compared in.

    ``raw`` distances, their ``rank``, and each region of thresholds as the mean over pairs drawn from it.
    """
    found = {"raw": identify(rdms, label=label, subject=subject).accuracy}
    found["rank"] = identify(rdms, label=label, subject=subject, transform=GeoTopological(0, 1)).accuracy
    for region in STATISTICS:
        transforms = [GeoTopological(*pair) for pair in sample_thresholds(region, _SAMPLES, seed=seed)]
        each = [identify(rdms, label=label, subject=subject, transform=t).accuracy for t in transforms]
        found[region] = float(np.mean(each))
    return found


@CHECKS.claim(
    "C1",
    "Distances group shapes by geometry (above 3), paths through near points by topology (below 0.8)",
    ["shapes"],
)
def inverts_the_grouping(study: Shapes, seed: int) -> Run:
    """Distance between shapes of one topology over that between shapes of one geometry."""
    figures = _groupings(study, seed)
    clearances = [
        clearance
        for count in _POINTS
        for clearance in (
            figures[f"distances, {count} points"] - _RDM_RATIO,
            _GEODESIC_RATIO - figures[f"paths, {count} points"],
        )
    ]
    return min(clearances), figures


@CHECKS.claim("C1b", "Thresholds alone lie between: below distances, above paths", ["shapes"])
def thresholds_lie_between(study: Shapes, seed: int) -> Run:
    """The same ratios, of the transform by thresholds without paths."""
    figures = _groupings(study, seed)
    steps = [
        figures[f"{more}, {count} points"] - figures[f"{less}, {count} points"]
        for count in _POINTS
        for more, less in (("distances", "near and far"), ("near and far", "paths"))
    ]
    return min(steps), figures


@CHECKS.claim(
    "C2",
    "Topology identifies AlexNet's layers as ranks do (less 0.02), 0.4 better than distances",
    ["alexnet"],
)
def identifies_under_measurement(study: AlexNet, seed: int) -> Run:
    """Noise up to 1 standard deviation of a matrix; a measurement is left out at a time."""

    def measure(share: float, draw: int) -> dict[str, float]:
        return identification(noisy(study.rdms, share, draw), "layer", "measurement", seed)

    figures: dict[str, float] = {}
    clearances: list[float] = []
    for share in _NOISES:
        each = _averaged(partial(measure, share), seed, DRAWS if share else 1)
        clearances += [
            each["topology"] - each["rank"] + _NOT_WORSE,
            each["topology"] - each["raw"] - _OVER_RAW,
        ]
        figures |= {f"{name}, noise {share:g}": value for name, value in each.items()}
    return min(clearances), figures


@CHECKS.claim("C3", "Topology identifies a network's layers across seeds within 0.03 of ranks", ["networks"])
def identifies_across_seeds(study: Networks, seed: int) -> Run:
    """Clean, and with noise of 1 standard deviation on each activity; a network is left out at a time."""
    figures = _across_seeds(study, seed)
    gaps = [
        abs(each - figures[name.replace("topology", "rank")])
        for name, each in figures.items()
        if "topology" in name
    ]
    return _WITHIN - max(gaps), figures | {"networks' accuracy": study.accuracy}


@CHECKS.claim("C3b", "Near pairs alone, or far pairs alone, identify them worse than both", ["networks"])
def local_and_global_are_worse(study: Networks, seed: int) -> Run:
    """The same shares."""
    figures = _across_seeds(study, seed)
    below = [
        min(figures[f"{name}, {noise}"] for name in ("rank", "topology"))
        - max(figures[f"{name}, {noise}"] for name in ("local", "global"))
        for noise in _ACTIVITY_NOISES
    ]
    return min(below), figures


@CHECKS.claim(
    "C3c", "Topology withstands independent noise on the matrices as ranks do (less 0.02)", ["networks"]
)
def withstands_noise_on_entries(study: Networks, seed: int) -> Run:
    """The abstract's robustness to noise, where the noise is on single entries."""

    def measure(share: float, draw: int) -> dict[str, float]:
        return identification(noisy(study.rdms(draw), share, draw), "layer", "network", seed)

    figures: dict[str, float] = {}
    clearances: list[float] = []
    for share in (0.5, 1.0):
        each = _averaged(partial(measure, share), seed, study.draws)
        clearances.append(each["topology"] - each["rank"] + _NOT_WORSE)
        figures |= {f"{name}, noise {share:g}": value for name, value in each.items()}
    return min(clearances), figures


@CHECKS.claim("C3d", "Paths, or the adaptive measure, identify layers better than ranks", ["networks"])
def paths_and_adaptive(study: Networks, seed: int) -> Run:
    """Two members of the family that the paper names and does not rank."""

    def measure(draw: int) -> dict[str, float]:
        rdms = study.rdms(draw)
        by_ranks, by_paths = (
            identify(rdms, label="layer", subject="network", transform=transform).accuracy
            for transform in (GeoTopological(0, 1), Geodesic("twostep", upper=0.3))
        )
        return {
            "rank": by_ranks,
            "paths": by_paths,
            "adaptive": _by_similarity(adaptive_dependence(rdms).statistic, rdms),
            "distance correlation": _by_similarity(compare(rdms, rdms, "distance_correlation"), rdms),
        }

    figures = _averaged(measure, seed, study.draws)
    return max(figures["paths"], figures["adaptive"]) - figures["rank"], figures


@CHECKS.claim("C4", "Human and monkey cortex agree most in which pictures are near each other", ["brains"])
def near_pairs_agree(study: Brains, seed: int) -> Run:
    """Correlation over four fifths of the pictures, as the seed draws; a model of V1 should not agree."""

    def measure(draw: int) -> dict[str, float]:
        found = {}
        for name, thresholds in _RANGES.items():
            mapped = GeoTopological(*thresholds)
            human, monkey, v1 = (mapped.fit_transform(rdms) for rdms in study.averages(draw))
            found[f"monkey, {name}"] = float(compare(human, monkey, "pearson")[0, 0])
            found[f"V1 model, {name}"] = float(compare(human, v1, "pearson")[0, 0])
        return found

    figures = _averaged(measure, seed, DRAWS)
    others = max(figures[f"monkey, {name}"] for name in _RANGES if name != _NEAREST)
    return figures[f"monkey, {_NEAREST}"] - others, figures


@CHECKS.claim("C5", "The first 64 dims of a nested embedding keep 0.1 more than 64 at random", ["words"])
def prefixes_keep_more(study: Words, seed: int) -> Run:
    """Correlation of transformed matrices of 8 to 128 of 256 dims with those of all."""
    each = _averaged(study.kept, seed, DRAWS)
    gains = [
        each[f"{metric}, dim={_DIM}"] - each[f"{metric}, {_DIM} at random"] for metric in ("rank", "local")
    ]
    return min(gains) - _OVER_RANDOM, each


@CHECKS.claim(
    "C6",
    "Thresholds of each matrix by itself identify layers 0.15 better than rsatoolbox's pooled ones",
    ["peer"],
)
def exact_beats_pooled(study: Networks, seed: int) -> Run:
    """The geo-topological transform of rsatoolbox on the same matrices, given in one object."""
    peer = require("rsatoolbox.rdm", "rsatoolbox")

    def measure(draw: int) -> dict[str, float]:
        rdms, found = study.rdms(draw), {}
        for low, up in _PEERS_THRESHOLDS:
            copied = rdms.replace(vectors=rdms.vectors.copy()).to_rsatoolbox()
            pooled = peer.geotopological_transform(copied, low=low, up=up).dissimilarities
            for name, matrices in (
                ("ours", GeoTopological(low, up).fit_transform(rdms)),
                ("rsatoolbox", rdms.replace(vectors=pooled)),
            ):
                shares = identify(matrices, label="layer", subject="network")
                found[f"{name} ({low:g}, {up:g})"] = shares.accuracy
        return found

    figures = _averaged(measure, seed, study.draws)
    gains = [
        figures[f"ours ({low:g}, {up:g})"] - figures[f"rsatoolbox ({low:g}, {up:g})"]
        for low, up in _PEERS_THRESHOLDS
    ]
    return min(gains) - _OVER_PEER, figures


NOT_TESTED = {
    "C7": "Eight areas of 24 people by fMRI: the recordings are not public",
    "C8": "All-CNN-C on CIFAR-10, 10 seeds of 350 epochs: needs GPUs for days",
}
CLAIMS = (*dict.fromkeys(check.id for check in CHECKS), *NOT_TESTED)


@cache  # two claims look at them
def _groupings(study: Shapes, seed: int) -> dict[str, float]:
    """The ratio of C1 by the statistic and the number of points."""
    transforms = {
        "distances": None,
        "ranks": GeoTopological(0, 1),
        "near and far": GeoTopological(0, _NEAR),
        "paths": Geodesic("twostep", upper=_NEAR),
    }

    def measure(draw: int) -> dict[str, float]:
        return {
            f"{name}, {count} points": study.grouping(count, draw, transform)
            for count in _POINTS
            for name, transform in transforms.items()
        }

    return _averaged(measure, seed, DRAWS)


@cache  # two claims look at them
def _across_seeds(study: Networks, seed: int) -> dict[str, float]:
    """Shares of layers that are found, by the statistic and the noise on activities."""

    def measure(share: float, draw: int) -> dict[str, float]:
        return identification(study.rdms(draw, noise=share), "layer", "network", seed)

    return {
        f"{name}, {noise}": value
        for noise, share in _ACTIVITY_NOISES.items()
        for name, value in _averaged(partial(measure, share), seed, study.draws).items()
    }


def _averaged(measure: Callable[[int], dict[str, float]], seed: int, draws: int) -> dict[str, float]:
    """Means over so many draws, which are different ones for each seed."""
    each = [measure(draws * seed + draw) for draw in range(draws)]
    return {name: float(np.mean([found[name] for found in each])) for name in each[0]}


def _by_similarity(similarity: np.ndarray, rdms: RDMs) -> float:
    """Share of matrices that are most alike, in the mean over other networks, to their own layer."""
    layers, networks = (np.array(rdms.labels[name]) for name in ("layer", "network"))
    names = np.unique(layers)
    right = []
    for row, (layer, network) in enumerate(zip(layers, networks, strict=True)):
        others = networks != network
        means = [similarity[row, others & (layers == name)].mean() for name in names]
        right.append(names[int(np.argmax(means))] == layer)
    return float(np.mean(right))


def run(tour: Tour) -> tuple[list[Claim], dict[str, object]]:
    """Measure what is asked."""
    networks = Networks(tour.quick)
    problems: Mapping[str, Any] = {
        "shapes": Shapes(),
        "alexnet": AlexNet(),
        "networks": networks,
        "peer": networks,
        "brains": Brains(),
        "words": Words(),
    }
    absent = {}
    try:
        require("rsatoolbox.rdm", "rsatoolbox")
    except MissingExtraError as error:
        absent["peer"] = str(error)
    measured = measure_checks(tour.checks(CHECKS), problems, tour.seeds, absent)
    return [*measured, *tour.untested(NOT_TESTED)], {}
