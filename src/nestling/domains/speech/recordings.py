"""Recordings and clips of different lengths in one padded batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nestling.errors import DataError


class Recordings(NamedTuple):
    """A batch of one stream, padded at the end: ``values`` and ``lengths`` as encoders take them."""

    values: Tensor
    lengths: Tensor


def recordings(given: Any, stream: str) -> Recordings:
    """Recordings or clips as one padded tensor with the length of each.

    Raises:
        DataError: for none, or items of different shapes.
    """
    if isinstance(given, Recordings):
        return given
    items = [torch.as_tensor(np.asarray(each) if not isinstance(each, Tensor) else each) for each in given]
    if not items or any(item.ndim == 0 for item in items):
        raise DataError(f"{stream} must be a list of recordings, at least one, each with an axis of time")
    if len({(tuple(item.shape[1:]), item.dtype) for item in items}) > 1:
        raise DataError(
            f"the items of {stream} differ in more than their length; give them one shape and type"
        )
    lengths = torch.tensor([len(item) for item in items])
    return Recordings(nn.utils.rnn.pad_sequence(items, batch_first=True), lengths)


def cut(given: Recordings, lengths: Tensor) -> Recordings:
    """Recordings of at most these lengths, with zeros behind them."""
    lengths = torch.minimum(lengths, given.lengths)
    values = given.values[:, : int(lengths.max())]
    real = torch.arange(values.shape[1]) < lengths[:, None]
    return Recordings(values * real.reshape(*real.shape, *[1] * (values.ndim - 2)).to(values.dtype), lengths)
