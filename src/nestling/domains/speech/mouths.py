"""Pictures of mouths: found in a clip, scaled for a network, and varied for its training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nestling.arguments.constraints import Real, Whole, checked
from nestling.errors import DataError

_SMALLEST_DEVIATION = 1.0


def scaled(clips: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Each clip with mean 0 and deviation 1, so that light and camera matter less.

    Args:
        clips: ``UInt8[batch, frames, height, width]`` or floats of that shape, grey.
        lengths: ``Int[batch]``, of each in frames; what follows is padding and becomes 0. None if all are
            whole.

    Raises:
        DataError: for another shape.
    """
    check_clips(clips)
    values, frames = clips.float(), clips.shape[1]
    real = torch.ones(1, frames) if lengths is None else (torch.arange(frames) < lengths[:, None]).float()
    real = real.to(values.device)[:, :, None, None]
    pixels = real.sum(dim=1, keepdim=True) * clips.shape[2] * clips.shape[3]
    mean = (values * real).sum(dim=(1, 2, 3), keepdim=True) / pixels
    centred = (values - mean) * real
    deviation = (centred.square().sum(dim=(1, 2, 3), keepdim=True) / pixels).sqrt()
    return centred / deviation.clamp_min(_SMALLEST_DEVIATION)


@checked(height=Whole(1), width=Whole(1))
def around_mouths(clips: Tensor, height: int, width: int) -> Tensor:
    """The part of each clip that moves most, enlarged to the size of the clip.

    In a picture of the lower half of a face, that part is the mouth. It is the same in all frames of a clip,
    so mouths are in the middle and fill the picture, wherever the speaker sits.

    Args:
        clips: ``UInt8[batch, frames, rows, columns]`` or floats of that shape, of at least 2 frames.
        height: rows of the part.
        width: columns of the part.

    Returns:
        Of the shape and type of the clips.

    Raises:
        DataError: for another shape, one frame, or a part larger than the picture.
    """
    check_clips(clips)
    rows, columns = clips.shape[2:]
    if len(clips[0]) < 2 or height > rows or width > columns:
        raise DataError(
            f"a part of {height} x {width} pixels that moves needs two frames of at least this size, and the "
            f"clips have {clips.shape[1]} of {rows} x {columns}"
        )
    found = []
    for clip in clips:  # one by one, as a copy in floats takes four times the memory
        values = clip.float()
        change = (values[1:] - values[:-1]).abs().mean(dim=0)[None, None]
        within = F.avg_pool2d(change, (height, width), stride=1)[0, 0]
        top, left = divmod(int(within.argmax()), within.shape[1])
        part = values[:, None, top : top + height, left : left + width]
        found.append(F.interpolate(part, (rows, columns), mode="bilinear")[:, 0])
    enlarged = torch.stack(found)
    return enlarged if clips.is_floating_point() else enlarged.round().to(clips.dtype)


@checked(shift=Whole(0), contrast=Real(least=0, below=1), mask=Real(least=0, below=1))
def varied(
    clips: Tensor, generator: torch.Generator, *, shift: int = 3, contrast: float = 0.2, mask: float = 0.2
) -> Tensor:
    """Scaled clips, each flipped at random, moved, made lighter or darker, and with some frames grey.

    Args:
        clips: ``Float[batch, frames, height, width]``.
        generator: of all that is random.
        shift: pixels, at most, that a clip is moved in each direction; its edges are repeated.
        contrast: largest relative change of contrast, and largest change of brightness.
        mask: largest share of the frames that become grey, in one stretch.
    """
    batch, frames, height, width = clips.shape

    def random(low: float, high: float) -> Tensor:
        return torch.rand(batch, generator=generator) * (high - low) + low

    moves = torch.randint(-shift, shift + 1, (2, batch, 1), generator=generator)
    rows = (torch.arange(height) + moves[0]).clamp(0, height - 1)
    columns = (torch.arange(width) + moves[1]).clamp(0, width - 1)
    flipped = (random(0, 1) < 0.5)[:, None]
    columns = torch.where(flipped, columns.flip(1), columns)
    items = torch.arange(batch)[:, None, None, None]
    every = torch.arange(frames)[None, :, None, None]
    found = clips[items, every, rows[:, None, :, None], columns[:, None, None, :]]
    gain, light = random(1 - contrast, 1 + contrast), random(-contrast, contrast)
    found = found * gain[:, None, None, None] + light[:, None, None, None]
    length = random(0, mask) * frames
    start = random(0, 1) * (frames - length)
    places = torch.arange(frames)
    hidden = (places >= start[:, None]) & (places < (start + length)[:, None])
    return found.masked_fill(hidden[:, :, None, None], 0.0)


def check_clips(clips: object) -> None:
    """Refuse what is not a batch of clips.

    Raises:
        DataError: for another type or shape.
    """
    if not isinstance(clips, Tensor) or clips.ndim != 4 or not clips.numel():
        found = tuple(clips.shape) if isinstance(clips, Tensor) else type(clips)
        raise DataError(f"clips of mouths must be of shape [batch, frames, height, width], grey, not {found}")
