"""InfoNCE: contrastive loss with in-batch negatives and optional hard negatives."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import Real, checked
from nestling.errors import DataError
from nestling.losses.prefix import PrefixLosses, prefix_softmax_losses
from nestling.losses.shapes import check_columns


class InfoNCE(nn.Module):
    """Softmax cross-entropy over ``cos(anchor, candidate) / temperature``; candidates from the whole batch.

    In a ``torch.distributed`` run the candidates of all processes are gathered, with gradients.

    Args:
        temperature: above 0.
        learn_temperature: train the log temperature too; as in CLIP it stays at 0.01 or more.
        symmetric: average the losses of both directions, anchor to positive and positive to anchor.

    Raises:
        ConfigError: for a temperature that is not above 0.
        DataError: for embeddings whose shapes do not fit together.

    Source: Oord et al. 2018, arXiv 1807.03748; nested contrastive form in MRL, arXiv 2205.13147, section 3.
    """

    log_scale: Tensor

    @checked(temperature=Real(above=0, hint="0.05 is usual"))
    def __init__(
        self, temperature: float = 0.05, *, learn_temperature: bool = False, symmetric: bool = False
    ) -> None:
        super().__init__()
        self.symmetric = symmetric
        log_scale = torch.tensor(-math.log(temperature))
        if learn_temperature:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    @property
    def temperature(self) -> float:
        """The temperature in use."""
        return float(1.0 / self._scale().detach())

    def _scale(self) -> Tensor:
        learned = isinstance(self.log_scale, nn.Parameter)
        return (self.log_scale.clamp(max=_LARGEST_LOG_SCALE) if learned else self.log_scale).exp()

    def forward(
        self, anchors: Tensor, positives: Tensor, *hard_negatives: Tensor, ids: Tensor | None = None
    ) -> Tensor:
        """The loss of one batch.

        Args:
            anchors: ``Float[batch, dim]``.
            positives: ``Float[batch, dim]``, the positive of each anchor.
            hard_negatives: any number of ``Float[batch, dim]``, further candidates of every anchor.
            ids: ``Int[batch]``; rows with equal ids are duplicates and never negatives of each other.
        """
        losses = []
        for u, v, targets, excluded in self._directions(anchors, positives, hard_negatives, ids):
            logits = self._scale() * (F.normalize(u, dim=1) @ F.normalize(v, dim=1).T)
            if excluded is not None:
                logits = logits.masked_fill(excluded, -torch.inf)
            losses.append(F.cross_entropy(logits, targets))
        return torch.stack(losses).mean()

    def prefix_losses(
        self,
        anchors: Tensor,
        positives: Tensor,
        *hard_negatives: Tensor,
        dims: Sequence[int],
        weights: Sequence[float],
        ids: Tensor | None = None,
    ) -> PrefixLosses:
        """The losses of all prefixes from one pass over the coordinates."""
        found = [
            prefix_softmax_losses(u, v, targets, dims, weights, scale=self._scale(), excluded=excluded)
            for u, v, targets, excluded in self._directions(anchors, positives, hard_negatives, ids)
        ]
        total, each = (torch.stack(values).mean(0) for values in zip(*found, strict=True))
        return PrefixLosses(total, each)

    def _directions(
        self, anchors: Tensor, positives: Tensor, hard_negatives: tuple[Tensor, ...], ids: Tensor | None
    ) -> list[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        """(rows, columns, targets, excluded) of each direction of the loss."""
        _check_shapes(anchors, positives, hard_negatives, ids)
        own, first = _own_ids(anchors, ids)
        targets = torch.arange(first, first + len(anchors), device=anchors.device)
        everyone = None if ids is None else _gather(own)
        directions = [(anchors, positives)] + [(positives, anchors)] * self.symmetric
        result: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []
        for rows, columns in directions:
            further = hard_negatives if rows is anchors else ()
            candidates = torch.cat([_gather(columns), *map(_gather, further)])
            if len(candidates) == 1:
                warnings.warn(
                    "a batch of one pair has no negatives, so its loss is 0; give batches of at least two "
                    "pairs, or hard negatives",
                    stacklevel=4,
                )
            excluded = None if everyone is None else _duplicates(own, everyone, targets, len(candidates))
            result.append((rows, candidates, targets, excluded))
        return result

    def extra_repr(self) -> str:
        """The settings, for print."""
        return f"temperature={self.temperature:.4g}, symmetric={self.symmetric}"


_LARGEST_LOG_SCALE = math.log(100.0)


def _check_shapes(
    anchors: Tensor, positives: Tensor, hard_negatives: tuple[Tensor, ...], ids: Tensor | None
) -> None:
    check_columns("anchors, positives and hard negatives", anchors, positives, *hard_negatives)
    if ids is not None and ids.shape != anchors.shape[:1]:
        raise DataError(
            f"ids must be one integer for each of the {len(anchors)} rows, not {tuple(ids.shape)}"
        )


def _own_ids(anchors: Tensor, ids: Tensor | None) -> tuple[Tensor, int]:
    """The ids of this process's rows and the place of its first row among those of all processes."""
    own = torch.empty(0) if ids is None else ids
    if not _distributed():
        return own, 0
    return own, torch.distributed.get_rank() * len(anchors)


def _duplicates(own: Tensor, everyone: Tensor, targets: Tensor, columns: int) -> Tensor:
    """``Bool[rows, columns]``: candidates that repeat a row's id, but for its own target."""
    same = own[:, None] == everyone[None, :]
    same[torch.arange(len(own), device=own.device), targets] = False
    return F.pad(same, (0, columns - len(everyone)))


def _distributed() -> bool:
    return (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    )


def _gather(x: Tensor) -> Tensor:
    """Rows of all processes in the order of their ranks; gradients flow back to their owners."""
    if not _distributed():
        return x
    gathered: Tensor = _Gather.apply(x)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """Backward, each process takes the sum over all processes of the gradient of its own rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        pieces = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(pieces, x.contiguous())
        return torch.cat(pieces)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        summed = upstream[0].contiguous().clone()
        torch.distributed.all_reduce(summed)
        return summed.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]
