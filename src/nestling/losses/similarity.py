"""Similarities within a batch that should be spread as a target says: those of a teacher, or of labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import Real, checked
from nestling.errors import DataError

_SMALLEST_DEVIATION = 1e-6


class SimilarityMatch(nn.Module):
    """Cross-entropy between target neighbours and the softmax of each row's cosines with the others.

    Cosines are standardised over the pairs of the batch first: those of a short prefix spread wider than
    those of a long one, and those of many text models all lie near 0.8, so that one temperature would
    mean something else at every size and for every model.

    Args:
        temperature: above 0, in standard deviations of the cosines; smaller looks at nearer neighbours.

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
            targets: ``Float[batch, batch]``, of which each row sums to 1, or to 0 for a row that has no
                neighbours and does not count; the diagonal is 0.
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
    """How a teacher spreads each row's similarity over the others: ``Float[batch, batch]``.

    Args:
        reference: the teacher's vectors, ``Float[batch, dim]``.
        temperature: as in :class:`SimilarityMatch`.
    """
    return _logits(reference, temperature).softmax(1)


def label_targets(labels: Tensor) -> Tensor:
    """Each row's similarity spread evenly over the others of its label: ``Float[batch, batch]``."""
    same = (labels[:, None] == labels[None, :]).float().fill_diagonal_(0)
    return same / same.sum(1, keepdim=True).clamp_min(1)


def _logits(x: Tensor, temperature: float) -> Tensor:
    """Standardised cosines over the temperature; none of a row with itself."""
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
