"""Randomness of a run as a function of (seed, step, process), and the user's left as it was.

Every step and every batch seeds the global generators anew. So a run that goes on from a checkpoint
draws what an uninterrupted one draws, with nothing of the generators to be saved, and an evaluation
in between that draws numbers of its own changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

STEP, BATCH = 0, 1
"""What is seeded: a step of the optimiser, or the making of a batch."""


def seed_from(*key: int, device: torch.device | None = None) -> None:
    """Seed the global generators of Python, numpy and torch (CPU and ``device``) from ``key``."""
    first, second, *rest = (int(word) for word in np.random.SeedSequence(key).generate_state(4))
    seed = (first << 32 | second) >> 1
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
    random.seed(rest[0])
    np.random.seed(rest[1])  # noqa: NPY002 - data sets of others may draw from it


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Within, the global generators may be seeded; afterwards they are as they were before."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    on_cpu = device.type == "cpu"
    indices = [] if on_cpu else [device.index or 0]
    try:
        with torch.random.fork_rng(indices, device_type="cuda" if on_cpu else device.type):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
