"""The last event alone."""

from __future__ import annotations

from torch import Tensor

from nestling.nn.recurrent.mixer import Mixer


class LastItem(Mixer):
    """Each event as it is: no position is mixed with another. It has no weights and no state.

    It is the baseline of mixers: what they gain over it is the gain of the history.

    Args:
        sizes: widths, increasing.

    >>> import torch
    >>> LastItem([4, 8])(torch.ones(2, 5, 8), at=4).values.shape
    torch.Size([2, 5, 4])
    """

    kind = "last_item"

    def state_width(self, width: int) -> int:
        """None."""
        return 0

    def sequence(self, values: Tensor, state: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """See :class:`Mixer`."""
        return values, state[:, None].expand(-1, values.shape[1], -1)
