"""Small encoders of sound and of mouths, trained on the words of each moment."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from nestling.arguments.constraints import Real, Whole, checked
from nestling.domains.speech.log_mel import LogMel, check_sound
from nestling.domains.speech.mouths import check_clips, scaled
from nestling.errors import DataError
from nestling.nn.tokens.tokens import Tokens


class StreamEncoder(nn.Module):
    """A stream in, vectors at a fixed rate out.

    Attributes:
        stream: the name of what it encodes, also the axis of its tokens.
        width: entries of a vector.
        per_second: vectors in a second.
    """

    stream: str
    width: int
    per_second: int

    @abstractmethod
    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tokens:
        """Vectors ``Float[batch, n, width]``.

        Args:
            values: a batch of recordings or clips, padded at the end.
            lengths: ``Int[batch]``, of each in samples or frames; None if all are whole.
        """


class SoundEncoder(StreamEncoder):
    """A convolutional encoder of speech: 50 vectors a second, each from about half a second of sound.

    Padding is kept silent in each layer, so an item gives the same vectors in every batch.

    Args:
        width: entries of a vector.
        sample_rate: samples in a second.
        bands: of the log-mel spectrogram.
        depth: residual layers after the first two.
        dropout: while training.
    """

    stream = "audio"

    @checked(
        width=Whole(1), sample_rate=Whole(1), bands=Whole(1), depth=Whole(0), dropout=Real(least=0, below=1)
    )
    def __init__(
        self,
        width: int = 96,
        *,
        sample_rate: int = 16_000,
        bands: int = 40,
        depth: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.width, self.per_second, self.sample_rate = width, 50, sample_rate
        self.mel = LogMel(sample_rate, bands, window=sample_rate // 40, hop=sample_rate // 100)
        self.first = nn.Conv1d(bands, width, 5, padding=2)
        self.halving = nn.Conv1d(width, width, 5, stride=2, padding=2)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(2))
        self.layers = nn.ModuleList(Residual(width, 5, 2**n, dropout) for n in range(depth))

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tokens:
        """See :class:`StreamEncoder`; ``values`` is ``Float[batch, samples]``."""
        check_sound(values, self.sample_rate // self.per_second)
        frames = None if lengths is None else lengths // self.mel.hop
        x = self.mel(values).transpose(1, 2)
        x = kept(x, frames)
        x = kept(torch.relu(self.norms[0](self.first(x))), frames)
        halves = None if frames is None else frames // 2
        x = self.halving(x)[..., : values.shape[1] // (2 * self.mel.hop)]  # a half vector is dropped
        x = kept(torch.relu(self.norms[1](x)), halves)
        for layer in self.layers:
            x = layer(x, halves)
        return as_vectors(x, halves)


class LipEncoder(StreamEncoder):
    """An encoder of mouths: one vector a frame, from about a second around it.

    The front end is spatio-temporal, as in LipNet: its first layer sees 5 frames at once.

    Args:
        width: entries of a vector.
        shape: height and width of a picture.
        channels: of the first layer; the next two have 2 and 4 times as many.
        depth: residual layers over time.
        dropout: while training.
        per_second: frames in a second.

    Source: Assael et al. 2016, arXiv 1611.01599.
    """

    stream = "video"

    @checked(
        width=Whole(1), channels=Whole(1), depth=Whole(0), dropout=Real(least=0, below=1), per_second=Whole(1)
    )
    def __init__(
        self,
        width: int = 128,
        *,
        shape: tuple[int, int] = (24, 48),
        channels: int = 16,
        depth: int = 3,
        dropout: float = 0.3,
        per_second: int = 25,
    ) -> None:
        super().__init__()
        self.width, self.per_second, self.shape = width, per_second, tuple(shape)
        self.motion = nn.Sequential(
            nn.Conv3d(1, channels, (5, 5, 5), stride=(1, 2, 2), padding=2, bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(),
        )
        self.form = nn.Sequential(
            *halving(channels, 2 * channels), *halving(2 * channels, 4 * channels), nn.Flatten()
        )
        sides = [-(-side // 8) for side in self.shape]
        self.mapped = nn.Linear(4 * channels * sides[0] * sides[1], width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Residual(width, 5, 2**n, dropout) for n in range(depth))

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tokens:
        """See :class:`StreamEncoder`; ``values`` is ``[batch, frames, height, width]``, uint8 or scaled."""
        check_clips(values)
        if tuple(values.shape[2:]) != self.shape:
            raise DataError(
                f"mouths of {self.shape[0]} x {self.shape[1]} pixels are expected, not of "
                f"{values.shape[2]} x {values.shape[3]}; crop and resize them so"
            )
        x = values if values.is_floating_point() else scaled(values, lengths)
        x = self.motion(kept(x.unsqueeze(1), lengths, time=2)).transpose(1, 2)
        x = self.mapped(self.dropout(self.form(x.flatten(0, 1))))
        x = kept(x.unflatten(0, values.shape[:2]).transpose(1, 2), lengths)
        for layer in self.layers:
            x = layer(x, lengths)
        return as_vectors(x, lengths)


class EncodedStream(StreamEncoder):
    """The vectors of a frozen encoder that ran before, in the place of recordings.

    Args:
        stream: name of the stream.
        width: entries of a vector.
        per_second: vectors in a second.
    """

    def __init__(self, stream: str, width: int, per_second: int) -> None:
        super().__init__()
        self.stream, self.width, self.per_second = stream, width, per_second
        self.sample_rate = per_second

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tokens:
        """See :class:`StreamEncoder`; ``values`` is ``Float[batch, n, width]``."""
        return as_vectors(values.transpose(1, 2), lengths)


class Residual(nn.Module):
    """Two convolutions over time, added to their input."""

    def __init__(self, width: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.first = nn.Conv1d(width, width, kernel, padding=padding, dilation=dilation, bias=False)
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(dropout)
        self.second = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """``Float[batch, width, n]``, zero beyond ``lengths``."""
        return kept(x + self.second(self.dropout(torch.relu(self.norm(self.first(x))))), lengths)


def halving(given: int, made: int) -> tuple[nn.Module, ...]:
    """A convolution that halves a picture, its norm and its activation."""
    return nn.Conv2d(given, made, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU()


def kept(x: Tensor, lengths: Tensor | None, time: int = -1) -> Tensor:
    """``x`` with zeros beyond the lengths along the axis ``time``."""
    if lengths is None:
        return x
    return x * _mask(x, lengths, time)


def as_vectors(x: Tensor, lengths: Tensor | None) -> Tokens:
    """``Float[batch, width, n]`` as vectors of a sequence with their mask."""
    mask = None if lengths is None else _mask(x, lengths, -1).flatten(1) > 0
    return Tokens(x.transpose(1, 2), mask)


def _mask(x: Tensor, lengths: Tensor, time: int) -> Tensor:
    places = torch.arange(x.shape[time], device=x.device)
    shape = [len(x)] + [1] * (x.ndim - 1)
    shape[time] = -1
    return (places < lengths.to(x.device)[:, None]).reshape(shape).to(x.dtype)
