"""The training loop, on Accelerate: batches, optimiser steps, checkpoints and the log."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nestling.training.config import TrainConfig
from nestling.training.log import LogRow, TrainLog

if TYPE_CHECKING:
    from nestling.training.loop import fit as fit

__all__ = ["LogRow", "TrainConfig", "TrainLog", "fit"]


def __getattr__(name: str) -> Any:
    """Loads ``fit`` at first use, so that reading a plan does not import torch."""
    if name != "fit":
        raise AttributeError(f"module 'nestling.training' has no attribute {name!r}")
    return import_module("nestling.training.loop").fit
