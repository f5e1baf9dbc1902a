"""Adaptive classification: a cascade of sizes that exits as soon as a head is confident."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.arrays import as_array
from nestling.cut import name_rows
from nestling.errors import ConfigError, DataError
from nestling.measure.tasks.metrics import check_labels
from nestling.vectors.prefix import check_dims

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FEWEST_EXAMPLES = 100
_GRID = np.linspace(0.1, 1, 100)
_TEMPERATURES = np.geomspace(0.1, 10, 201)
_TINY = 1e-12


@dataclass(frozen=True)
class CascadeCost:
    """The mean cost of a cascade for one input.

    Args:
        answering_dim: mean size of the head that answered (MRL's expected dimension).
        cumulative_dim: mean of the sizes of all heads that were tried, which is what separate heads cost;
            heads that share one matrix (MRL-E) reuse the products of smaller ones and cost ``answering_dim``.
        answering_mflops: millions of multiply-adds of the heads that answered.
        cumulative_mflops: millions of multiply-adds of all heads that were tried.
    """

    answering_dim: float
    cumulative_dim: float
    answering_mflops: float
    cumulative_mflops: float


class AdaptiveClassifier:
    """Heads from small to large; the first whose confidence exceeds its threshold answers.

    Args:
        dims: increasing sizes of the heads, at least two.
        calibrate: find a temperature for each head first, so that confidences mean the same at all sizes.

    Attributes:
        thresholds_: ``Float[heads - 1]``, after ``fit``; 1 is never exceeded.
        temperatures_: ``Float[heads]``, after ``fit``; ones without ``calibrate``.

    Raises:
        DataError: for sizes that do not increase.
        ConfigError: for fewer than two.

    Source: MRL, arXiv 2205.13147, section 4.2.1 (adaptive classification) and its cascade analysis.
    """

    def __init__(self, dims: Sequence[int], *, calibrate: bool = False) -> None:
        self.dims = check_dims(dims, max(dims, default=1))
        if len(self.dims) < 2:
            raise ConfigError("a cascade needs heads of at least two sizes")
        self.calibrate = calibrate

    def fit(self, confidences: Mapping[Any, ArrayLike] | ArrayLike, labels: ArrayLike) -> Self:
        """Learn thresholds greedily, each for a pair of neighbouring heads by itself.

        From 100 thresholds between 0.1 and 1 it takes the smallest of those with which "this head if it
        is surer, else the next" is right most often.

        Args:
            confidences: class probabilities ``Float[heads, n, classes]`` on held-out examples, or one
                matrix a head in the order of ``dims`` (as ``forward_each`` gives).
            labels: ``Int[n]``, columns of the probabilities.

        Raises:
            DataError: for values outside 0 to 1 (logits), fewer than 100 examples, or labels that are
                floats or no classes.
        """
        probabilities = self._checked(confidences)
        truth = _check_truth(labels, *probabilities.shape[1:])
        self.temperatures_ = np.ones(len(self.dims))
        if self.calibrate:
            self.temperatures_ = np.array([_best_temperature(each, truth) for each in probabilities])
        tempered = self._tempered(probabilities)
        sure, right = tempered.max(-1), tempered.argmax(-1) == truth
        self.thresholds_ = np.array(
            [_best_threshold(sure[j], right[j], right[j + 1]) for j in range(len(self.dims) - 1)]
        )
        return self

    def route(self, confidences: Mapping[Any, ArrayLike] | ArrayLike, *, cap: int | None = None) -> Ints:
        """The head that answers each example, ``Int[n]``, a place in ``dims``.

        Args:
            confidences: as for ``fit``.
            cap: the largest size that may answer; one of ``dims``.

        Raises:
            ConfigError: before ``fit``, or for a cap that is none of the sizes.
        """
        self._check_fitted()
        return self._route(self._tempered(self._checked(confidences)), cap)

    def predict(self, confidences: Mapping[Any, ArrayLike] | ArrayLike, *, cap: int | None = None) -> Ints:
        """The class of each example, ``Int[n]``, predicted by the head at which it exits."""
        self._check_fitted()
        tempered = self._tempered(self._checked(confidences))
        heads = self._route(tempered, cap)
        return np.asarray(tempered[heads, np.arange(len(heads))].argmax(-1))

    def cost(self, heads: Ints, num_classes: int) -> CascadeCost:
        """The cost of the heads up to ``heads`` (from ``route``), without the encoder, which runs once."""
        sizes = np.asarray(self.dims, np.float64)
        answering, cumulative = (float(column[heads].mean()) for column in (sizes, sizes.cumsum()))
        return CascadeCost(
            answering, cumulative, answering * num_classes / 1e6, cumulative * num_classes / 1e6
        )

    def answer(self, head: Any, features: Any) -> tuple[Ints, Ints]:
        """Classes and heads, ``Int[n]`` each, computing a head only for those that still need it.

        Args:
            head: elastic; ``head(features, at="dim=8")`` gives logits ``[n, classes]``.
            features: ``Float[n, dim]``, numpy or torch.
        """
        self._check_fitted()
        classes = np.zeros(len(features), np.int64)
        heads = np.full(len(features), len(self.dims) - 1)
        open_rows = np.arange(len(features))
        for place, dim in enumerate(self.dims):
            if not len(open_rows):
                break
            logits = head(features[open_rows], at=f"dim={dim}")
            chances = _softmax(as_array(logits, "logits").astype(np.float64) / self.temperatures_[place])
            classes[open_rows], heads[open_rows] = chances.argmax(1), place
            if place < len(self.thresholds_):
                open_rows = open_rows[~(chances.max(1) > self.thresholds_[place])]
        return classes, heads

    def _route(self, tempered: Floats, cap: int | None) -> Ints:
        if cap is not None and cap not in self.dims:
            raise ConfigError(f"cap={cap} is none of the sizes; choose from {', '.join(map(str, self.dims))}")
        last = len(self.dims) - 1 if cap is None else self.dims.index(cap)
        sure = tempered.max(-1)[:-1] > self.thresholds_[:, None]
        first = np.where(sure.any(axis=0), sure.argmax(axis=0), last)
        return np.minimum(first, last)

    def _checked(self, confidences: Mapping[Any, ArrayLike] | ArrayLike) -> Floats:
        columns = list(confidences.values()) if isinstance(confidences, Mapping) else confidences
        table = np.asarray(columns, np.float64)
        if table.ndim != 3 or len(table) != len(self.dims) or 0 in table.shape:
            raise DataError(
                f"confidences must be of shape [{len(self.dims)} heads, n, classes], not {table.shape}"
            )
        wrong = ~((table >= 0) & (table <= 1 + 1e-6)).all(axis=(0, 2))
        if wrong.any():
            raise DataError(
                f"confidences in {name_rows(np.flatnonzero(wrong))} are not between 0 and 1; give the "
                "softmax of the logits"
            )
        return table

    def _check_fitted(self) -> None:
        if not hasattr(self, "thresholds_"):
            raise ConfigError("this cascade has no thresholds yet; call fit(confidences, labels) first")

    def _tempered(self, probabilities: Floats) -> Floats:
        """Probabilities with the temperature of each head."""
        if (self.temperatures_ == 1).all():
            return probabilities
        return _softmax(np.log(probabilities + _TINY) / self.temperatures_[:, None, None])


def _check_truth(labels: ArrayLike, examples: int, classes: int) -> Ints:
    truth = check_labels(labels)
    if len(truth) != examples or truth.dtype.kind not in "iu" or truth.min() < 0 or truth.max() >= classes:
        raise DataError(
            f"labels must be {examples} whole numbers from 0 to {classes - 1}, columns of the confidences"
        )
    if examples < _FEWEST_EXAMPLES:
        raise DataError(
            f"{examples} held-out examples are too few to learn thresholds from; give at least "
            f"{_FEWEST_EXAMPLES} that are used neither for training nor for the report"
        )
    return truth


def _best_threshold(sure: Floats, right: NDArray[np.bool_], next_right: NDArray[np.bool_]) -> float:
    """The smallest of the thresholds with which the pair of heads is right most often."""
    accuracies = np.where(sure > _GRID[:, None], right, next_right).mean(axis=1)
    return float(_GRID[accuracies.argmax()])


def _best_temperature(probabilities: Floats, labels: Ints) -> float:
    """The temperature with the least negative log-likelihood (Guo et al. 2017), from a fine grid."""
    logits, rows = np.log(probabilities + _TINY), np.arange(len(labels))
    losses = [-np.log(_softmax(logits / t)[rows, labels] + _TINY).mean() for t in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))
