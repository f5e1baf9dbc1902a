"""Losses with weights of their own read vectors of one size, and say so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nestling.errors import ConfigError
from nestling.losses import Nested

pml = pytest.importorskip("pytorch_metric_learning.losses")

X, LABELS = torch.randn(32, 16, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 4
SIZED = ["ArcFaceLoss", "CosFaceLoss", "NormalizedSoftmaxLoss", "ProxyAnchorLoss", "ProxyNCALoss",
         "SoftTripleLoss", "SubCenterArcFaceLoss"]  # fmt: skip


def with_labels(loss: Any) -> Any:
    """Losses of that library take labels by position; Nested passes them by name."""
    return Nested(loss, "dim=4,16")(X, labels=LABELS)


@pytest.mark.parametrize("name", SIZED)
def test_weights_of_one_size_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} has weights for vectors of 16 dims.*SupConLoss"):
        with_labels(getattr(pml, name)(num_classes=4, embedding_size=16))


def test_remembered_vectors_are_of_one_size_too() -> None:
    with pytest.raises(ConfigError, match="CrossBatchMemory has weights"):
        with_labels(pml.CrossBatchMemory(pml.ContrastiveLoss(), embedding_size=16, memory_size=64))


@pytest.mark.parametrize("name", ["SupConLoss", "MultiSimilarityLoss", "TripletMarginLoss"])
def test_what_is_advised_works(name: str) -> None:
    assert torch.isfinite(with_labels(getattr(pml, name)()))


def test_a_loss_of_ones_own_is_told_the_same_and_other_errors_pass() -> None:
    class Own(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.head = nn.Linear(width, 4)

        def forward(self, z: torch.Tensor, *, labels: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(self.head(z), labels)

    with pytest.raises(ConfigError, match="Own has weights"):
        with_labels(Own(16))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        with_labels(Own(7))
