"""The loss on similarities, against the same written row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nestling.errors import ConfigError, DataError
from nestling.granularity import Nesting
from nestling.losses import Nested
from nestling.losses.similarity import SimilarityMatch, label_targets, neighbour_targets


def logits_row_by_row(x: np.ndarray, temperature: float) -> np.ndarray:
    """Cosines of different rows over temperature times their standard deviation; None on the diagonal."""
    n = len(x)
    cosines = [[float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) for b in x] for a in x]
    others = [cosines[i][j] for i in range(n) for j in range(n) if i != j]
    deviation = np.std(others)
    return np.array(
        [[-np.inf if i == j else cosines[i][j] / deviation / temperature for j in range(n)] for i in range(n)]
    )


def loss_row_by_row(x: np.ndarray, targets: np.ndarray, temperature: float) -> float:
    losses = []
    for row, target in zip(logits_row_by_row(x, temperature), targets, strict=True):
        total = sum(math.exp(value) for value in row)
        if target.sum():
            losses.append(
                -sum(t * math.log(math.exp(v) / total) for t, v in zip(target, row, strict=True) if t)
            )
    return sum(losses) / max(1, len(losses))


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_agrees_with_the_loss_row_by_row(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 6, generator=generator, dtype=torch.float64) + 0.5
    teacher = torch.randn(9, 12, generator=generator, dtype=torch.float64)
    targets = neighbour_targets(teacher, temperature)
    expected = np.exp(logits_row_by_row(teacher.numpy(), temperature))
    np.testing.assert_allclose(targets, expected / expected.sum(1, keepdims=True), rtol=1e-9)
    found = SimilarityMatch(temperature)(x, targets=targets)
    assert float(found) == pytest.approx(loss_row_by_row(x.numpy(), targets.numpy(), temperature), rel=1e-9)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 0])  # the one 2 has no neighbour and does not count
    targets = label_targets(labels).double()
    assert not targets[5].any()
    found = SimilarityMatch(temperature)(x, targets=targets)
    assert float(found) == pytest.approx(loss_row_by_row(x.numpy(), targets.numpy(), temperature), rel=1e-9)


def test_gradients_are_right() -> None:
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = label_targets(torch.tensor([0, 0, 1, 1, 2, 2])).double()
    torch.autograd.gradcheck(lambda x: SimilarityMatch()(x, targets=targets), x)


def test_the_teacher_itself_is_the_best() -> None:
    x = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    targets, loss = neighbour_targets(x), SimilarityMatch()
    best = loss(x, targets=targets)
    for seed in range(20):
        noise = torch.randn(30, 8, generator=torch.Generator().manual_seed(seed + 1))
        assert loss(x + 0.3 * noise, targets=targets) > best
    torch.testing.assert_close(loss(3 * x, targets=targets), best)


def test_a_shared_direction_changes_nothing() -> None:
    """Cosines near 0.9, as of many text models, mean the same as those near 0."""
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.nn.functional.normalize(x)
    shifted = torch.cat([x, torch.full((50, 1), 3.0, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(neighbour_targets(x), neighbour_targets(shifted))


def test_batches_that_say_nothing_are_no_nan() -> None:
    loss = SimilarityMatch()
    same = torch.ones(4, 3, requires_grad=True)
    value = loss(same, targets=label_targets(torch.zeros(4, dtype=torch.int64)))
    assert value.item() == pytest.approx(math.log(3))
    value.backward()
    assert torch.isfinite(same.grad).all()  # type: ignore[arg-type]
    alone = torch.randn(4, 3, requires_grad=True)
    value = loss(alone, targets=label_targets(torch.arange(4)))
    value.backward()
    assert value.item() == 0
    zero = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss(zero, targets=neighbour_targets(torch.randn(3, 5))).backward()
    assert torch.isfinite(zero.grad).all()  # type: ignore[arg-type]
    torch.testing.assert_close(neighbour_targets(torch.randn(2, 3)), torch.eye(2).flip(0))


def test_nested_it_sums_over_the_prefixes() -> None:
    x, teacher = torch.randn(2, 10, 8, generator=torch.Generator().manual_seed(0)).unbind()
    targets, base = neighbour_targets(teacher), SimilarityMatch()
    found = Nested(base, Nesting.parse("dim=2,4,8"))(x, targets=targets)
    torch.testing.assert_close(found, sum(base(x[:, :dim], targets=targets) for dim in (2, 4, 8)))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="above 0"):
        SimilarityMatch(0.0)
    with pytest.raises(DataError, match="4 embeddings"):
        SimilarityMatch()(torch.randn(4, 3), targets=torch.zeros(4, 3))
    with pytest.raises(DataError, match="at least two rows"):
        SimilarityMatch()(torch.randn(1, 3), targets=torch.zeros(1, 1))
    with pytest.raises(DataError, match="at least two rows"):
        neighbour_targets(torch.randn(5))
