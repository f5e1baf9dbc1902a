"""Similarity distributions within a batch, trained to match those of a teacher or of labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import Real, checked
from nestling.errors import DataError

_SMALLEST_DEVIATION = 1e-6


class SimilarityMatch(nn.Module):
    """Cross-entropy between target similarities and the softmax of each row's cosines with the other rows.

    Cosines are first standardised over the pairs of the batch. Those of short prefixes spread wider than
    those of long ones, and those of many text models all lie near 0.8; without it one temperature would
    have a different effect at every size and for every model.

    Args:
        temperature: above 0, in standard deviations of the cosines; smaller weighs near neighbours more.

    Raises:
        ConfigError: for a temperature that is not above 0.
        DataError: for fewer than two rows, or targets of another shape.

    Source: the cross-entropy is that of supervised contrastive learning (Khosla et al. 2020, arXiv
    2004.11362, equation 2) with soft targets as in SEED (Fang et al. 2021, arXiv 2101.04731, equation 4);
    the standardisation is ours.

    >>> loss = SimilarityMatch()
    >>> rows = torch.eye(3)[[0, 0, 1, 1]]
    >>> targets = label_targets(torch.tensor([0, 0, 1, 1]))
    >>> bool(loss(rows, targets=targets) < loss(rows.flip(0)[[0, 2, 1, 3]], targets=targets))
    True
    """

    @checked(temperature=Real(above=0, hint="0.5 is usual"))
    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, embeddings: Tensor, *, targets: Tensor) -> Tensor:
        """Loss of ``Float[batch, dim]``.

        Args:
            embeddings: one row each.
            targets: ``Float[batch, batch]`` with a diagonal of 0. Each row sums to 1; a row that sums to 0 is
                ignored.
        """
        if targets.shape != (len(embeddings), len(embeddings)):
            raise DataError(
                f"targets must be one row and one column for each of the {len(embeddings)} embeddings, "
                f"not {tuple(targets.shape)}"
            )
        log_shares = _logits(embeddings, self.temperature).log_softmax(1).masked_fill(_itself(embeddings), 0)
        counted = targets.any(1).sum().clamp_min(1)
        return -(targets * log_shares).sum() / counted

    def extra_repr(self) -> str:
        """The settings, for print."""
        return f"temperature={self.temperature:.4g}"


def neighbour_targets(reference: Tensor, temperature: float = 0.5) -> Tensor:
    """Target similarities from a teacher: softmax over the other rows, ``Float[batch, batch]``.

    Args:
        reference: the teacher's vectors, ``Float[batch, dim]``.
        temperature: as in :class:`SimilarityMatch`.
    """
    return _logits(reference, temperature).softmax(1)


def label_targets(labels: Tensor) -> Tensor:
    """Target similarities from labels: equal over the other rows of the label, ``Float[batch, batch]``."""
    same = (labels[:, None] == labels[None, :]).float().fill_diagonal_(0)
    return same / same.sum(1, keepdim=True).clamp_min(1)


def _logits(x: Tensor, temperature: float) -> Tensor:
    """Standardised cosines divided by the temperature; -inf on the diagonal."""
    if x.ndim != 2 or len(x) < 2:
        raise DataError(f"embeddings must be a matrix of at least two rows, not of shape {tuple(x.shape)}")
    unit = F.normalize(x, dim=1)
    cosines, itself = unit @ unit.T, _itself(x)
    pairs = len(x) * (len(x) - 1)
    mean = cosines.masked_fill(itself, 0).sum() / pairs
    variance = (cosines - mean).masked_fill(itself, 0).square().sum() / pairs
    deviation = variance.clamp_min(_SMALLEST_DEVIATION**2).sqrt()
    return (cosines / (deviation * temperature)).masked_fill(itself, -torch.inf)


def _itself(x: Tensor) -> Tensor:
    return torch.eye(len(x), dtype=torch.bool, device=x.device)
