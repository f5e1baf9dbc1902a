"""The linear recurrence ``h_t = decay * h_(t-1) + x_t`` of a whole sequence, with its own gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nestling.arguments.constraints import OneOf, checked
from nestling.errors import DataError

Scan = Literal["auto", "loop", "tree", "fft"]


@checked(scan=OneOf(get_args(Scan)))
def linear_recurrence(
    x: Tensor, decay: Tensor, state: Tensor | None = None, *, scan: Scan = "auto"
) -> Tensor:
    """The states ``h_t = decay * h_(t-1) + x_t`` of sequences, differentiable once.

    All scans compute the same. The gradient is the same recurrence backwards in time.

    Args:
        x: ``Complex[batch, length, width]``.
        decay: ``Complex[width]``, at most 1 in size.
        state: ``Complex[batch, width]`` before the first step; zeros by default.
        scan: ``"loop"``, a step at a time; ``"tree"``, in log2(length) rounds; ``"fft"``, a convolution, less
            exact in float32 if sizes of ``decay`` are near 1; ``"auto"``, the loop on a CPU and the tree
            elsewhere.

    Returns:
        ``Complex[batch, length, width]``, in memory by time.

    Raises:
        DataError: for shapes or types that do not fit.

    Source: Orvieto et al. 2023, arXiv 2303.06349; the tree as in LRURec and fMRLRec, for any length.

    >>> ones = torch.ones(1, 3, 1, dtype=torch.complex64)
    >>> linear_recurrence(ones, torch.tensor([0.5 + 0j])).real.flatten()
    tensor([1.0000, 1.5000, 1.7500])
    """
    if state is None:
        state = x.new_zeros(x.shape[0], x.shape[-1])
    _check(x, decay, state)
    if scan == "auto":
        scan = "loop" if x.device.type == "cpu" else "tree"
    found: Tensor = _Recurrence.apply(x, decay, state, scan)  # type: ignore[no-untyped-call]
    return found


class _Recurrence(torch.autograd.Function):
    """By time and in place: fresh pages, and steps far apart in memory, cost more than the arithmetic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, decay: Tensor, state: Tensor, scan: str) -> Tensor:
        states = _by_time(x)
        _SCANS[scan](states, decay, state)
        ctx.save_for_backward(states, decay, state)
        ctx.scan = scan
        return states.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        """With ``c = conj(d loss / d x)``: ``c_t = conj(grad_t) + decay * c_(t+1)``."""
        states, decay, state = ctx.saved_tensors
        c = _by_time(grad.conj())
        if ctx.scan == "loop":
            of_decay = _loop_back(c, decay, states, state)
        else:
            c = c.flip(0)
            _SCANS[ctx.scan](c, decay, torch.zeros_like(state))
            c = c.flip(0)
            of_decay = state * c[0] + (states[:-1] * c[1:]).sum(dim=0)
        grad_x = c.conj_physical_().transpose(0, 1)
        return grad_x, of_decay.sum(dim=0).conj(), decay.conj() * grad_x[:, 0], None


def _by_time(x: Tensor) -> Tensor:
    """A copy in new memory, ``Complex[length, batch, width]``."""
    batch, length, width = x.shape
    return x.new_empty(length, batch, width).copy_(x.transpose(0, 1))


def _loop(states: Tensor, decay: Tensor, state: Tensor) -> None:
    """One step at a time."""
    for step in states.unbind():
        state = step.addcmul_(decay, state)


def _loop_back(c: Tensor, decay: Tensor, states: Tensor, state: Tensor) -> Tensor:
    """The same backwards; returns the sum of ``h_(t-1) * c_t`` over time, ``Complex[batch, width]``."""
    total, after = torch.zeros_like(state), torch.zeros_like(state)
    before = (state, *states.unbind()[:-1])
    for step, previous in zip(reversed(c.unbind()), reversed(before), strict=True):
        after = step.addcmul_(decay, after)
        total.addcmul_(previous, after)
    return total


def _tree(states: Tensor, decay: Tensor, state: Tensor) -> None:
    """Round ``i`` joins runs of ``2^i`` steps in pairs: the second one takes the last state of the first."""
    length = len(states)
    states[0].addcmul_(decay, state)
    powers = _powers(decay, length)[:, None]
    half = 1
    while half < length:
        pairs, rest = divmod(length, 2 * half)
        whole = states[: 2 * half * pairs].view(pairs, 2 * half, *states.shape[1:])
        whole[:, half:].addcmul_(powers[1 : half + 1], whole[:, half - 1 : half])
        if rest > half:
            end = states[length - rest :]
            end[half:].addcmul_(powers[1 : rest - half + 1], end[half - 1 : half])
        half *= 2


def _fft(states: Tensor, decay: Tensor, state: Tensor) -> None:
    """The convolution of the sequence with the powers of ``decay``."""
    length = len(states)
    powers = _powers(decay, length)[:, None]
    spectrum = torch.fft.fft(states, 2 * length, dim=0) * torch.fft.fft(powers[:-1], 2 * length, dim=0)
    states.copy_(torch.fft.ifft(spectrum, dim=0)[:length])
    states.addcmul_(powers[1:], state)


_SCANS: dict[str, Callable[[Tensor, Tensor, Tensor], None]] = {
    "loop": _loop,
    "tree": _tree,
    "fft": _fft,
}
"""In place: ``Complex[length, batch, width]`` holds the inputs, and then the states."""


def _powers(decay: Tensor, count: int) -> Tensor:
    """``decay`` to the powers 0 to ``count``, ``Complex[count + 1, width]``."""
    factors = decay.to(torch.complex128).expand(count, -1)
    return torch.cat([torch.ones_like(factors[:1]), factors]).cumprod(dim=0).to(decay.dtype)


def _check(x: Tensor, decay: Tensor, state: Tensor) -> None:
    if x.ndim != 3 or not x.shape[1] or not x.is_complex():
        raise DataError(
            "the sequences must be complex of shape [batch, length, width], at least one step long, not "
            f"{x.dtype} of shape {tuple(x.shape)}"
        )
    batch, _, width = x.shape
    for name, given, shape in (("decay", decay, (width,)), ("state", state, (batch, width))):
        if tuple(given.shape) != shape or given.dtype != x.dtype:
            raise DataError(
                f"{name} must be {x.dtype} of shape {shape}, not {given.dtype} of shape {tuple(given.shape)}"
            )
