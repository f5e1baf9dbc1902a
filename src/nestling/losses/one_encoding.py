"""Losses of several granularities from one encoding, each back-propagated before the next is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten

from nestling.arguments.constraints import OneOf, Whole, checked
from nestling.errors import ConfigError
from nestling.granularity import AnyNesting, At, Granularity, Nesting
from nestling.losses.nested import Parts, read_weights
from nestling.schedules import Draws, Every, Reduction, Schedule


class OneEncoding(nn.Module):
    """The nested loss ``sum_g c_g * loss(features, at=g)`` of features that are computed once.

    An objective of :func:`nestling.training.fit` that yields. Its gradients are those of the sum, but one
    granularity's graph is in memory at a time. Adapters that are switched with the granularity get the
    right gradients, also under gradient checkpointing, because they stay active until their loss is
    back-propagated.

    Args:
        encode: ``encode(model, batch)`` -> features: a tensor, or tuples, lists and mappings with tensors
            in them. With a frozen encoder, wrap it in ``torch.no_grad()``.
        loss: ``loss(model, features, batch, at)`` -> the scalar loss at a granularity.
        nesting: the granularities, on any axes.
        weights: the importance c_g of each granularity, all 1 by default; a list in the order of the
            nesting or a mapping from granularities.
        schedule: the granularities of each training step; sampled ones are weighted so that the expected
            loss does not depend on the schedule. In ``eval()`` every granularity is used.
        reduction: ``"sum"``, or ``"mean"``, which divides by the sum of the c_g.
        context: ``context(at)`` is a context manager that is open while the loss at a granularity is
            computed and back-propagated, such as the ``at`` of adapters.
        seed: seed of the schedule.

    Raises:
        ConfigError: for weights that are negative, not finite, all zero, or not one per granularity.

    Source: M3, arXiv 2405.17430, equation 2, and Llama-MTSK, arXiv 2503.06362, whose published code sums
    the losses of all scales before one backward pass.

    >>> def loss(model, features, batch, at):
    ...     return model[1](features[:, : at["tokens"]]).square().mean()
    >>> objective = OneEncoding(lambda model, batch: model[0](batch), loss, "tokens=1,4")
    >>> model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 1))
    >>> for part in objective(model, torch.randn(2, 4, 8)):  # as fit does
    ...     part.total.backward()
    >>> model[0].weight.grad is not None
    True
    """

    @checked(reduction=OneOf(get_args(Reduction)), seed=Whole(0))
    def __init__(
        self,
        encode: Callable[[Any, Any], Any],
        loss: Callable[[Any, Any, Any, Granularity], Tensor],
        nesting: AnyNesting,
        *,
        weights: Sequence[float] | Mapping[At, float] | None = None,
        schedule: Schedule = Every(),
        reduction: Reduction = "sum",
        context: Callable[[Granularity], AbstractContextManager[Any]] = nullcontext,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encode, self.loss, self.nesting, self.context = encode, loss, Nesting.of(nesting), context
        self._draws = Draws(self.nesting, read_weights(self.nesting, weights), schedule, reduction, seed)

    def forward(self, model: Any, batch: Any) -> Iterator[Parts]:
        """The weighted loss at each granularity of this step; back-propagate each before the next."""
        draw = self._draws.next() if self.training else self._draws.every()

        def losses(features: Any) -> Iterator[Parts]:
            for at, weight in draw.items():
                with self.context(at):
                    yield _weighted(self.loss(model, features, batch, at), at, weight)

        yield from one_encoding(self.encode(model, batch), losses)

    def get_extra_state(self) -> Tensor:
        """The number of steps of the schedule, so that a resumed run continues the same sequence."""
        return torch.tensor(self._draws.steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Continue the sequence of samples."""
        self._draws.steps = int(state)


def one_encoding(features: Any, losses: Callable[[Any], Iterator[Parts]]) -> Iterator[Parts]:
    """Yields losses of the same features, then what carries their gradients into the encoder.

    The part of :class:`OneEncoding` that an objective of your own may use:
    ``yield from one_encoding(model.encode(batch), losses)``.

    Args:
        features: a tensor, or tuples, lists and mappings with tensors in them.
        losses: called with the features, detached; yields losses, each back-propagated before the next.

    Raises:
        ConfigError: if no gradient reached the features.
    """
    leaves, structure = tree_flatten(features)
    detached = [_detached(leaf) for leaf in leaves]
    yield from losses(tree_unflatten(detached, structure))
    pairs = [pair for pair in zip(leaves, detached, strict=True) if pair[0] is not pair[1]]
    if not pairs:  # a frozen encoder
        return
    reached = [(leaf, inner.grad) for leaf, inner in pairs if inner.grad is not None]
    if not reached:
        raise ConfigError(
            "no gradient reached the encoded features; back-propagate each loss before asking for the next, "
            "and let at least one depend on the features (or encode under torch.no_grad())"
        )
    encoded, gradients = zip(*reached, strict=True)
    yield Parts(_Carried.apply(gradients, *encoded), {})  # type: ignore[no-untyped-call]


def _detached(leaf: Any) -> Any:
    needed = isinstance(leaf, Tensor) and leaf.requires_grad
    return leaf.detach().requires_grad_() if needed else leaf


def _weighted(loss: Tensor, at: Granularity, weight: float) -> Parts:
    return Parts(weight * loss, {at: loss.detach()})


class _Carried(torch.autograd.Function):
    """Zero, whose backward pass hands known gradients to tensors.

    The gradients have the loss scale and the share of the batch in them already, so the incoming gradient
    is ignored.
    """

    @staticmethod
    def forward(ctx: Any, gradients: Sequence[Tensor], *tensors: Tensor) -> Tensor:
        ctx.gradients = gradients
        return tensors[0].new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *_: Tensor) -> Any:
        return None, *ctx.gradients
