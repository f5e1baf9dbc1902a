"""Log-mel spectrograms, as Whisper computes them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import Whole, checked
from nestling.cut import name_rows
from nestling.errors import ConfigError, DataError

_FLOOR = 1e-10
_RANGE = 8.0
_LINEAR_HZ, _LOG_STEP = 1000.0, np.log(6.4) / 27


class LogMel(nn.Module):
    """The energy of sound in bands of the mel scale, in windows that overlap.

    One frame every ``hop`` samples: 100 a second at 16 kHz. Frames lie around multiples of ``hop``; sound
    before and after a recording is silence, so a recording gives the same frames whatever it is batched
    with. As in Whisper, energies more than 80 dB below the loudest of a recording are raised to that, and the
    logarithm is scaled to about -1 to 1.

    Args:
        sample_rate: samples in a second.
        bands: number of mel bands.
        window: samples in a window; a Hann window.
        hop: samples between frames.
        mirrored: take the sound mirrored at its ends in place of silence, exactly as Whisper does.

    Source: Radford et al. 2022, arXiv 2212.04356, section 2.2; bands of Slaney's Auditory Toolbox.

    >>> LogMel()(torch.zeros(2, 16_000)).shape
    torch.Size([2, 100, 40])
    """

    weights: Tensor
    taper: Tensor

    @checked(sample_rate=Whole(1), bands=Whole(1), window=Whole(2), hop=Whole(1))
    def __init__(
        self,
        sample_rate: int = 16_000,
        bands: int = 40,
        *,
        window: int = 400,
        hop: int = 160,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        self.sample_rate, self.bands, self.window, self.hop = sample_rate, bands, window, hop
        self.mirrored = mirrored
        weights = mel_bands(sample_rate, window, bands, sample_rate / 2)
        self.register_buffer("weights", torch.from_numpy(weights).float(), persistent=False)
        self.register_buffer("taper", torch.hann_window(window), persistent=False)

    def forward(self, sound: Tensor) -> Tensor:
        """``Float[batch, samples // hop, bands]`` of ``Float[batch, samples]`` in -1 to 1.

        Raises:
            DataError: for another shape or type, or fewer samples than one hop.
        """
        check_sound(sound, self.window if self.mirrored else self.hop)
        frames, half = sound.shape[1] // self.hop, self.window // 2
        mode = "reflect" if self.mirrored else "constant"
        padded = F.pad(sound[:, None], (half, half), mode=mode)[:, 0]
        windows = padded.unfold(1, self.window, self.hop)[:, :frames] * self.taper
        power = torch.fft.rfft(windows).abs().square()
        log = (power @ self.weights).clamp_min(_FLOOR).log10()
        loudest = log.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(log, loudest - _RANGE) + 4.0) / 4.0


def mel_bands(sample_rate: int, window: int, bands: int, highest: float) -> NDArray[np.float64]:
    """Triangular filters ``Float[window // 2 + 1, bands]`` of equal area, evenly spaced in mels from 0.

    Raises:
        ConfigError: if a band is too narrow to hold a frequency of the transform.
    """
    edges = _hertz(np.linspace(0.0, _mels(highest), bands + 2))
    frequencies = np.linspace(0.0, sample_rate / 2, window // 2 + 1)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))
    if not weights.any(axis=0).all():
        raise ConfigError(f"bands={bands} are too many for a window of {window} samples; give fewer bands")
    return weights


def check_sound(sound: object, least: int = 1) -> None:
    """Refuse what is not a batch of recordings.

    Raises:
        DataError: for another type or shape, or fewer than ``least`` samples.
    """
    if not isinstance(sound, Tensor) or sound.ndim != 2 or not sound.is_floating_point():
        found = f"{sound.dtype} of shape {tuple(sound.shape)}" if isinstance(sound, Tensor) else type(sound)
        raise DataError(f"sound must be floats of shape [batch, samples], from -1 to 1, not {found}")
    if sound.shape[1] < least or not len(sound):
        raise DataError(f"sound of {sound.shape[1]} samples is too short; give at least {least}")
    bad = torch.nonzero(~sound.isfinite().all(dim=1)).flatten().tolist()
    if bad:
        raise DataError(f"{name_rows(bad)} of the sound hold NaN or infinity; leave such recordings out")


def _mels(hertz: float) -> float:
    """Linear below 1000 Hz (15 mels), logarithmic above."""
    return 3 * hertz / 200 if hertz < _LINEAR_HZ else 15 + np.log(hertz / _LINEAR_HZ) / _LOG_STEP


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mels < 15, 200 * mels / 3, _LINEAR_HZ * np.exp(_LOG_STEP * (mels - 15)))
