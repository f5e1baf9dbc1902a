"""Numbers that a function is given: of the right kind and in range, or an error that names the argument."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from nestling.errors import ConfigError

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


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
        raise ConfigError(f"{name} must be {wanted}, not {shown(value)}")
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
    nestling.errors.ConfigError: keep must be a number, not '0.9'
    """
    numeric = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not numeric:
        raise ConfigError(f"{name} must be a number, not {shown(value)}")
    if math.isnan(value):
        raise ConfigError(f"{name} is NaN; give a number")
    return float(value)


def shown(value: Any) -> str:
    """A value as errors show it: on one line, and where it has to be shortened with its type.

    >>> shown(np.zeros((3, 3))), shown(object()), shown("0.9")
    ('array([[0., 0., 0.], [0., 0., 0.], [0...., an ndarray', 'an object', "'0.9'")
    """
    text = " ".join(repr(value).split())
    if _ADDRESS.search(text):
        return type_of(value)
    return text if len(text) <= 40 else f"{text[:37]}..., {type_of(value)}"


def type_of(value: Any) -> str:
    """The type of a value with its article.

    >>> type_of(3), type_of({}), type_of(np.zeros(3))
    ('an int', 'a dict', 'an ndarray')
    """
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' or name == 'ndarray' else 'a'} {name}"
