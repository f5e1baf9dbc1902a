"""Losses of all prefixes in one pass over the coordinates.

The product of two prefixes is a running sum over blocks of coordinates, ``u[:m] @ v[:m] = sum_b u_b @ v_b``,
and so are their squared norms. A loss over K nested sizes therefore costs the multiply-adds of one full-size
product, forward and backward, instead of one product per size.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nestling.cut import prefix_blocks
from nestling.process.blocks import blocks

# Similarities per chunk: few enough for the caches, enough to amortise the overhead of each operation.
_SIMILARITIES_AT_A_TIME = 1 << 20
_SMALLEST_SQUARED_NORM = 1e-24
# With logits of at most this size, neither an exponential nor a sum of them leaves float32.
_LARGEST_SAFE_LOGIT = 35.0
_memory = threading.local()


class PrefixLosses(NamedTuple):
    """The weighted sum of the losses of all sizes, and each of them, ``Float[sizes]`` (detached)."""

    total: Tensor
    each: Tensor


def prefix_pair_cosines(u: Tensor, v: Tensor, dims: Sequence[int]) -> Tensor:
    """Cosine of each row of ``u`` with the same row of ``v`` at every size: ``Float[sizes, rows]``."""

    def running(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([(a[:, block] * b[:, block]).sum(1) for block in prefix_blocks(dims)]).cumsum(0)

    wide = torch.promote_types(u.dtype, torch.float32)
    u, v = u.to(wide), v.to(wide)
    squares = running(u, u).clamp_min(_SMALLEST_SQUARED_NORM) * running(v, v).clamp_min(
        _SMALLEST_SQUARED_NORM
    )
    return running(u, v) * squares.rsqrt()


def prefix_softmax_losses(
    u: Tensor,
    v: Tensor,
    targets: Tensor,
    dims: Sequence[int],
    weights: Sequence[float],
    *,
    scale: Tensor | float = 1.0,
    cosine: bool = True,
    bias: Tensor | None = None,
    excluded: Tensor | None = None,
    smoothing: float = 0.0,
) -> PrefixLosses:
    """Mean softmax cross-entropy of ``scale * sim(u[:, :m], v[:, :m]) + bias`` for every size m in ``dims``.

    With ``cosine`` the similarity is that of the prefixes, each normalised on its own (InfoNCE);
    without, it is the inner product (a classifier whose weight matrix ``v`` all sizes share, MRL-E).
    Values and gradients are those of one product per size, computed together in float32 or better.

    Args:
        u: ``Float[rows, dim]``.
        v: ``Float[columns, dim]``.
        targets: ``Int[rows]``, the column that each row should pick.
        dims: increasing sizes, the last at most ``dim``.
        weights: one factor per size.
        cosine: normalise each prefix on its own.
        scale: inverse temperature above 0; a tensor of one element receives a gradient.
        bias: ``Float[columns]``, added at every size; only without ``cosine``.
        excluded: ``Bool[rows, columns]``, columns that are no candidates of a row; never its target.
        smoothing: share of the target spread evenly over all columns; only without ``excluded``.

    Source: MRL, arXiv 2205.13147, equation 1 and its contrastive form; the running sums are ours.
    """
    if not isinstance(scale, Tensor):
        scale = u.new_tensor(scale)
    total, each = _PrefixSoftmax.apply(  # type: ignore[no-untyped-call]
        u, v, scale, bias, targets, excluded, tuple(dims), tuple(weights), cosine, smoothing
    )
    return PrefixLosses(total, each)


def _working_memory(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uninitialised memory; on the CPU reused, because fresh pages cost as much as the arithmetic.

    Each thread has its own, at most ``(sizes + 2) * _SIMILARITIES_AT_A_TIME`` numbers.
    """
    if like.device.type != "cpu":
        return like.new_empty(shape)
    count = math.prod(shape)
    kept = getattr(_memory, "kept", None)
    if kept is None or kept.dtype != like.dtype or len(kept) < count:
        kept = _memory.kept = like.new_empty(count)
    return kept[:count].view(shape)


class _PrefixSoftmax(torch.autograd.Function):
    """Computes gradients in the forward pass, while the similarities are in memory."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, scale: Tensor, bias: Tensor | None, *rest: Any) -> Any:
        wanted = ctx.needs_input_grad[:4]
        wide = torch.promote_types(torch.promote_types(u.dtype, v.dtype), torch.float32)
        inputs = [None if value is None else value.detach().to(wide) for value in (u, v, scale, bias)]
        with torch.autocast(u.device.type, enabled=False):
            sweep = _PrefixSweep(*inputs, *rest)  # type: ignore[arg-type]
            sweep.run(slopes=any(wanted))
        gradients = (sweep.grad_u, sweep.grad_v, sweep.grad_scale, sweep.grad_bias)
        ctx.save_for_backward(
            *(
                gradient.to(value.dtype).reshape(value.shape) if value is not None and needed else None
                for gradient, value, needed in zip(gradients, (u, v, scale, bias), wanted, strict=True)
            )
        )
        ctx.mark_non_differentiable(sweep.losses)
        return (sweep.losses * sweep.weights).sum(), sweep.losses

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        grads = (
            None if saved is None else saved * upstream[0].to(saved.dtype) for saved in ctx.saved_tensors
        )
        return (*grads, *(None,) * 6)


class _PrefixSweep:
    """Per chunk of rows: sizes upward for the losses, then downward for the gradients.

    A block of coordinates is part of every prefix that reaches it, so its gradient takes the sum of
    dLoss/dproduct over those sizes; going down, that sum only grows.
    """

    def __init__(
        self,
        u: Tensor,
        v: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        excluded: Tensor | None,
        dims: tuple[int, ...],
        weights: tuple[float, ...],
        cosine: bool,
        smoothing: float,
    ) -> None:
        self.u, self.v, self.scale, self.bias = u, v, scale.reshape(()), bias
        self.targets, self.excluded, self.smoothing = targets, excluded, smoothing
        self.blocks, self.weights, self.cosine = prefix_blocks(dims), u.new_tensor(weights), cosine
        self.row_factors = self._inverse_norms(u)
        self.column_factors = self._inverse_norms(v) * self.scale
        self.slope_factors = self.row_factors * (self.weights[:, None] / len(u))
        # Logits that need no shift by their largest are kept to the base 2, whose powers are cheaper.
        self.bounded = cosine and not smoothing and float(self.scale) <= _LARGEST_SAFE_LOGIT
        self.logit_factors = self.column_factors * (math.log2(math.e) if self.bounded else 1.0)
        self.losses = u.new_zeros(len(dims))
        self.grad_u, self.grad_v = torch.zeros_like(u), torch.zeros_like(v.T).contiguous().T
        self.grad_scale, self.grad_bias = u.new_zeros(()), u.new_zeros(len(v))
        # Per size and row: the sum of slope * product over the other side, which the norms pull with.
        self.pull_u, self.pull_v = u.new_zeros(len(dims), len(u)), u.new_zeros(len(dims), len(v))

    def _inverse_norms(self, x: Tensor) -> Tensor:
        """``Float[sizes, rows]``: 1 / |x[:, :m]| by running sums of squares, or ones without ``cosine``."""
        if not self.cosine:
            return x.new_ones(len(self.blocks), len(x))
        squares = torch.stack([x[:, block].square().sum(1) for block in self.blocks]).cumsum(0)
        return squares.clamp_min(_SMALLEST_SQUARED_NORM).rsqrt()

    def run(self, *, slopes: bool) -> None:
        """Fill ``losses`` and, with ``slopes``, the gradients."""
        step = min(len(self.u), max(1, _SIMILARITIES_AT_A_TIME // len(self.v)))
        chunk = _working_memory(self.u, (2 + (len(self.blocks) if slopes else 1), step, len(self.v)))
        product, scratch, chunk = chunk[0], chunk[1], chunk[2:]
        for rows in blocks(len(self.u), step):
            count = rows.stop - rows.start
            self._upward(rows, product[:count].zero_(), scratch[:count], chunk[:, :count], slopes)
            if slopes:
                self._downward(rows, chunk[:, :count], product[:count].zero_())
        self.losses /= len(self.u)
        if slopes:
            self.grad_scale = self.pull_u.sum() / self.scale
            if self.cosine:
                self._add_pull_of_norms(self.grad_u, self.u, self.pull_u, self.row_factors)
                self._add_pull_of_norms(self.grad_v, self.v, self.pull_v, self.column_factors / self.scale)

    def _upward(self, rows: slice, product: Tensor, scratch: Tensor, chunk: Tensor, slopes: bool) -> None:
        """Add the losses of a chunk of rows; leave dLoss/dproduct, up to a factor per row, in ``chunk``."""
        u, targets = self.u[rows], self.targets[rows, None]
        for size, block in enumerate(self.blocks):
            product.addmm_(u[:, block], self.v[:, block].T)
            shares = chunk[size if slopes else 0]
            logits = self._logits(product, size, rows, out=scratch)
            totals = self._shares(logits, out=shares)
            self.losses[size] += self._losses(logits, shares, totals, targets).sum()
            if slopes:
                self.slope_factors[size, rows] /= totals[:, 0]
                self._slope(shares, totals, product, scratch, size, rows)

    def _shares(self, logits: Tensor, out: Tensor) -> Tensor:
        """The unnormalised softmax in ``out``; returns its row sums, ``Float[rows, 1]``."""
        if self.bounded:
            return torch.exp2(logits, out=out).sum(1, keepdim=True)
        torch.softmax(logits, 1, out=out)
        return logits.new_ones(1, 1)

    def _losses(self, logits: Tensor, shares: Tensor, totals: Tensor, targets: Tensor) -> Tensor:
        if self.bounded:
            return (totals / shares.gather(1, targets)).log()
        # The likeliest column has a share of at least 1 / columns, so its logarithm is safe.
        losses = logits.amax(1) - shares.amax(1).log()
        losses -= (1 - self.smoothing) * logits.gather(1, targets)[:, 0]
        return losses - self.smoothing * logits.mean(1) if self.smoothing else losses

    def _logits(self, product: Tensor, size: int, rows: slice, out: Tensor) -> Tensor:
        torch.mul(product, self.logit_factors[size], out=out)
        if self.cosine:
            out *= self.row_factors[size, rows, None]
        if self.bias is not None:
            out += self.bias
        if self.excluded is not None:
            out.masked_fill_(self.excluded[rows], -torch.inf)
        return out

    def _slope(
        self, shares: Tensor, totals: Tensor, product: Tensor, scratch: Tensor, size: int, rows: slice
    ) -> None:
        """Turn shares into dLoss/dproduct (up to a factor per row); add the gradients of bias and norms."""
        column, targets = self.column_factors[size], self.targets[rows]
        factor = self.slope_factors[size, rows]
        slope = shares.mul_(column)
        slope.scatter_add_(1, targets[:, None], totals * ((self.smoothing - 1) * column[targets, None]))
        if self.smoothing:
            slope -= column * (self.smoothing / len(self.v))
        if self.bias is not None:
            self.grad_bias += factor @ slope / self.scale
        torch.mul(slope, product, out=scratch)
        torch.mul(scratch.sum(1), factor, out=self.pull_u[size, rows])
        self.pull_v[size] += factor @ scratch

    def _downward(self, rows: slice, slopes: Tensor, reaching: Tensor) -> None:
        """Add the gradients of a chunk of rows, from the largest size down."""
        transposed = self.u[rows].T.contiguous()
        for size in reversed(range(len(self.blocks))):
            block = self.blocks[size]
            reaching.addcmul_(slopes[size], self.slope_factors[size, rows, None])
            self.grad_u[rows, block].addmm_(reaching, self.v[:, block])
            self.grad_v.T[block].addmm_(transposed[block], reaching)

    def _add_pull_of_norms(self, gradient: Tensor, x: Tensor, pull: Tensor, inverse_norms: Tensor) -> None:
        """d(1/|x|)/dx = -x / |x|^3: each prefix that reaches a block pulls it towards zero."""
        reaching = (pull * inverse_norms.square()).flip(0).cumsum(0).flip(0)
        for size, block in enumerate(self.blocks):
            gradient[:, block].addcmul_(x[:, block], reaching[size, :, None], value=-1)
