"""The choice between compiled kernels and numpy."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from nestling.errors import ConfigError, unknown
from nestling.kernels.library import LEVELS, levels

_VARIABLE = "NESTLING_KERNELS"
P = ParamSpec("P")
T = TypeVar("T")


def available() -> bool:
    """Whether there are compiled kernels for this machine; numpy gives the same results otherwise."""
    return bool(levels())


def level() -> str:
    """The instructions that kernels use: ``avx512``, ``avx2``, ``neon``, ``plain``, or ``off`` for numpy.

    Raises:
        ConfigError: if ``NESTLING_KERNELS`` asks for what is unknown or what this machine lacks.
    """
    wanted, found = os.environ.get(_VARIABLE), levels()
    if not wanted:
        return found[-1] if found else "off"
    if wanted not in ("off", *LEVELS):
        raise ConfigError(unknown(f"level in {_VARIABLE}", wanted, ("off", *LEVELS)))
    if wanted != "off" and wanted not in found:
        raise ConfigError(
            f"{_VARIABLE}={wanted}, but this machine has only "
            f"{', '.join(('off', *found))}; unset it to use the best"
        )
    return wanted


def backend(by_numpy: Callable[P, T], compiled: Callable[Concatenate[str, P], T]) -> Callable[P, T]:
    """One kernel of its two forms: compiled for the present :func:`level`, or in numpy where that is ``off``.

    Args:
        by_numpy: the kernel in numpy, which documents both.
        compiled: the same, with the level before the other arguments.
    """

    @wraps(by_numpy)
    def kernel(*args: P.args, **kwargs: P.kwargs) -> T:
        now = level()
        return by_numpy(*args, **kwargs) if now == "off" else compiled(now, *args, **kwargs)

    return kernel
