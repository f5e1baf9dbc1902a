"""Devices by name."""

from __future__ import annotations

import torch

from nestling.errors import ConfigError


def check_device(device: str | None) -> None:
    """Allocate nothing on a device, to see that it is there before a model is read; None is any.

    Raises:
        ConfigError: for a name that torch does not know, or a device that this machine does not have.
    """
    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"device={device!r} cannot be used on this machine: {reason}") from error


def fastest_device() -> str:
    """A GPU where there is one, else the processor."""
    return "cuda" if torch.cuda.is_available() else "cpu"
