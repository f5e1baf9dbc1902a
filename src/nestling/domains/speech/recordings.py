"""Recordings and clips of different lengths in one padded batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nestling.arguments.formatting import shown
from nestling.errors import DataError


class Recordings(NamedTuple):
    """A batch of one stream, padded at the end: ``values`` and ``lengths`` as encoders take them."""

    values: Tensor
    lengths: Tensor


def recordings(given: Any, stream: str) -> Recordings:
    """Recordings or clips as one padded tensor with the length of each.

    Raises:
        DataError: for none, items of different shapes, or files that are not read yet.
    """
    if isinstance(given, Recordings):
        return given
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise DataError(f"{stream} must be a list of recordings as arrays or tensors, not {shown(given)}")
    items = [_read(each, stream) for each in given]
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


def lower_cased(texts: Sequence[str]) -> list[str]:
    """The texts to learn, in lower case.

    Raises:
        DataError: for an empty one, or no list of texts.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"texts must be a list with a text for each recording, not {shown(texts)}")
    empty = [row for row, text in enumerate(texts) if not text.strip()]
    if empty:
        raise DataError(
            f"the text of row {empty[0]} is empty, so there is nothing to learn; leave such recordings out"
        )
    return [text.lower() for text in texts]


def common_seconds(seconds: Mapping[str, Tensor], token: float, trim: bool) -> Tensor | None:
    """The shorter length of the two streams of each row; None if all are equal up to a token.

    Args:
        seconds: of each row, by stream.
        token: seconds of the shortest token.
        trim: allow lengths that differ by more.

    Raises:
        DataError: for such lengths without ``trim``.
    """
    (first, a), (second, b) = seconds.items()
    apart = torch.nonzero((a - b).abs() > token).flatten().tolist()
    if apart and not trim:
        row = apart[0]
        raise DataError(
            f"row {row} has {a[row]:.2f} seconds of {first} and {b[row]:.2f} of {second}, more than one "
            f"token ({token:g} seconds) apart; give recordings of the same moments, or trim=True to cut "
            "both to the shorter"
        )
    return torch.minimum(a, b) if apart else None


def check_seconds(stream: str, seconds: Tensor, rate: int, least: float) -> None:
    """Refuse rows that are too short for one token.

    Args:
        stream: its name.
        seconds: of each row.
        rate: vectors per token.
        least: seconds of a token.

    Raises:
        DataError: naming the shortest row.
    """
    row = int(seconds.argmin())
    if seconds[row] < least:
        raise DataError(
            f"row {row} has {seconds[row]:.2f} seconds of {stream}, too short for a token of rate "
            f"{rate}: at least {least:g} seconds; use a smaller rate, or longer recordings"
        )


def _read(given: Any, stream: str) -> Tensor:
    if isinstance(given, Tensor):
        return given
    values = np.asarray(given)
    if values.dtype.kind not in "fiu":
        raise DataError(f"a recording of {stream} must be numbers, not {shown(given)}; read its file first")
    return torch.as_tensor(values)
