"""Pooling of a sequence to a number of tokens, whatever its length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch

from nestling.arguments.constraints import OneOf, Whole, checked
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.tokens.compressor import Compressor
from nestling.nn.tokens.sequence_pool import left_aligned
from nestling.nn.tokens.tokens import Count, Tokens, accumulating, check_not_empty

BudgetMode = Literal["mean", "stride"]


class BudgetPool(Compressor):
    """At most ``n`` tokens an item: each is made of a run of neighbouring vectors, and the runs are equal.

    It has no weights and needs no training, so it also merges the token vectors of a late-interaction text
    encoder. Lengths of runs differ by at most one. An item of no more than ``n`` vectors stays as it is.
    Padding is removed first, wherever it is, and the output is padded at the end.

    Args:
        width: entries of a vector.
        tokens: sizes on ``axis``; a nesting, or its text.
        mode: ``"mean"`` of each run, or ``"stride"``, its first vector.
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
        return {g: self._pooled(tokens, g[self.axis]) for g in wanted}

    def lengths(self, n: Count, at: At = None) -> Count:
        """The exact number of tokens of items of ``n`` vectors."""
        size = self.nesting.resolve(at)[self.axis]
        return n.clamp(max=size) if isinstance(n, torch.Tensor) else min(n, size)

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        kept = self.nesting.up_to(self.nesting.resolve(at))
        return {"width": self.width, "tokens": str(kept), "mode": self.mode, "axis": self.axis}

    def _pooled(self, tokens: Tokens, size: int) -> Tokens:
        values, mask, _ = tokens
        batch, n, _ = values.shape
        if n <= size:
            return tokens
        lengths = tokens.lengths()[:, None]
        counts = lengths.clamp(max=size)
        places = torch.arange(n, device=values.device)
        runs = torch.arange(size, device=values.device)
        kept = None if mask is None else runs < counts
        if self.mode == "stride":
            firsts = (runs * lengths // counts).clamp(max=n - 1)
            found = torch.take_along_dim(values, firsts[..., None], dim=1)
        else:
            # Run j holds the places from j L / n up to (j + 1) L / n, rounded down.
            run = (((places + 1) * counts - 1) // lengths).clamp(max=size - 1)
            wide = values.to(accumulating(values))
            sums = wide.new_zeros(batch, size, self.width).scatter_add_(
                1, run[..., None].expand_as(values), wide
            )
            held = (runs + 1) * lengths // counts - runs * lengths // counts
            found = (sums / held[..., None]).to(values.dtype)
        return Tokens(found if kept is None else torch.where(kept[..., None], found, 0), kept)
