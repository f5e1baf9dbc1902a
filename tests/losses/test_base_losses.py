"""The base losses against sentence-transformers, plain loops and each other."""

from __future__ import annotations

import math
import warnings
from functools import partial

import pytest
import torch
from sentence_transformers.util import pairwise_angle_sim, pairwise_cos_sim
from torch import Tensor
from torch.nn import functional as F

from nestling.errors import ConfigError, DataError
from nestling.granularity import Nesting
from nestling.losses import AnglE, CoSENT, CosineRegression, CrossEntropy, InfoNCE, Triplet
from nestling.nn.heads import NestedClassifier


def rows(seed: int, count: int = 9, dim: int = 8) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def test_infonce_as_plain_loops_say() -> None:
    u, v, n, ids = rows(0), rows(1), rows(2), torch.tensor([0, 1, 2, 0, 4, 5, 6, 7, 8])
    total = 0.0
    for i in range(len(u)):
        positive = math.exp(cosine(u[i], v[i]) / 0.1)
        others = [v[j] for j in range(len(v)) if j != i and ids[j] != ids[i]] + list(n)
        total -= math.log(positive / (positive + sum(math.exp(cosine(u[i], x) / 0.1) for x in others)))
    assert float(InfoNCE(0.1)(u, v, n, ids=ids)) == pytest.approx(total / len(u), rel=1e-6)


def test_the_two_sided_loss_is_the_mean_of_both_directions() -> None:
    both = InfoNCE(symmetric=True)(rows(0), rows(1))
    torch.testing.assert_close(both, (InfoNCE()(rows(0), rows(1)) + InfoNCE()(rows(1), rows(0))) / 2)


def test_a_learned_temperature_is_a_parameter_with_a_bound() -> None:
    loss = InfoNCE(0.07, learn_temperature=True)
    assert [name for name, _ in loss.named_parameters()] == ["log_scale"]
    assert loss.temperature == pytest.approx(0.07)
    with torch.no_grad():
        loss.log_scale.fill_(99.0)
    assert loss.temperature == pytest.approx(0.01)
    assert not list(InfoNCE(0.07).parameters())


def test_cosent_and_angle_rank_as_sentence_transformers_does() -> None:
    a, b, scores = rows(0), rows(1), torch.tensor([0.1, 0.5, 0.5, 0.2, 0.9, 0.0, 0.3, 0.3, 1.0])
    for loss, similarity in ((CoSENT(), pairwise_cos_sim), (AnglE(), pairwise_angle_sim)):
        s = similarity(a, b)
        terms = [
            math.exp(20 * float(s[i] - s[j])) for i in range(9) for j in range(9) if scores[i] < scores[j]
        ]
        assert float(loss(a, b, scores=scores)) == pytest.approx(math.log(1 + sum(terms)), rel=1e-6)


def test_triplet_and_regression() -> None:
    a, p, n = rows(0), rows(1), rows(2)
    by_hand = [max(0.0, cosine(a[i], n[i]) - cosine(a[i], p[i]) + 0.3) for i in range(9)]
    assert float(Triplet()(a, p, n)) == pytest.approx(sum(by_hand) / 9)
    expected = F.triplet_margin_loss(a, p, n, margin=1.0)
    torch.testing.assert_close(Triplet(1.0, "euclidean")(a, p, n), expected)
    scores = torch.linspace(0, 1, 9, dtype=torch.float64)
    squares = [(cosine(a[i], p[i]) - float(scores[i])) ** 2 for i in range(9)]
    assert float(CosineRegression()(a, p, scores=scores)) == pytest.approx(sum(squares) / 9)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_are_checked(temperature: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        InfoNCE(temperature)


def test_batches_that_teach_nothing_are_told() -> None:
    with pytest.warns(UserWarning, match="at least two pairs"):
        assert float(InfoNCE()(rows(0, 1), rows(1, 1))) == 0
    with pytest.warns(UserWarning, match="all 9 scores of a batch are equal"):
        assert float(CoSENT()(rows(0), rows(1), scores=torch.ones(9))) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        InfoNCE()(rows(0, 1), rows(1, 1), rows(2, 1))  # a hard negative is something to tell apart from
        CosineRegression()(rows(0), rows(1), scores=torch.ones(9))


def test_shapes_are_checked() -> None:
    head = NestedClassifier(Nesting.parse("dim=8"), 3).double()
    with pytest.raises(DataError, match="one shape"):
        InfoNCE()(rows(0), rows(1, 5))
    for empty in (InfoNCE(), partial(CoSENT(), scores=torch.zeros(0))):
        with pytest.raises(DataError, match="is empty"):
            empty(rows(0, 0), rows(1, 0))
    with pytest.raises(DataError, match="one integer"):
        InfoNCE()(rows(0), rows(1), ids=torch.arange(3))
    with pytest.raises(DataError, match="one number"):
        CoSENT()(rows(0), rows(1), scores=torch.zeros(3))
    with pytest.raises(DataError, match="even size"):
        AnglE()(rows(0, 9, 7), rows(1, 9, 7), scores=torch.arange(9))
    with pytest.raises(ConfigError, match="did you mean 'euclidean'"):
        Triplet(distance="euclidian")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="one integer"):
        CrossEntropy(head)(rows(0), labels=torch.zeros(9))
    with pytest.raises(DataError, match="0 to 2"):
        CrossEntropy(head)(rows(0), labels=torch.full((9,), 3))
