"""Pooling of a sequence to a number of tokens, whatever its length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from nestling.arguments.constraints import OneOf, Whole, checked
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.tokens.compressor import Compressor
from nestling.nn.tokens.sequence_pool import left_aligned
from nestling.nn.tokens.tokens import Count, Tokens, accumulating, check_not_empty
from nestling.nn.tokens.ward import ward_clusters

BudgetMode = Literal["mean", "stride", "cluster"]


class BudgetPool(Compressor):
    """At most ``n`` tokens an item: each is made of a run of neighbouring vectors, or of similar vectors.

    It has no weights and needs no training, so it also merges the token vectors of a late-interaction text
    encoder. Lengths of runs differ by at most one. An item of no more than ``n`` vectors stays as it is.
    Padding is removed first, wherever it is, and the output is padded at the end.

    Clusters are found on the CPU in O(vectors²) for each item. No gradient flows through the choice of
    clusters, but it does through their means.

    Args:
        width: entries of a vector.
        tokens: sizes on ``axis``; a nesting, or its text.
        mode: ``"mean"`` of each run; ``"stride"``, its first vector; or ``"cluster"``, the mean of each of
            ``n`` clusters of similar vectors, in the order of their first vectors
            (:func:`~nestling.nn.tokens.ward.ward_clusters`).
        axis: name of the axis.

    Raises:
        GranularityError: for sizes that repeat or do not increase.

    >>> pool = BudgetPool(8, [2, 4])
    >>> pool(torch.zeros(3, 7, 8), at=2).values.shape, pool.lengths(3, at=4)
    (torch.Size([3, 2, 8]), 3)
    """

    kind = "budget_pool"

    @checked(width=Whole(1), mode=OneOf(get_args(BudgetMode)))
    def __init__(
        self,
        width: int,
        tokens: Nesting | str | Sequence[int],
        *,
        mode: BudgetMode = "mean",
        axis: str = "tokens",
    ) -> None:
        super().__init__()
        nesting = Nesting.parse(tokens) if isinstance(tokens, str) else tokens
        if not isinstance(nesting, Nesting):
            nesting = Nesting.chain(**{axis: nesting})
        self.nesting = nesting.within("a budget pool", needs=(axis,), **{axis: None})
        self.width, self.mode, self.axis, self.inputs = width, mode, axis, nesting.full[axis]

    def each(self, tokens: Tokens, wanted: Sequence[Granularity]) -> dict[Granularity, Tokens]:
        """The tokens at each granularity; padding is removed once."""
        check_not_empty(tokens)
        tokens = left_aligned(tokens)
        sizes = sorted({g[self.axis] for g in wanted if g[self.axis] < tokens.values.shape[1]})
        found = dict(zip(sizes, self._pooled(tokens, sizes), strict=True))
        return {g: found.get(g[self.axis], tokens) for g in wanted}

    def lengths(self, n: Count, at: At = None) -> Count:
        """The exact number of tokens of items of ``n`` vectors."""
        size = self.nesting.resolve(at)[self.axis]
        return n.clamp(max=size) if isinstance(n, torch.Tensor) else min(n, size)

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        kept = self.nesting.up_to(self.nesting.resolve(at))
        return {"width": self.width, "tokens": str(kept), "mode": self.mode, "axis": self.axis}

    def _pooled(self, tokens: Tokens, sizes: Sequence[int]) -> list[Tokens]:
        """The tokens at sizes below their number."""
        if self.mode == "stride":
            return [_firsts_of_runs(tokens, size) for size in sizes]
        groups = (
            _clusters(tokens, sizes) if self.mode == "cluster" else [_runs(tokens, size) for size in sizes]
        )
        return [_means(tokens, group, size) for group, size in zip(groups, sizes, strict=True)]


def _runs(tokens: Tokens, size: int) -> Tensor:
    """The run of each vector, ``Int[batch, n]``: run j of L vectors has the places from j L / size on."""
    lengths = tokens.lengths()[:, None]
    places = torch.arange(tokens.values.shape[1], device=lengths.device)
    return (((places + 1) * lengths.clamp(max=size) - 1) // lengths).clamp(max=size - 1)


def _clusters(tokens: Tokens, sizes: Sequence[int]) -> list[Tensor]:
    """The cluster of each vector at each size, ``Int[batch, n]``; one hierarchy an item."""
    values = tokens.values.detach().float().cpu().numpy()
    found = torch.zeros(len(sizes), *values.shape[:2], dtype=torch.long)
    for row, length in enumerate(tokens.lengths().tolist()):
        counts = [min(size, length) for size in sizes]
        clusters = ward_clusters(values[row, :length], counts)
        for place, count in enumerate(counts):
            found[place, row, :length] = torch.from_numpy(clusters[count])
    return list(found.to(tokens.values.device))


def _means(tokens: Tokens, groups: Tensor, size: int) -> Tokens:
    """The mean of each group of vectors; padding belongs to none."""
    values, mask, _ = tokens
    wide = values.to(accumulating(values))
    held = torch.ones_like(wide[..., :1]) if mask is None else mask[..., None].to(wide.dtype)
    shape = (len(values), size)
    sums = wide.new_zeros(*shape, values.shape[2]).scatter_add_(1, groups[..., None].expand_as(wide), wide)
    counts = wide.new_zeros(*shape, 1).scatter_add_(1, groups[..., None], held)
    return _padded(tokens, (sums / counts.clamp(min=1)).to(values.dtype))


def _firsts_of_runs(tokens: Tokens, size: int) -> Tokens:
    lengths = tokens.lengths()[:, None]
    runs = torch.arange(size, device=lengths.device)
    firsts = (runs * lengths // lengths.clamp(max=size)).clamp(max=tokens.values.shape[1] - 1)
    return _padded(tokens, torch.take_along_dim(tokens.values, firsts[..., None], dim=1))


def _padded(tokens: Tokens, found: Tensor) -> Tokens:
    """The output, masked where an item has fewer vectors than it."""
    if tokens.mask is None:
        return Tokens(found)
    kept = torch.arange(found.shape[1], device=found.device) < tokens.lengths()[:, None]
    return Tokens(torch.where(kept[..., None], found, 0), kept)
