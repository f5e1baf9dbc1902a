"""Models of every method on a problem, each trained once, at the learning rate that validates best."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from nestling.encoders.maps import PCARotation
from nestling.errors import NoGainWarning
from nestling.granularity import Nesting
from nestling.nn.heads import NestedClassifier
from nestling.papers.claims.qualities import matching, retrieval
from nestling.papers.problems.labelled import Floats, Ints, LabelledData, PairedData, Rows
from nestling.training import TrainConfig

_SEARCH_SEED = 1_000
_FITTED = 20_000  # rows that principal axes are fitted on


@dataclass(frozen=True)
class Method:
    """One training method: its nesting, the weights of the sizes, one matrix per size or one for all (tied).

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


@dataclass(frozen=True)
class Effort:
    """The budget of every method of a problem: steps, and learning rates to pick from."""

    config: TrainConfig
    rates: tuple[float, ...]

    @classmethod
    def of(cls, quick: bool, epochs: int, batch_size: int = 512, *, rates: tuple[float, ...]) -> Effort:
        """The usual effort, or a few steps at one rate."""
        config = TrainConfig(epochs=epochs, batch_size=batch_size, weight_decay=1e-4, max_grad_norm=None)
        return cls(replace(config, max_steps=4), (1e-2,)) if quick else cls(config, rates)


class Study:
    """One problem and the models of all methods on it; each is trained once, when it is first needed.

    Args:
        key: names the problem in the list of claims.
        data: data for training, validation and the report.
        effort: budget of every method.
        train: one model of a method, with a rate and a seed.
    """

    def __init__(
        self,
        key: str,
        data: LabelledData | PairedData,
        effort: Effort,
        train: Callable[[LabelledData | PairedData, Method, TrainConfig], Model],
    ) -> None:
        self.key, self.data, self.effort, self._train = key, data, effort, train
        self.dims = data.nesting.sizes("dim")
        self.rates: dict[str, float] = {}
        self._models: dict[tuple[str, int], Model] = {}

    @property
    def labelled(self) -> LabelledData:
        """The data of a problem of classes."""
        assert isinstance(self.data, LabelledData)
        return self.data

    @property
    def name(self) -> str:
        """The name of the problem in the report."""
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
            self._models[key] = self._train(self.data, method, config)
        return self._models[key]

    def model_without(self, method: Method, seed: int, classes: Ints) -> Model:
        """A model that never saw ``classes``, with the learning rate found on all."""
        data = self.labelled
        kept = np.setdiff1d(np.arange(data.num_classes), classes)
        seen = np.isin(data.train.labels, kept)
        rows = Rows(data.train.x[seen], np.searchsorted(kept, data.train.labels[seen]))
        return self._train(
            replace(data, train=rows),
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
                model = self._train(
                    self.data, method, replace(self.effort.config, lr=rate, seed=_SEARCH_SEED)
                )
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
        """The vectors of ``model``, rotated to the principal axes of those of the training rows."""
        train = self.data.train
        rows = train.x if isinstance(train, Rows) else np.concatenate([train.first, train.second])
        # Whether PCA gains is what the claim measures.
        with warnings.catch_warnings(action="ignore", category=NoGainWarning):
            rotation = PCARotation(self.data.nesting).fit(model.vectors(rows[:_FITTED]))
        return lambda x: np.asarray(rotation.transform(model.vectors(x)), np.float32)
