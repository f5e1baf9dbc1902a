"""Exact comparison of numbers in databases whose fields hold 64-bit integers or doubles, but not both."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

Order: TypeAlias = Literal["eq", "gt", "gte", "lt", "lte"]
Number: TypeAlias = int | float

LEAST, MOST = -(2**63), 2**63 - 1
EXACT = 2**53
"""From here on doubles leave out some whole numbers."""


def for_integers(op: Order, bound: Number) -> tuple[Order, int] | bool:
    """The test of a 64-bit integer that says the same as ``op`` with ``bound``; a truth value for all.

    >>> for_integers("gte", 2.5)
    ('gte', 3)
    >>> for_integers("lt", 1e30)
    True
    """
    if op == "eq":
        whole = int(bound)
        return ("eq", whole) if whole == bound and LEAST <= whole <= MOST else False
    whole = math.ceil(bound) if op in ("gte", "lt") else math.floor(bound)
    if LEAST <= whole <= MOST:
        return op, whole
    return (whole > MOST) == (op in ("lt", "lte"))


def for_doubles(op: Order, bound: Number) -> tuple[Order, float] | bool:
    """The test of a double that says the same as ``op`` with ``bound``; False if none can be equal.

    >>> for_doubles("gte", 2**53 + 1)
    ('gt', 9007199254740992.0)
    """
    near = float(bound)
    if near == bound:
        return op, near
    if op == "eq":
        return False
    if op in ("gt", "gte"):
        return ("gte" if near > bound else "gt"), near
    return ("lt" if near > bound else "lte"), near


def rounded_to(near: float) -> list[int]:
    """The 64-bit integers that become ``near`` when they are read as doubles; of large ones, several."""
    if abs(near) < EXACT:
        return [int(near)] if near.is_integer() else []
    middle = int(near)
    reach = 2 ** max(middle.bit_length() - 53, 1)
    return [
        whole
        for whole in range(max(middle - reach, LEAST), min(middle + reach, MOST) + 1)
        if float(whole) == near
    ]
