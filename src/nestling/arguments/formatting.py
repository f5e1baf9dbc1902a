"""Formats values for error messages."""

from __future__ import annotations

import re
from typing import Any

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def shown(value: Any) -> str:
    """A value as errors show it: on one line, and where it has to be shortened with its type.

    >>> import numpy as np
    >>> shown(np.zeros((3, 3))), shown(object()), shown("0.9")
    ('array([[0., 0., 0.], [0., 0., 0.], [0...., an ndarray', 'an object', "'0.9'")
    """
    text = " ".join(repr(value).split())
    if _ADDRESS.search(text):
        return type_of(value)
    return text if len(text) <= 40 else f"{text[:37]}..., {type_of(value)}"


def type_of(value: Any) -> str:
    """The type of a value with its article.

    >>> import numpy as np
    >>> type_of(3), type_of({}), type_of(np.zeros(3))
    ('an int', 'a dict', 'an ndarray')
    """
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' or name == 'ndarray' else 'a'} {name}"
