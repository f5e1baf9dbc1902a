"""The mean of the events so far."""

from __future__ import annotations

import torch
from torch import Tensor

from nestling.nn.recurrent.mixer import Mixer


class Mean(Mixer):
    """The mean of the events up to each position; it has no weights.

    The state is the number of events and their sum.

    Args:
        sizes: widths, increasing.

    >>> Mean([4, 8])(torch.ones(2, 5, 8), at=4).values.shape
    torch.Size([2, 5, 4])
    """

    kind = "mean"

    def state_width(self, width: int) -> int:
        """The number of events and the width."""
        return 1 + width

    def sequence(self, values: Tensor, state: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """See :class:`Mixer`."""
        counted = torch.cat([values.new_ones(*values.shape[:2], 1), values], dim=2)
        states = counted.cumsum(dim=1, dtype=state.dtype) + state[:, None]
        return (states[..., 1:] / states[..., :1]).to(values.dtype), states
