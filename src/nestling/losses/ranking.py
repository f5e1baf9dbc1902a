"""Losses on scored pairs and on triplets: CoSENT, AnglE, triplet, cosine regression."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import OneOf, checked
from nestling.errors import DataError
from nestling.losses.prefix import PrefixLosses, prefix_pair_cosines
from nestling.losses.shapes import check_columns

Distance = Literal["cosine", "euclidean"]


def _over_sizes(loss: Callable[..., Tensor], weights: Sequence[float], *cosines: Tensor) -> PrefixLosses:
    """``loss`` at each size from the running cosines ``Float[sizes, batch]``."""
    each = torch.stack([loss(*at_one_size) for at_one_size in zip(*cosines, strict=True)])
    return PrefixLosses((each * each.new_tensor(weights)).sum(), each.detach())


def _check_pairs(a: Tensor, b: Tensor, scores: Tensor) -> None:
    check_columns("a and b", a, b)
    if scores.shape != a.shape[:1]:
        raise DataError(
            f"scores must be one number for each of the {len(a)} pairs, not {tuple(scores.shape)}"
        )


def _check_order(a: Tensor, b: Tensor, scores: Tensor) -> None:
    """Check the arguments of losses that rank; warn if all scores are equal."""
    _check_pairs(a, b, scores)
    if bool((scores == scores[0]).all()):
        warnings.warn(
            f"all {len(a)} scores of a batch are equal: there is nothing to rank, and its loss is 0; check "
            "that the scores were read correctly, or use larger batches",
            stacklevel=4,
        )


def ranking_loss(similarities: Tensor, scores: Tensor, scale: float) -> Tensor:
    """``log(1 + sum exp(scale * (s_i - s_j)))`` over the pairs of pairs whose scores say i < j."""
    differences = scale * (similarities[:, None] - similarities[None, :])
    ordered = scores[:, None] < scores[None, :]
    differences = differences.masked_fill(~ordered, -torch.inf).flatten()
    return torch.logsumexp(torch.cat([differences.new_zeros(1), differences]), 0)


class CoSENT(nn.Module):
    """Ranks the cosines of pairs in the order of their scores.

    Args:
        scale: inverse temperature of the differences of cosines.

    Source: Su 2022, kexue.fm/archives/8847; 2DMSE, arXiv 2402.14776 (its cosine objective).
    """

    def __init__(self, scale: float = 20.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, a: Tensor, b: Tensor, *, scores: Tensor) -> Tensor:
        """Loss of pairs ``a``, ``b``: ``Float[batch, dim]`` with ``scores``: ``Float[batch]``."""
        _check_order(a, b, scores)
        return ranking_loss(F.cosine_similarity(a, b), scores, self.scale)

    def prefix_losses(
        self, a: Tensor, b: Tensor, *, scores: Tensor, dims: Sequence[int], weights: Sequence[float]
    ) -> PrefixLosses:
        """The losses of all prefixes from running cosines."""
        _check_order(a, b, scores)
        cosines = prefix_pair_cosines(a, b, dims)
        return _over_sizes(lambda c: ranking_loss(c, scores, self.scale), weights, cosines)


class AnglE(nn.Module):
    """CoSENT on angles in the complex plane; its gradient does not vanish where cosines saturate.

    The two halves of a vector are the real and imaginary parts of a complex one. Each size pairs its
    coordinates differently, so the sizes share no running sum.

    Args:
        scale: inverse temperature of the differences of angles.

    Source: Li and Li 2023, arXiv 2309.12871, equations 5 to 8.
    """

    def __init__(self, scale: float = 20.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, a: Tensor, b: Tensor, *, scores: Tensor) -> Tensor:
        """Loss of pairs ``a``, ``b``: ``Float[batch, dim]``, dim even, with ``scores``: ``Float[batch]``."""
        _check_order(a, b, scores)
        if a.shape[-1] % 2:
            raise DataError(f"AnglE splits a vector in halves and needs an even size, not {a.shape[-1]}")
        (re_a, im_a), (re_b, im_b) = a.chunk(2, dim=1), b.chunk(2, dim=1)
        quotient = (re_a * re_b + im_a * im_b + im_a * re_b - re_a * im_b).sum(1)
        lengths = (a.norm(dim=1) * b.norm(dim=1)).clamp_min(torch.finfo(a.dtype).tiny)
        return ranking_loss((quotient / lengths).abs(), scores, self.scale)


_TRIPLE = "anchors, positives and negatives"


class Triplet(nn.Module):
    """Triplet loss: an anchor must be nearer to its positive than to its negative, by a margin.

    Args:
        margin: the required difference of the two distances.
        distance: ``"cosine"`` (1 - cosine) or ``"euclidean"``.
    """

    @checked(distance=OneOf(get_args(Distance)))
    def __init__(self, margin: float = 0.3, distance: Distance = "cosine") -> None:
        super().__init__()
        self.margin, self.distance = margin, distance

    def forward(self, anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Loss of three ``Float[batch, dim]``."""
        check_columns(_TRIPLE, anchors, positives, negatives)
        if self.distance == "euclidean":
            near, far = (F.pairwise_distance(anchors, other) for other in (positives, negatives))
        else:
            near, far = (1 - F.cosine_similarity(anchors, other) for other in (positives, negatives))
        return F.relu(near - far + self.margin).mean()

    def prefix_losses(
        self,
        anchors: Tensor,
        positives: Tensor,
        negatives: Tensor,
        *,
        dims: Sequence[int],
        weights: Sequence[float],
    ) -> PrefixLosses | None:
        """The losses of all prefixes from running cosines (None for Euclidean distance)."""
        if self.distance == "euclidean":
            return None
        check_columns(_TRIPLE, anchors, positives, negatives)
        near, far = (prefix_pair_cosines(anchors, other, dims) for other in (positives, negatives))
        return _over_sizes(lambda p, n: F.relu(n - p + self.margin).mean(), weights, near, far)


class CosineRegression(nn.Module):
    """Mean squared error between the cosine of a pair and its score (-1 to 1)."""

    def forward(self, a: Tensor, b: Tensor, *, scores: Tensor) -> Tensor:
        """Loss of pairs ``a``, ``b``: ``Float[batch, dim]`` with ``scores``: ``Float[batch]``."""
        _check_pairs(a, b, scores)
        return F.mse_loss(F.cosine_similarity(a, b), scores.to(a.dtype))

    def prefix_losses(
        self, a: Tensor, b: Tensor, *, scores: Tensor, dims: Sequence[int], weights: Sequence[float]
    ) -> PrefixLosses:
        """The losses of all prefixes from running cosines."""
        _check_pairs(a, b, scores)
        cosines = prefix_pair_cosines(a, b, dims)
        return _over_sizes(lambda c: F.mse_loss(c, scores.to(c.dtype)), weights, cosines)
