"""The models that the claims of MRL compare: ours and the baselines, all trained with the same effort."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from nestling.cut import CutRule
from nestling.encoders.vectors import PCARotation
from nestling.errors import NoGainWarning
from nestling.granularity import Nesting
from nestling.losses import CoSENT, CrossEntropy, InfoNCE, Nested
from nestling.measure import AdaptiveClassifier, NearestClassMean
from nestling.measure.tasks.metrics import average_precision, label_hits, ndcg, spearman
from nestling.nn.heads import NestedClassifier
from nestling.papers.problems.labelled import Floats, Ints, LabelledData, PairedData, Rows
from nestling.search.exact.funnel import Funnel
from nestling.search.exact.neighbours import nearest, nearest_each
from nestling.training import TrainConfig, fit
from nestling.vectors.prefix import prefix_pair_scores

_SEARCH_SEED = 1_000
_HIDDEN = 256
_QUERIES, _DATABASE = 2_000, 20_000
_NEIGHBOURS = 10
_SHORTLIST = 200  # the paper's K
_SHOT_DRAWS = 10
_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


@dataclass(frozen=True)
class Method:
    """One way to train: over a nesting, with a matrix a size or one for all, and the sizes' importances.

    A nesting of a single size is the fixed-feature baseline FF-m, here with an encoder m wide.
    """

    name: str
    nesting: Nesting
    tied: bool = False
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """A trained encoder with its classification head, if the problem has classes."""

    network: nn.Module
    head: NestedClassifier | None

    @torch.no_grad()
    def vectors(self, x: Floats) -> Floats:
        """``Float[n, dim]`` of inputs ``Float[n, inputs]``."""
        return self.network.eval()(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]

    @torch.no_grad()
    def probabilities(self, x: Floats) -> dict[int, Floats]:
        """``Float[n, classes]`` at each size of the head."""
        assert self.head is not None
        logits = self.head.eval().forward_each(torch.from_numpy(self.vectors(x)))
        return {g["dim"]: each.softmax(-1).numpy() for g, each in logits.items()}

    def accuracies(self, rows: Rows) -> dict[int, float]:
        """Share of rows that each size of the head gets right, in points."""
        found = self.probabilities(rows.x)
        return {dim: 100 * float((each.argmax(1) == rows.labels).mean()) for dim, each in found.items()}


class Supervised(nn.Module):
    """MRL's objective on labelled rows: cross-entropy of nested heads, summed over the sizes (equation 1)."""

    def __init__(self, head: NestedClassifier, method: Method) -> None:
        super().__init__()
        self.head = head
        self.loss = Nested(CrossEntropy(head, label_smoothing=0.1), method.nesting, weights=method.weights)

    def forward(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Loss of a batch of (inputs, labels)."""
        x, labels = batch
        return self.loss(model(x), labels=labels)  # type: ignore[no-any-return]


class Contrastive(nn.Module):
    """The same over pairs: InfoNCE where each text has one partner, CoSENT where people gave scores."""

    def __init__(self, method: Method, *, scored: bool) -> None:
        super().__init__()
        self.scored = scored
        self.loss = Nested(CoSENT() if scored else InfoNCE(), method.nesting, weights=method.weights)

    def forward(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Loss of a batch of (first, second) or (first, second, scores)."""
        first, second = model(batch[0]), model(batch[1])
        rest = {"scores": batch[2]} if self.scored else {}
        return self.loss(first, second, **rest)  # type: ignore[no-any-return]


def train(data: LabelledData | PairedData, method: Method, config: TrainConfig) -> Model:
    """One model from scratch; what differs between the methods is the nesting and the head alone."""
    dim, head = method.nesting.full["dim"], None
    objective: nn.Module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if isinstance(data, LabelledData):
            network = _encoder(data.train.x.shape[1], dim)
            head = NestedClassifier(method.nesting, data.num_classes, tied=method.tied)
            objective = Supervised(head, method)
        else:
            network = _linear_map(data.train.first.shape[1], dim)
            objective = Contrastive(method, scored=data.train.scores is not None)
    fit(network, objective, tuple(column for column in data.train if column is not None), config)
    return Model(network, head)


def _encoder(inputs: int, dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, dim), nn.BatchNorm1d(dim))


def _linear_map(inputs: int, dim: int) -> nn.Module:
    """Starts as plain truncation of its inputs, so that no method gives up what these know already."""
    linear = nn.Linear(inputs, dim, bias=False)
    nn.init.eye_(linear.weight)
    return linear


@dataclass(frozen=True)
class Effort:
    """What every method of a problem gets alike: the steps, and the learning rates it may pick from."""

    config: TrainConfig
    rates: tuple[float, ...]

    @classmethod
    def of(cls, quick: bool, epochs: int, batch_size: int = 512, rates: tuple[float, ...] = _RATES) -> Effort:
        """The usual effort, or a few steps at one rate."""
        config = TrainConfig(epochs=epochs, batch_size=batch_size, weight_decay=1e-4, max_grad_norm=None)
        return cls(replace(config, max_steps=4), (1e-2,)) if quick else cls(config, rates)


class Study:
    """One problem with every model that was asked for; each is trained once, when first needed."""

    def __init__(self, key: str, data: LabelledData | PairedData, effort: Effort) -> None:
        self.key, self.data, self.effort = key, data, effort
        self.dims = data.nesting.sizes("dim")
        self.rates: dict[str, float] = {}
        self._models: dict[tuple[str, int], Model] = {}

    @property
    def name(self) -> str:
        """What the problem is called in the report."""
        return self.data.name

    @property
    def mrl(self) -> Method:
        """One matrix a size, all sizes equally important."""
        return Method("MRL", self.data.nesting)

    def fixed(self, dim: int) -> Method:
        """FF-m: trained for one size alone."""
        return Method(f"FF-{dim}", Nesting.chain(dim=[dim]))

    @property
    def full(self) -> Method:
        """FF at the full size."""
        return self.fixed(self.dims[-1])

    def model(self, method: Method, seed: int) -> Model:
        """The model of one method and seed."""
        key = (method.name, seed)
        if key not in self._models:
            config = replace(self.effort.config, lr=self.rate(method), seed=seed)
            self._models[key] = train(self.data, method, config)
        return self._models[key]

    def model_without(self, method: Method, seed: int, classes: Ints) -> Model:
        """A model that never saw ``classes``, with the learning rate found on all."""
        assert isinstance(self.data, LabelledData)
        kept = np.setdiff1d(np.arange(self.data.num_classes), classes)
        seen = np.isin(self.data.train.labels, kept)
        rows = Rows(self.data.train.x[seen], np.searchsorted(kept, self.data.train.labels[seen]))
        return train(
            replace(self.data, train=rows),
            method,
            replace(self.effort.config, lr=self.rate(method), seed=seed),
        )

    def rate(self, method: Method) -> float:
        """The rate with which ``method`` does best on the validation rows, with a seed of its own."""
        if method.name not in self.rates and len(self.effort.rates) == 1:
            self.rates[method.name] = self.effort.rates[0]
        if method.name not in self.rates:
            scores = {}
            for rate in self.effort.rates:
                model = train(self.data, method, replace(self.effort.config, lr=rate, seed=_SEARCH_SEED))
                scores[rate] = self._validate(model, method)
            self.rates[method.name] = max(scores, key=lambda rate: scores[rate])
        return self.rates[method.name]

    def _validate(self, model: Model, method: Method) -> float:
        if isinstance(self.data, LabelledData):
            return float(np.mean(list(model.accuracies(self.data.validation).values())))
        sizes = method.nesting.sizes("dim")
        return float(np.mean(list(matching(self.data, model.vectors, "validation", sizes).values())))

    def quality(
        self, vectors: Callable[[Floats], Floats], dims: Sequence[int] | None = None
    ) -> dict[int, float]:
        """Test quality of vectors by comparing them, in points: 1-NN, nDCG@10 or Spearman."""
        sizes = self.dims if dims is None else tuple(dims)
        if isinstance(self.data, LabelledData):
            return {dim: top1 for dim, (top1, _) in retrieval(self.data, vectors, sizes).items()}
        return matching(self.data, vectors, "test", sizes)

    def rotated(self, model: Model) -> Callable[[Floats], Floats]:
        """The vectors of ``model`` turned into their principal axes, as fitted on the training rows."""
        train = self.data.train
        rows = train.x if isinstance(train, Rows) else np.concatenate([train.first, train.second])
        # Where it pays is what the study itself measures.
        with warnings.catch_warnings(action="ignore", category=NoGainWarning):
            rotation = PCARotation(self.data.nesting).fit(model.vectors(rows[:_DATABASE]))
        return lambda x: np.asarray(rotation.transform(model.vectors(x)), np.float32)


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
    """mAP@10 of three ways to search, in points, and what the latter two multiply of the first."""
    dims = data.nesting.sizes("dim")
    small, full = dims[len(dims) // 2 - 1], dims[-1]
    queries, database = retrieval_rows(data)
    q, d = model.vectors(queries.x), model.vectors(database.x)
    ways = {
        "reranked": Funnel.adaptive(small, full, shortlist=_SHORTLIST),
        "funnel": Funnel.geometric(small, full, shortlist=_SHORTLIST, k=_NEIGHBOURS),
    }
    found = {"single shot": nearest(q, d, _NEIGHBOURS)}
    found |= {name: way.search(q, d, _NEIGHBOURS) for name, way in ways.items()}
    scores = {
        name: label_quality(each.indices, database.labels, queries.labels)[1] for name, each in found.items()
    }
    shares = {
        f"{name}: share of products": way.mflops(len(d)) * 1e6 / (len(d) * full) for name, way in ways.items()
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
