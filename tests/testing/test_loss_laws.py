"""Every built-in loss keeps every law, and each law finds the loss that breaks it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling import losses
from nestling.errors import DataError
from nestling.granularity import Nesting
from nestling.losses import (
    AnglE,
    CoSENT,
    CosineRegression,
    CrossEntropy,
    InfoNCE,
    SimilarityMatch,
    Triplet,
)
from nestling.losses.prefix import PrefixLosses
from nestling.losses.similarity import label_targets
from nestling.nn.heads import NestedClassifier
from nestling.testing import LOSS_LAWS, LawError, LossExample, check_loss

NESTING = Nesting.parse("dim=4,8,16")
X = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(0)).unbind()
SCORES = torch.rand(8, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])

BUILT_IN = {
    "InfoNCE": LossExample(InfoNCE(), X[:2]),
    "InfoNCE, learned temperature, hard negatives": LossExample(
        InfoNCE(0.1, learn_temperature=True, symmetric=True),
        X,
        {"ids": torch.tensor([0, 1, 2, 3, 4, 5, 5, 6])},
    ),
    "CoSENT": LossExample(CoSENT(), X[:2], {"scores": SCORES}),
    "AnglE": LossExample(AnglE(), X[:2], {"scores": SCORES}),
    "CosineRegression": LossExample(CosineRegression(), X[:2], {"scores": SCORES}),
    "Triplet": LossExample(Triplet(), X),
    "Triplet, Euclidean": LossExample(Triplet(1.0, "euclidean"), X),
    "SimilarityMatch": LossExample(SimilarityMatch(), X[:1], {"targets": label_targets(LABELS)}),
    "CrossEntropy": LossExample(
        CrossEntropy(NestedClassifier(NESTING, num_classes=3)), X[:1], {"labels": LABELS}, NESTING
    ),
    "CrossEntropy, one matrix": LossExample(
        CrossEntropy(NestedClassifier(NESTING, num_classes=3, tied=True), label_smoothing=0.1),
        X[:1],
        {"labels": LABELS},
        NESTING,
    ),
}


@pytest.mark.parametrize("law", LOSS_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_loss_keeps_the_law(name: str, law: Callable[[LossExample], None]) -> None:
    law(BUILT_IN[name])


def test_every_built_in_loss_is_checked() -> None:
    terms_and_wrappers = {"AlignScores", "AlignVectors", "Compress", "GradientCache", "Nested", "Parts"}
    terms_and_wrappers |= {"OneEncoding", "Quantisation"}
    checked = {type(example.loss).__name__ for example in BUILT_IN.values()}
    assert checked == set(losses.__all__) - terms_and_wrappers


class Honest(nn.Module):
    """Pulls pairs together: the mean squared distance, with a weight that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape != b.shape or not len(a):
            raise DataError(
                f"a and b must be of one shape with at least one row, not {a.shape} and {b.shape}"
            )
        return self.weight * self.of_rows((a - b).square().sum(1))

    def of_rows(self, distances: Tensor) -> Tensor:
        return distances.mean()


class NotReduced(Honest):
    def of_rows(self, distances: Tensor) -> Tensor:
        return distances


class Detached(Honest):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b).detach()


class RootOfZero(Honest):
    def of_rows(self, distances: Tensor) -> Tensor:
        return distances.sqrt().mean()


class HalfAGradient(Honest):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b.detach())


class LearnsNothing(Honest):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(0 * a, 0 * b)


class Remembers(Honest):
    calls = 0

    def of_rows(self, distances: Tensor) -> Tensor:
        self.calls += 1
        return distances.mean() / self.calls


class Fast(Honest):
    """With a way to all prefixes at once."""

    def prefix_losses(
        self, a: Tensor, b: Tensor, *, dims: Sequence[int], weights: Sequence[float]
    ) -> PrefixLosses:
        each = torch.stack([self.forward(a[:, :dim], b[:, :dim]) for dim in dims])
        return PrefixLosses((each * each.new_tensor(weights)).sum(), each.detach())


class ForgetsWeights(Fast):
    def prefix_losses(self, *columns: Tensor, dims: Sequence[int], weights: Sequence[float]) -> PrefixLosses:
        return super().prefix_losses(*columns, dims=dims, weights=[1.0] * len(dims))


class WrongGradient(Fast):
    def prefix_losses(self, a: Tensor, b: Tensor, **rest: Any) -> PrefixLosses:
        return super().prefix_losses(a, b.detach(), **rest)


class FastTakesAll(Fast):
    def prefix_losses(self, a: Tensor, b: Tensor, **rest: Any) -> PrefixLosses:
        rows = max(min(len(a), len(b)), 1)
        return super().prefix_losses(a[:rows], b[:rows], **rest) if len(a) else PrefixLosses(a.sum(), a)


class FirstRowsCountMore(Honest):
    def of_rows(self, distances: Tensor) -> Tensor:
        return distances @ torch.linspace(1, 0, len(distances), dtype=distances.dtype)


class OneDtype(Honest):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, b) + 0 * torch.dot(a[0], self.weight.repeat(a.shape[1]))


class LosesDigits(Honest):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a + 1024, b + 1024)


class Broadcasts(Honest):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.weight * (a - b).square().sum(1).mean()


class HidesNaN(Honest):
    def of_rows(self, distances: Tensor) -> Tensor:
        return distances.nan_to_num().mean()


class RollsDice(Honest):
    def of_rows(self, distances: Tensor) -> Tensor:
        torch.rand(1)
        return distances.mean()


class Counts(Honest):
    calls = 0

    def of_rows(self, distances: Tensor) -> Tensor:
        self.calls += 1
        return distances.mean() * (1 + 1e-9 * self.calls)


class ChangesBuffers(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def of_rows(self, distances: Tensor) -> Tensor:
        self.calls += 1
        return distances.mean()


class ChangesInput(Honest):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        value = super().forward(a, b)
        with torch.no_grad():
            a += 1e-14
        return value


@pytest.mark.parametrize("kind", [Honest, Fast])
def test_an_honest_loss_passes(kind: type[Honest]) -> None:
    check_loss(kind(), X[:2])


def test_a_function_is_a_loss() -> None:
    def distance(a: Tensor, b: Tensor) -> Tensor:
        return Honest.forward(Honest().requires_grad_(requires_grad=False), a, b)

    check_loss(distance, X[:2], nesting="dim=2,16")


@pytest.mark.parametrize(
    ("kind", "law", "message"),
    [
        (NotReduced, "finite", r"a tensor of shape \(8,\)"),
        (Detached, "finite", "no gradient reaches the embeddings of Detached at dim=4"),
        (RootOfZero, "finite", "NaN or infinite at dim=4, for rows that are all equal"),
        (HalfAGradient, "gradients", "finite differences in float64 give"),
        (LearnsNothing, "gradients", "zero at dim=4"),
        (Remembers, "nesting", "the loss at dim=4 by Nested"),
        (ForgetsWeights, "fast path", "the weighted sum by prefix_losses differs"),
        (WrongGradient, "fast path", "the gradient of embedding 1 by prefix_losses differs"),
        (
            FirstRowsCountMore,
            "batch order",
            "a shuffled batch at dim=4 differs by .* from that of the batch in its order",
        ),
        (OneDtype, "precision", "fails under autocast"),
        (LosesDigits, "precision", "compute sums and logarithms in float32"),
        (Broadcasts, "refusal", "batches without rows are accepted"),
        (FastTakesAll, "refusal", "by prefix_losses, are accepted"),
        (HidesNaN, "refusal", "nobody notices"),
        (RollsDice, "innocence", "take a seed"),
        (ChangesBuffers, "innocence", "weights or buffers"),
        (Counts, "innocence", "a second call"),
        (ChangesInput, "innocence", "the batch was changed"),
    ],
)
def test_a_broken_loss_is_found_by_its_law(kind: type[Honest], law: str, message: str) -> None:
    (broken,) = [each for each in LOSS_LAWS if each.__name__ == law.replace(" ", "_")]
    with pytest.raises(LawError, match=f"^{law}: .*{message}"):
        broken(LossExample(kind(), X[:2]))
    with pytest.raises(LawError):
        check_loss(kind(), X[:2])


def test_each_kind_of_misfit_is_tried() -> None:
    """Labels that are one short, columns of other dims, and errors of torch, which explain nothing."""

    def scored(a: Tensor, b: Tensor, *, scores: Tensor) -> Tensor:
        if not len(a):
            raise DataError("no rows")
        return F.mse_loss(F.cosine_similarity(a, b), scores)

    with pytest.raises(LawError, match="7 rows in the last column and 8 in the first raise RuntimeError"):
        check_loss(scored, X[:2], {"scores": SCORES})

    def labelled(a: Tensor, *, labels: Tensor) -> Tensor:
        if not len(a):
            raise DataError("no rows")
        return (a.square().sum(1)[: len(labels)] * labels).mean()

    example = LossExample(labelled, X[:1], {"labels": LABELS})
    (refusal,) = [law for law in LOSS_LAWS if law.__name__ == "refusal"]
    with pytest.raises(LawError, match="7 labels for 8 rows are accepted"):
        refusal(example)


@pytest.mark.parametrize(
    ("embeddings", "given"),
    [
        ([], "none"),
        (None, "a NoneType"),
        (X[0].numpy(), "a ndarray"),
        ([x.numpy() for x in X[:2]], "a ndarray, a ndarray"),
        (X[0], r"a tensor of shape \(16,\)"),
        ([X[0][:3]], r"a tensor of shape \(3, 16\)"),
        ([LABELS[:, None]], r"a tensor of shape \(8, 1\) and torch.int64"),
    ],
    ids=["none", "None", "an array", "arrays", "a matrix alone", "three rows", "whole numbers"],
)
def test_embeddings_are_matrices_of_torch(embeddings: Any, given: str) -> None:
    with pytest.raises(DataError, match=f"embeddings must be torch matrices .* not {given}"):
        check_loss(InfoNCE(), embeddings)


def test_the_order_of_a_batch_may_matter_where_that_is_said() -> None:
    check_loss(FirstRowsCountMore(), X[:2], any_order=False)


def test_the_tolerance_is_above_the_error_of_finite_differences() -> None:
    """A central difference of 1e-6 in float64 is right to 1e-10 or so, far below 1e-5."""

    def steep(a: Tensor) -> Tensor:
        if not len(a):
            raise DataError("no rows")
        return (math.pi * a).sin().sum(1).mean()

    check_loss(steep, X[:1], tolerance=1e-7)
