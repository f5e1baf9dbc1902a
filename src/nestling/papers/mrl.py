"""MRL, Matryoshka Representation Learning (Kusupati et al. 2022, arXiv 2205.13147), and its claims.

One encoder is trained so that every leading part ``z[:m]`` of its output is an embedding of its own. The
loss is the sum over sizes ``m`` of the ordinary loss on ``z[:m]``: :class:`Objective` and :func:`train` are
the whole method. The cost is then chosen by slicing. The paper shows this on ImageNet; here each claim is
restated for problems that train in seconds on a CPU (``nestling.papers.problems.labelled``).

Each function under ``@CHECKS.claim`` measures one claim with one seed on one problem. It returns the
clearance (how far the tightest figure lies on the right side of its margin) and the figures. The margins
come from a pilot on another problem (316 classes of WordNet definitions, nesting 8 to 256) or from the
paper. They were fixed before any test row of these problems was used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from nestling.encoders.text.encoder import TextEncoder
from nestling.losses import CoSENT, CrossEntropy, InfoNCE, Nested
from nestling.nn.heads import NestedClassifier
from nestling.papers.claims.checks import Checks, Run, Tour, measure_checks
from nestling.papers.claims.margins import at_least, differences, over
from nestling.papers.claims.models import Effort, Method, Model, Study
from nestling.papers.claims.qualities import cascade, new_class_accuracy, retrieval, searches
from nestling.papers.claims.report import Claim
from nestling.papers.problems.labelled import (
    LabelledData,
    PairedData,
    Rows,
    descriptions,
    docstrings,
    fashion,
    packages,
    sentence_similarity,
    small_digits,
)
from nestling.training import TrainConfig, fit

TITLE = "MRL: Matryoshka Representation Learning (arXiv 2205.13147), claims at small scale"

CHECKS: Checks[Study] = Checks()
_LABELLED, _ALL = ("pictures", "packages"), ("pictures", "packages", "descriptions", "similarity")

_HIDDEN = 256  # units of the network on pictures and word vectors
_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
# Points by rank of the size, smallest first; where a problem has fewer margins than sizes, nothing is
# claimed for the larger ones. Pictures: ten classes fit into 16 dims, so margins end at 8. Pairs: half
# of the pilot's, as the word vectors they start from are nested themselves.
_OVER_TRUNCATION = {
    "pictures": (10, 5, 2),
    "packages": (10, 10, 5, 2, 0.5),
    "descriptions": (5, 5, 2.5),
    "similarity": (2, 1),
}
_OVER_PCA = {"pictures": (4, 3), "packages": (4, 3), "descriptions": (2, 1.5), "similarity": (2, 1)}
_UNDER_FIXED = (5, 5, 3, 2, 2, 2)  # pilot: how far below a separately trained model is still "as accurate"
_RETRIEVAL_GAIN = 0.5  # pilot: +1.2 at full size
_TIED_LOSS, _TIED_SLACK = 1.5, 1.0  # pilot: 3.3 at the smallest size, 0.7 or less from the third up
_INTERPOLATION_SLACK = 0.5  # pilot
_BOOST, _BOOST_GAIN, _BOOST_LOSS = (4.0, 2.0), 1.0, 1.5  # pilot: +2.2 at the smallest, -0.8 elsewhere
_COARSE_GAIN = 0.2  # pilot: 0.78 of the coarse accuracy kept against 0.47 of the fine
_HEADROOM = 0.2  # share of the best head's errors: 4.7 of 23.2 points in the paper, 10.7 of 52.9 in the pilot
_CASCADE_LOSS, _CASCADE_SHARE = 0.3, 0.25  # paper: 0.3 points of the largest head's accuracy, at 37 of 2048
_DIGITS_LOSS = 0.5  # two or three of 497 pictures
_RERANK_LOSS = 0.3  # pilot: 0.21 points of mAP@10
_RETENTION_LOSS = 0.02  # pilot: 0.797 against 0.804
_FEW_SHOT_GAIN = 0.5  # paper: up to 2 points on new classes
_SHOTS = (1, 5, 20)


class Objective(nn.Module):
    """MRL's loss of a batch: that of ``base`` on ``z[:m]``, summed over the sizes ``m`` (equation 1)."""

    def __init__(self, base: nn.Module, method: Method) -> None:
        super().__init__()
        self.is_labelled = isinstance(base, CrossEntropy)
        self.loss = Nested(base, method.nesting, weights=method.weights)

    def forward(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Loss of a batch of (inputs, labels), (first, second) or (first, second, scores)."""
        if self.is_labelled:
            x, labels = batch
            return self.loss(model(x), labels=labels)  # type: ignore[no-any-return]
        first, second, *scores = batch
        rest = {"scores": scores[0]} if scores else {}
        return self.loss(model(first), model(second), **rest)  # type: ignore[no-any-return]


def train(data: LabelledData | PairedData, method: Method, config: TrainConfig) -> Model:
    """Train one model from scratch. Methods differ only in their nesting, weights and head."""
    dim, head = method.nesting.full["dim"], None
    base: nn.Module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if isinstance(data, LabelledData):
            network = _encoder(data.train.x.shape[1], dim)
            head = NestedClassifier(method.nesting, data.num_classes, tied=method.tied)
            base = CrossEntropy(head, label_smoothing=0.1)
        else:
            network = _linear_map(data.train.first.shape[1], dim)
            base = InfoNCE() if data.train.scores is None else CoSENT()
    columns = tuple(column for column in data.train if column is not None)
    fit(network, Objective(base, method), columns, config)
    return Model(network, head)


def _encoder(inputs: int, dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, dim), nn.BatchNorm1d(dim))


def _linear_map(inputs: int, dim: int) -> nn.Module:
    """Starts as plain truncation of its inputs, so that no method loses what these already know."""
    linear = nn.Linear(inputs, dim, bias=False)
    nn.init.eye_(linear.weight)
    return linear


@CHECKS.claim("C1", "Prefixes beat the first, and random, dims of a model trained at full size", _ALL)
def beats_truncation(study: Study, seed: int) -> Run:
    """Prefixes against the first, and against random, entries of vectors trained at full size."""
    nested = study.quality(study.model(study.mrl, seed).vectors)
    full = study.model(study.full, seed)
    order = np.random.default_rng([1, seed]).permutation(study.dims[-1])
    cut, drawn = study.quality(full.vectors), study.quality(lambda x: full.vectors(x)[:, order])
    best = {dim: max(cut[dim], drawn[dim]) for dim in study.dims}
    return over(nested, best, _OVER_TRUNCATION[study.key])


@CHECKS.claim("C2", "Prefixes beat PCA of a model trained at full size, at strong compression", _ALL)
def beats_pca(study: Study, seed: int) -> Run:
    """Prefixes against the leading principal components of vectors trained at full size."""
    nested = study.quality(study.model(study.mrl, seed).vectors)
    components = study.quality(study.rotated(study.model(study.full, seed)))
    return over(nested, components, _OVER_PCA[study.key])


@CHECKS.claim("C3", "Each size is as good as a model trained for it alone", _ALL)
def matches_fixed(study: Study, seed: int) -> Run:
    """Each size against a model trained for that size alone."""
    ours = study.model(study.mrl, seed)
    fixed = [study.model(study.fixed(dim), seed) for dim in study.dims]
    sizes = list(zip(study.dims, fixed, strict=True))
    if isinstance(study.data, LabelledData):
        test = study.data.test
        nested, alone = ours.accuracies(test), {dim: model.accuracies(test)[dim] for dim, model in sizes}
    else:
        nested = study.quality(ours.vectors)
        alone = {dim: study.quality(model.vectors, [dim])[dim] for dim, model in sizes}
    return over(nested, alone, [-margin for margin in _UNDER_FIXED])


@CHECKS.claim("C4", "mAP@10 at full size beats that of a model trained at it", _LABELLED)
def retrieves_better(study: Study, seed: int) -> Run:
    """MAP@10 at the full size against the model trained at it."""
    data, dim = study.labelled, study.dims[-1]
    scores = [
        retrieval(data, study.model(method, seed).vectors, [dim])[dim][1]
        for method in (study.mrl, study.full)
    ]
    return at_least({dim: scores[0] - scores[1]}, [_RETRIEVAL_GAIN])


@CHECKS.claim("C5", "One shared matrix (MRL-E) costs accuracy at small sizes only", _LABELLED)
def tied_costs_small_sizes(study: Study, seed: int) -> Run:
    """One matrix a size against one for all: a loss at the smallest size, none from the third up."""
    tied = Method("MRL-E", study.data.nesting, tied=True)
    test = study.labelled.test
    gaps = differences(*(study.model(method, seed).accuracies(test) for method in (study.mrl, tied)))
    rest = [_TIED_SLACK - abs(gaps[dim]) for dim in study.dims[2:]]
    figures = {f"gap at {dim}": gap for dim, gap in gaps.items()}
    return min(gaps[study.dims[0]] - _TIED_LOSS, *rest), figures


@CHECKS.claim("C6", "Sizes that were never trained do no worse than their worse neighbour", _LABELLED)
def interpolates(study: Study, seed: int) -> Run:
    """1-NN at sizes half-way between trained ones, over the worse of its two neighbours."""
    between = [(small + large) // 2 for small, large in zip(study.dims, study.dims[1:], strict=False)]
    found = study.quality(study.model(study.mrl, seed).vectors, sorted({*study.dims, *between}))
    sides = zip(between, study.dims, study.dims[1:], strict=False)
    gaps = {dim: found[dim] - min(found[small], found[large]) for dim, small, large in sides}
    return at_least(gaps, [-_INTERPOLATION_SLACK] * len(gaps))


@CHECKS.claim("C7", "More weight on the small sizes moves quality there", _LABELLED)
def weights_move_quality(study: Study, seed: int) -> Run:
    """Weight 4 and 2 on the two smallest sizes: better at the smallest, little worse elsewhere."""
    weights = (*_BOOST, *[1.0] * (len(study.dims) - 2))
    boosted = Method("MRL, small sizes weighted", study.data.nesting, weights=weights)
    test = study.labelled.test
    gaps = differences(*(study.model(method, seed).accuracies(test) for method in (boosted, study.mrl)))
    return at_least(gaps, [_BOOST_GAIN, *[-_BOOST_LOSS] * (len(gaps) - 1)])


@CHECKS.claim("C8", "Coarse labels survive truncation better than fine ones", ("pictures",))
def coarse_survives(study: Study, seed: int) -> Run:
    """Share of the full accuracy left at the smallest size, of superclasses and of classes."""
    data = study.labelled
    assert data.coarse is not None
    kept = []
    for grouping in (data.coarse, np.arange(data.num_classes)):
        groups = np.eye(grouping.max() + 1, dtype=np.float32)[grouping]
        found = study.model(study.mrl, seed).probabilities(data.test.x)
        right = {
            dim: ((each @ groups).argmax(1) == grouping[data.test.labels]).mean()
            for dim, each in found.items()
        }
        kept.append(float(right[study.dims[0]] / right[study.dims[-1]]))
    return kept[0] - kept[1] - _COARSE_GAIN, {"kept of superclasses": kept[0], "kept of classes": kept[1]}


@CHECKS.claim("C9", "Some inputs are right at a small size only: an oracle has headroom", _LABELLED)
def oracle_has_headroom(study: Study, seed: int) -> Run:
    """Rows that some size gets right, over those that the best size gets right."""
    data = study.labelled
    found = study.model(study.mrl, seed).probabilities(data.test.x)
    right = np.array([each.argmax(1) == data.test.labels for each in found.values()])
    best, oracle = float(right.mean(1).max()), float(right.any(0).mean())
    share = (oracle - best) / max(1 - best, 1 / len(data.test.labels))
    lost = float((right[:-1].any(0) & ~right[-1]).mean())
    figures = {"best size": 100 * best, "oracle": 100 * oracle, "right only below full": 100 * lost}
    return share - _HEADROOM, {**figures, "share of errors": share}


@CHECKS.claim("C10", "A cascade is as accurate as the full size at a quarter of its dims", _LABELLED)
def cascade_saves_dims(study: Study, seed: int) -> Run:
    """Answer at the first size that is sure enough; thresholds come from the validation rows."""
    data = study.labelled
    model, full = study.model(study.mrl, seed), study.dims[-1]
    found, whole = cascade(data, model, study.dims), model.accuracies(data.test)[full]
    saved = 100 * (_CASCADE_SHARE - found["expected dims"] / full)
    return min(found["cascade"] - whole + _CASCADE_LOSS, saved), {f"fixed at {full}": whole, **found}


@CHECKS.claim("C10", "A cascade up to 8 dims is as accurate as 4 dims always, with fewer", ("digits",))
def cascade_beats_fixed_size(study: Study, seed: int) -> Run:
    """A cascade of the sizes up to 8 against always using 4 dims."""
    data = study.labelled
    model, small = study.model(study.mrl, seed), [dim for dim in study.dims if dim <= 8]
    found, fixed = cascade(data, model, small), model.accuracies(data.test)[4]
    clearance = min(found["cascade"] - fixed + _DIGITS_LOSS, 4 - found["expected dims"])
    return clearance, {"fixed at 4": fixed, **found}


@CHECKS.claim("C11", "A shortlist at a small size, re-ordered at the full one, loses nothing", _LABELLED)
def reranking_keeps_quality(study: Study, seed: int) -> Run:
    """The 200 nearest at a small size, re-ordered at the full one, against search at the full one."""
    found = searches(study.labelled, study.model(study.mrl, seed))
    return found["reranked"] - found["single shot"] + _RERANK_LOSS, found


@CHECKS.claim("C12", "A funnel does as well as one re-ordering", _LABELLED)
def funnel_keeps_quality(study: Study, seed: int) -> Run:
    """Ever shorter lists at ever larger sizes, against one re-ordering."""
    found = searches(study.labelled, study.model(study.mrl, seed))
    return found["funnel"] - found["reranked"] + _RERANK_LOSS, found


@CHECKS.claim("C13", "As robust to shifts as a model trained at full size", _LABELLED)
def as_robust(study: Study, seed: int) -> Run:
    """Share of the clean accuracy kept under each shift, against the model trained at full size."""
    data, dim, kept = study.labelled, study.dims[-1], []
    for method in (study.mrl, study.full):
        model = study.model(method, seed)
        clean = model.accuracies(data.test)[dim]
        kept.append(
            {
                name: model.accuracies(Rows(x, data.test.labels))[dim] / clean
                for name, x in data.shifted.items()
            }
        )
    figures = {f"{name}: MRL - FF": kept[0][name] - kept[1][name] for name in data.shifted}
    return min(figures.values()) + _RETENTION_LOSS, figures


@CHECKS.claim("C14", "Better on new classes, few-shot, than a model trained at full size", _LABELLED)
def learns_new_classes(study: Study, seed: int) -> Run:
    """Nearest class mean on classes held out of training, mean over 1, 5 and 20 shots."""
    data = study.labelled
    new = np.random.default_rng([14, seed]).permutation(data.num_classes)[: max(2, data.num_classes // 4)]
    scores = {}
    for method in (study.mrl, study.full):
        model = study.model_without(method, seed, new)
        scores[method.name] = [new_class_accuracy(data, model, new, shots, seed) for shots in _SHOTS]
    ours, theirs = scores.values()
    figures = {
        f"{name}, {shots} shots": value
        for name, values in scores.items()
        for shots, value in zip(_SHOTS, values, strict=True)
    }
    return float(np.mean(ours) - np.mean(theirs)) - _FEW_SHOT_GAIN, figures


NOT_TESTED = {
    "C15": "14x fewer dims and 14x faster retrieval at ImageNet's accuracy: needs a ResNet-50 on ImageNet",
    "C16": "Natural distribution shift (ImageNet-V2, -A, -R, -Sketch): not at hand; C13 has made shifts",
    "C17": "Web scale (ALIGN, JFT-300M, BERT pre-training): does not fit on one machine",
}
CLAIMS = (*dict.fromkeys(check.id for check in CHECKS), *NOT_TESTED)


def problems(keys: Collection[str], quick: bool, rates: tuple[float, ...] = _RATES) -> Iterator[Study]:
    """The problems of ``keys``, each read and encoded only if it is wanted."""
    effort, study = partial(Effort.of, quick, rates=rates), partial(Study, train=train)
    if "pictures" in keys:
        yield study("pictures", fashion(quick), effort(epochs=5))
    if "digits" in keys:
        yield study("digits", small_digits(), effort(epochs=40, batch_size=64))
    if {"packages", "descriptions", "similarity"} & set(keys):
        pairs, encoder = docstrings(quick), TextEncoder.open("wordllama")
        if "packages" in keys:
            yield study("packages", packages(pairs, encoder, quick), effort(epochs=15))
        if "descriptions" in keys:
            yield study("descriptions", descriptions(pairs, encoder, quick), effort(epochs=3))
        if "similarity" in keys:
            yield study(
                "similarity", sentence_similarity(pairs, encoder, quick), effort(epochs=8, batch_size=64)
            )


def run(tour: Tour) -> tuple[list[Claim], dict[str, object]]:
    """Measure what is asked; also the learning rates that were picked."""
    checks = tour.checks(CHECKS)
    studies = {
        study.key: study for study in problems({key for check in checks for key in check.on}, tour.quick)
    }
    measured = measure_checks(checks, studies, tour.seeds)
    rates = {study.name: dict(study.rates) for study in studies.values()}
    return [*measured, *tour.untested(NOT_TESTED)], {"learning rates": rates}
