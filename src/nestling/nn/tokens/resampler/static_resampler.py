"""A resampler whose attention weights do not depend on the input: fixed filters of a grid, for each head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.errors import DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.tokens.compressor import Compressor
from nestling.nn.tokens.resampler.query_attention import QueryAttention
from nestling.nn.tokens.tokens import AnyTokens, Count, Tokens, as_tokens


class StaticResampler(Compressor):
    """What :meth:`QueryResampler.freeze_attention` returns: the same tokens without queries and keys.

    The weights and biases of the norm and of the values are merged into the products. With one head both
    products are one. The filters come before the projection of the values where that costs less.

    Args:
        nesting: numbers of tokens on one axis.
        width: entries of a feature and of an output token.
        inputs: number of features.
        heads: each has filters of its own.
    """

    kind = "static_resampler"

    def __init__(self, nesting: Nesting | str, width: int, inputs: int, heads: int) -> None:
        super().__init__()
        self.nesting = Nesting.parse(nesting) if isinstance(nesting, str) else nesting
        (self.axis,) = self.nesting.axes
        self.width, self.inputs, self.heads = width, inputs, heads
        self.filters = nn.Parameter(torch.empty(heads, self.nesting.full[self.axis], inputs))
        self.value = None if heads == 1 else nn.Parameter(torch.empty(width, width))
        self.out = nn.Linear(width, width)

    @classmethod
    def of(cls, attention: QueryAttention, filters: Tensor, norm: nn.LayerNorm, nesting: Nesting) -> Self:
        """The attention of fixed weights ``Float[heads, queries, n]`` to normed features."""
        width, heads = norm.weight.numel(), attention.heads
        with torch.device("meta"):
            made = cls(nesting, width, filters.shape[2], heads)
        value, bias = attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2]
        out = attention.out_proj
        merged = value * norm.weight
        # The weights of a query sum to one, so what is added to each value is added to the output.
        state = {
            "filters": filters,
            "out.weight": out.weight if heads > 1 else out.weight @ merged,
            "out.bias": out.bias + out.weight @ (bias + value @ norm.bias),
        }
        state |= {"value": merged} if heads > 1 else {}
        made.load_state_dict({name: each.detach().clone() for name, each in state.items()}, assign=True)
        return made.requires_grad_(False)

    def read(self, tokens: AnyTokens) -> Tokens:
        """The input, checked.

        Raises:
            DataError: also for another number of features, or padding.
        """
        found = as_tokens(tokens, self.width)
        if found.values.shape[1] != self.inputs:
            raise DataError(
                f"the attention is frozen for {self.inputs} features, not {found.values.shape[1]}; freeze it "
                "for that grid with freeze_attention(grid=...)"
            )
        if found.mask is not None and not bool(found.mask.all()):
            raise DataError("frozen attention weights know no padding; use the resampler that they are from")
        return found

    def each(self, tokens: Tokens, wanted: Sequence[Granularity]) -> dict[Granularity, Tokens]:
        """The tokens at each granularity: those of the largest, of which the others are prefixes."""
        values = self._resampled(tokens.values, max(g[self.axis] for g in wanted))
        return {g: Tokens(values[:, : g[self.axis]]) for g in wanted}

    def lengths(self, n: Count, at: At = None) -> Count:
        """The number of tokens at ``at``."""
        size = self.nesting.resolve(at)[self.axis]
        return torch.full_like(n, size) if isinstance(n, Tensor) else size

    def flops(self, at: At = None) -> float:
        """Multiply-adds for one item."""
        m = self.nesting.resolve(at)[self.axis]
        if self.heads == 1:
            return m * self.inputs * self.width + m * self.width**2
        return min(self._filters_first(m), self._values_first(m))

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        kept = self.nesting.up_to(self.nesting.resolve(at))
        return {"nesting": str(kept), "width": self.width, "inputs": self.inputs, "heads": self.heads}

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """The weights, of the filters only those up to ``at``."""
        size = self.nesting.resolve(at)[self.axis]
        state = self.state_dict()
        return {**state, "filters": state["filters"][:, :size]}

    def _resampled(self, features: Tensor, m: int) -> Tensor:
        x = F.layer_norm(features, (self.width,), eps=1e-6)
        filters = self.filters[:, :m]
        if self.value is None:
            mixed = filters[0] @ x
        elif self._filters_first(m) <= self._values_first(m):
            # Broadcasting over the batch would copy the filters of all heads for each item.
            per_head = torch.einsum("hmn,bnc->bhmc", filters, x)
            value = self.value.reshape(self.heads, -1, self.width)
            mixed = torch.einsum("bhmc,hdc->bmhd", per_head, value).flatten(2)
        else:
            values = F.linear(x, self.value).reshape(*x.shape[:2], self.heads, -1)
            mixed = torch.einsum("hmn,bnhd->bmhd", filters, values).flatten(2)
        found: Tensor = self.out(mixed)
        return found

    def _filters_first(self, m: int) -> float:
        return self.heads * m * self.inputs * self.width + 2 * m * self.width**2

    def _values_first(self, m: int) -> float:
        return self.inputs * self.width**2 + m * self.inputs * self.width + m * self.width**2
