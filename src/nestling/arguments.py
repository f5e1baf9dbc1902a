"""Numbers that a function is given: of the right kind and in range, or an error that names the argument."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nestling.errors import ConfigError


def whole(name: str, value: Any, *, least: int = 1, most: int | None = None) -> int:
    """``value`` as an int; numpy's integers are welcome, floats, bools and text are not.

    Raises:
        ConfigError: for another type, or a number below ``least`` or above ``most``.

    >>> whole("k", np.int64(3)), whole("seed", 0, least=0)
    (3, 0)
    """
    wanted = (
        f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
    )
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ConfigError(f"{name} must be {wanted}, not {_shown(value)}")
    if value < least or (most is not None and value > most):
        raise ConfigError(f"{name}={value} must be {wanted}")
    return int(value)


def real(name: str, value: Any) -> float:
    """``value`` as a float; infinity passes, NaN, bools and text do not.

    Raises:
        ConfigError: for another type, or NaN.

    >>> real("keep", "0.9")
    Traceback (most recent call last):
        ...
    nestling.errors.ConfigError: keep must be a number, not '0.9', which is a str
    """
    numeric = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not numeric:
        raise ConfigError(f"{name} must be a number, not {_shown(value)}")
    if math.isnan(value):
        raise ConfigError(f"{name} is NaN; give a number")
    return float(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 40 else f'{text[:37]}...'}, which is a {type(value).__name__}"
