"""``LawError``, which every suite raises, and the comparison of global random states."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np


class LawError(AssertionError):
    """A law is broken; the message starts with the name of the law and says where it broke."""


def random_state() -> tuple[Any, ...]:
    """The global random state of Python, numpy and (where it is loaded) torch, to compare."""
    torch = sys.modules.get("torch")
    legacy: Any = np.random.get_state()  # noqa: NPY002 - the global state is what must not change
    return (
        random.getstate(),
        legacy[1].tobytes(),
        legacy[2:],
        None if torch is None else torch.get_rng_state().numpy().tobytes(),
    )
