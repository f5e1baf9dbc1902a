"""Seeds the global random generators from (seed, step, process), and restores them after the run.

Every step and every batch sets the seed. So a resumed run uses the same random numbers as an uninterrupted
one without saving the state of generators, and an evaluation in between may use random numbers freely.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

STEP, BATCH = 0, 1
"""Kinds of seeded work: an optimiser step, or making a batch."""


def seed_from(*key: int, device: torch.device | None = None) -> None:
    """Seed the global generators of Python, numpy and torch (CPU and ``device``) from ``key``."""
    first, second, *rest = (int(word) for word in np.random.SeedSequence(key).generate_state(4))
    seed = (first << 32 | second) >> 1
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
    random.seed(rest[0])
    np.random.seed(rest[1])  # noqa: NPY002 - third-party data sets may use it


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """The block may seed the global generators; afterwards their state is restored."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    on_cpu = device.type == "cpu"
    indices = [] if on_cpu else [device.index or 0]
    try:
        with torch.random.fork_rng(indices, device_type="cuda" if on_cpu else device.type):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
