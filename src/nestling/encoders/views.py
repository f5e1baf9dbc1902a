"""The views of an encoder as the forward pass of a module, the only method that DDP and FSDP wrap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from nestling.granularity import Granularity


class ViewsOf(nn.Module):
    """A module whose forward pass returns the views of an encoder, to train it with a nested loss.

    DistributedDataParallel, FSDP and ``torch.compile`` wrap a module and know its ``forward`` alone.

    Args:
        encoder: a module with ``views(inputs, rests)``, such as a ``TextEncoder``; its weights are shared.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, inputs: Any, rests: Iterable[Granularity]) -> dict[Granularity, Tensor]:
        """Vectors ``Float[inputs, dim]`` before any cut, at every rest."""
        found: dict[Granularity, Tensor] = self.encoder.views(inputs, rests)
        return found
