"""Noise at an exact signal-to-noise ratio, and babble of other speakers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nestling.arguments.arrays import as_array
from nestling.arguments.constraints import Whole, checked
from nestling.arguments.formatting import shown
from nestling.cut import name_rows
from nestling.errors import ConfigError, DataError

Floats = NDArray[np.float32]


def mix(speech: NDArray[Any], noise: NDArray[Any], snr_db: float | NDArray[Any]) -> Floats:
    """Speech with noise, of which the energy is exactly ``snr_db`` decibels below that of the speech.

    The speech keeps its level; the sum may exceed 1 and is not clipped.

    Args:
        speech: ``Float[samples]`` or ``Float[n, samples]``.
        noise: of the same shape, or one recording for all.
        snr_db: ratio of energies in decibels; 0 is as loud as the speech, ``inf`` adds none. One for all, or
            ``Float[n]``.

    Raises:
        DataError: for other shapes, or speech or noise that is silent, for which there is no ratio.
        ConfigError: for a ratio that is NaN or minus infinity.

    >>> speech, noise = np.array([1.0, -1.0]), np.array([3.0, 3.0])
    >>> mix(speech, noise, 0.0)
    array([2., 0.], dtype=float32)
    """
    speech, noise, ratio = (
        _numbers(*each) for each in ((speech, "speech"), (noise, "noise"), (snr_db, "snr_db"))
    )
    if speech.ndim not in (1, 2) or noise.shape not in (speech.shape, speech.shape[-1:]):
        raise DataError(
            f"noise of shape {noise.shape} does not fit speech of shape {speech.shape}; give as many samples"
        )
    if ratio.ndim and ratio.shape != speech.shape[:-1]:
        raise DataError(f"snr_db of shape {ratio.shape} must be one number, or one for each recording")
    if np.isnan(ratio).any() or np.isneginf(ratio).any():
        raise ConfigError("snr_db must be decibels; inf adds no noise, and nothing removes the speech")
    _check_heard(speech, "speech")
    _check_heard(noise, "noise")
    level = np.sqrt(_energy(speech) / _energy(noise)) * 10.0 ** (-ratio / 20.0)
    return np.asarray(speech + level[..., None] * noise, np.float32)


@checked(samples=Whole(1), talkers=Whole(1), seed=Whole(0))
def babble(pool: Sequence[NDArray[Any]], samples: int, *, talkers: int = 6, seed: int = 0) -> Floats:
    """The sum of several recordings, each as loud as the others and begun at a random place.

    A recording that is shorter than ``samples`` is repeated.

    Args:
        pool: recordings to draw from, such as those of the training part.
        samples: of the result.
        talkers: recordings in the sum, all different.
        seed: of the recordings and their places.

    Raises:
        DataError: for fewer recordings than talkers, or a silent one.
    """
    if len(pool) < talkers:
        raise DataError(f"babble of talkers={talkers} needs as many recordings, not {len(pool)}")
    rng = np.random.default_rng(seed)
    total = np.zeros(samples)
    for place in rng.choice(len(pool), size=talkers, replace=False):
        voice = np.asarray(pool[place], np.float64)
        _check_heard(voice, f"recording {place} of the pool")
        start = int(rng.integers(len(voice)))
        repeated = np.resize(np.roll(voice, -start), samples)
        total += repeated / np.sqrt(_energy(voice))
    return np.asarray(total, np.float32)


def mixed_at_random(
    speech: Tensor, noises: Tensor, ratios: Sequence[float], generator: torch.Generator
) -> Tensor:
    """Each recording with one of the noises, at one of the ratios, as an encoder is trained.

    Args:
        speech: ``Float[batch, samples]``.
        noises: ``Float[n, samples]``, such as several draws of :func:`babble`.
        ratios: in decibels; ``inf`` adds none.
        generator: of the choices.
    """
    chosen = torch.randint(len(noises), (len(speech),), generator=generator)
    levels = torch.tensor(list(ratios))[torch.randint(len(ratios), (len(speech),), generator=generator)]
    return torch.from_numpy(mix(speech.numpy(), noises[chosen].numpy(), levels.numpy())).to(speech.dtype)


def _numbers(given: Any, what: str) -> NDArray[np.float64]:
    found = as_array(given, what)
    if found.dtype.kind not in "fiu":
        raise DataError(f"{what} must be numbers, not {shown(given)}")
    return found.astype(np.float64)


def _energy(sound: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.square(sound).mean(axis=-1))


def _check_heard(sound: NDArray[np.float64], what: str) -> None:
    """Refuse recordings without sound, or with numbers that are not finite."""
    if not sound.size or not np.isfinite(sound).all():
        raise DataError(f"the {what} is empty, or not finite everywhere")
    silent = np.flatnonzero(np.atleast_1d(_energy(sound) == 0)).tolist()
    if silent:
        where = f" ({name_rows(silent)})" if sound.ndim == 2 else ""
        raise DataError(
            f"the {what} is silent{where}, so no ratio to it can be set; leave such recordings out"
        )
