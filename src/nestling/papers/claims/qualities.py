"""Quality of vectors and models: nearest neighbours, matching, cascades, funnels, new classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nestling.cut import CutRule
from nestling.measure import AdaptiveClassifier, NearestClassMean
from nestling.measure.tasks.metrics import average_precision, label_hits, ndcg, spearman
from nestling.papers.problems.labelled import Floats, Ints, LabelledData, PairedData, Rows
from nestling.search.exact.funnel import Funnel
from nestling.search.exact.neighbours import nearest, nearest_each
from nestling.vectors.prefix import prefix_pair_scores

if TYPE_CHECKING:
    from nestling.papers.claims.models import Model

_QUERIES, _DATABASE = 2_000, 20_000
_NEIGHBOURS = 10
_SHORTLIST = 200  # the paper's K
_SHOT_DRAWS = 10


def retrieval(
    data: LabelledData, vectors: Callable[[Floats], Floats], dims: Sequence[int]
) -> dict[int, tuple[float, float]]:
    """1-NN accuracy and mAP@10 by size, in points: test rows look for training rows of their class."""
    queries, database = retrieval_rows(data)
    found = nearest_each(vectors(queries.x), vectors(database.x), sorted(dims), _NEIGHBOURS)
    return {dim: label_quality(each.indices, database.labels, queries.labels) for dim, each in found.items()}


def label_quality(found: Ints, labels: Ints, asked: Ints) -> tuple[float, float]:
    """1-NN accuracy and mAP@k, in points, of rows found for queries of the classes ``asked``."""
    hits = label_hits(found, labels, asked)
    return 100 * float(hits[:, 0].mean()), 100 * float(average_precision(hits).mean())


def retrieval_rows(data: LabelledData) -> tuple[Rows, Rows]:
    """The first test rows as queries and the first training rows as database (both in random order)."""
    return (
        Rows(data.test.x[:_QUERIES], data.test.labels[:_QUERIES]),
        Rows(data.train.x[:_DATABASE], data.train.labels[:_DATABASE]),
    )


def matching(
    data: PairedData, vectors: Callable[[Floats], Floats], part: str, dims: Sequence[int]
) -> dict[int, float]:
    """nDCG@10 of finding each partner, or Spearman's correlation with the scores, by size and in points."""
    pairs = data.validation if part == "validation" else data.test
    first, second = vectors(pairs.first), vectors(pairs.second)
    if pairs.scores is not None:
        cosines = zip(dims, prefix_pair_scores(first, second, dims), strict=True)
        return {dim: 100 * spearman(each, pairs.scores) for dim, each in cosines}
    own = np.arange(len(first))[:, None]
    found = nearest_each(first, second, dims, _NEIGHBOURS)
    return {dim: 100 * float(ndcg(each.indices == own, own >= 0).mean()) for dim, each in found.items()}


def cascade(data: LabelledData, model: Model, dims: Sequence[int]) -> dict[str, float]:
    """Accuracy in points and mean dims of a cascade over ``dims``, fitted on the validation rows."""
    found = [model.probabilities(rows.x) for rows in (data.validation, data.test)]
    held_out, asked = ([each[dim] for dim in dims] for each in found)
    classifier = AdaptiveClassifier(dims).fit(held_out, data.validation.labels)
    accuracy = (classifier.predict(asked) == data.test.labels).mean()
    cost = classifier.cost(classifier.route(asked), data.num_classes)
    return {
        "cascade": 100 * float(accuracy),
        "expected dims": cost.answering_dim,
        "dims of all heads tried": cost.cumulative_dim,
    }


def searches(data: LabelledData, model: Model) -> dict[str, float]:
    """mAP@10 of three methods to search, in points, and what the latter two multiply of the first."""
    dims = data.nesting.sizes("dim")
    small, full = dims[len(dims) // 2 - 1], dims[-1]
    queries, database = retrieval_rows(data)
    q, d = model.vectors(queries.x), model.vectors(database.x)
    methods = {
        "reranked": Funnel.adaptive(small, full, shortlist=_SHORTLIST),
        "funnel": Funnel.geometric(small, full, shortlist=_SHORTLIST, k=_NEIGHBOURS),
    }
    found = {"single shot": nearest(q, d, _NEIGHBOURS)}
    found |= {name: method.search(q, d, _NEIGHBOURS) for name, method in methods.items()}
    scores = {
        name: label_quality(each.indices, database.labels, queries.labels)[1] for name, each in found.items()
    }
    shares = {
        f"{name}: share of products": method.mflops(len(d)) * 1e6 / (len(d) * full)
        for name, method in methods.items()
    }
    return {**scores, **shares}


def new_class_accuracy(data: LabelledData, model: Model, new: Ints, shots: int, seed: int) -> float:
    """Accuracy, in points, on test rows of ``new`` classes among all classes, by nearest class mean.

    Of each new class ``shots`` rows are known, of the others all training rows; mean over draws of shots.
    """
    train, test, labels = model.vectors(data.train.x), model.vectors(data.test.x), data.train.labels
    asked, known = np.isin(data.test.labels, new), np.flatnonzero(~np.isin(labels, new))
    right = []
    for draw in range(_SHOT_DRAWS):
        rng = np.random.default_rng([14, seed, draw])
        rows = np.concatenate([known, *(rng.choice(np.flatnonzero(labels == each), shots) for each in new)])
        task = NearestClassMean(train[rows], labels[rows], test[asked], data.test.labels[asked])
        right.append(task.score(task.inputs, [train.shape[1]], CutRule()).values.mean())
    return 100 * float(np.mean(right))
