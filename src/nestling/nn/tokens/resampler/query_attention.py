"""Attention of queries to features, and to the queries before them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.errors import ConfigError


class QueryAttention(nn.Module):
    """Attention with several heads; its weights have the names and shapes of torch's MultiheadAttention.

    Args:
        width: of queries, keys, values and outputs.
        heads: a divisor of ``width``.

    Raises:
        ConfigError: if it is none.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"width={width} is not a multiple of heads={heads}; use heads that divide it")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def projected(self, x: Tensor, part: int) -> Tensor:
        """Queries (part 0), keys (1) or values (2), ``Float[batch, heads, n, width / heads]``."""
        weight, bias = self.in_proj_weight.chunk(3)[part], self.in_proj_bias.chunk(3)[part]
        y = F.linear(x, weight, bias)
        return y.reshape(*y.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        allowed: Tensor | None = None,
        causal: bool = False,
        sharpness: Tensor | None = None,
    ) -> Tensor:
        """Outputs ``Float[batch, m, width]``.

        Args:
            queries: ``Float[batch or 1, m, width]``.
            keys: ``Float[batch or 1, n, width]``.
            values: ``Float[batch, n, width]``.
            allowed: ``Bool[batch or 1, m or 1, n]``, the keys that each query may see.
            causal: let query i see only the keys up to i.
            sharpness: ``Float[m]``, factors of the scores of each query.
        """
        q, k, v = (self.projected(x, part) for part, x in enumerate((queries, keys, values)))
        if sharpness is not None:
            q = q * sharpness[:, None].to(q.dtype)
        q, k = q.expand(len(v), -1, -1, -1), k.expand(len(v), -1, -1, -1)
        mask = None if allowed is None else allowed[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        found: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return found


class QueryBlock(nn.Module):
    """One more layer of a resampler; a query sees only the queries before it, so prefixes stay prefixes.

    Args:
        width: of queries and features.
        heads: of both attentions.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.to_queries, self.to_features = QueryAttention(width, heads), QueryAttention(width, heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, *, allowed: Tensor | None = None) -> Tensor:
        """The queries ``Float[batch, m, width]`` after this layer."""
        normed = self.norms[0](x)
        x = x + self.to_queries(normed, normed, normed, causal=True)
        x = x + self.to_features(self.norms[1](x), keys, values, allowed=allowed)
        found: Tensor = x + self.feed_forward(self.norms[2](x))
        return found
