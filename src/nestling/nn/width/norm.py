"""Nested normalisation: a LayerNorm on each block of entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import Real, checked
from nestling.cut import prefix_blocks
from nestling.errors import ConfigError
from nestling.granularity import At, Nesting
from nestling.nn.width.width_part import WidthPart, leading_entries

SMALLEST_BLOCK = 4


class NestedNorm(WidthPart):
    """A LayerNorm on each block ``sizes[j-1]:sizes[j]`` by itself.

    One over all entries would make the first entries depend on the last.

    Args:
        sizes: widths, increasing in steps of at least 4.
        eps: added to the variance.

    Raises:
        GranularityError: for widths that do not increase.
        ConfigError: for a block of fewer than 4 entries: a LayerNorm of one entry is a constant, of two a
            sign.

    Source: the released code of fMRLRec, arXiv 2409.16627.

    >>> norm = NestedNorm([8, 16])
    >>> norm(torch.ones(5, 16), at=8).shape
    torch.Size([5, 8])
    """

    kind = "nested_norm"

    @checked(eps=Real(above=0))
    def __init__(self, sizes: Sequence[int], *, eps: float = 1e-5) -> None:
        super().__init__()
        self.nesting, self.eps = Nesting.chain(width=sizes), eps
        self.out_sizes = self.nesting.sizes("width")
        self._blocks = prefix_blocks(self.out_sizes)
        for block in self._blocks:
            entries = block.stop - block.start
            if entries < SMALLEST_BLOCK:
                raise ConfigError(
                    f"a LayerNorm of the {entries} entries from {block.start} to {block.stop} keeps next to "
                    f"nothing of them; give sizes in steps of at least {SMALLEST_BLOCK} (8 is usual), not "
                    + ", ".join(map(str, self.out_sizes))
                )
        self.weight = nn.Parameter(torch.ones(self.out_sizes[-1]))
        self.bias = nn.Parameter(torch.zeros(self.out_sizes[-1]))

    def leading(self, x: Tensor, place: int) -> Tensor:
        """See :class:`WidthPart`."""
        x = leading_entries(x, self.out_sizes[place], "a nested norm")
        found = [
            F.layer_norm(
                x[..., block], (block.stop - block.start,), self.weight[block], self.bias[block], self.eps
            )
            for block in self._blocks[: place + 1]
        ]
        return torch.cat(found, dim=-1) if place else found[0]

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        return {"sizes": list(self.out_sizes[: self.place(at) + 1]), "eps": self.eps}

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """See :class:`Part`."""
        width = self.out_width(at)
        return {"weight": self.weight[:width], "bias": self.bias[:width]}
