"""The learning rate that does best, found by doubling or halving while that pays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Worth = TypeVar("Worth", bound=Any)  # whatever compares, such as a number or a tuple of numbers


def climb(worth: Callable[[float], Worth], start: float) -> dict[float, Worth]:
    """What each rate that was tried is worth: upwards from ``start`` while that pays, or else downwards.

    A rate on either side of the best one has been tried, so that the best is at no edge of the search.

    >>> climb(lambda rate: -abs(rate - 3), 1.0)
    {1.0: -2.0, 2.0: -1.0, 4.0: -1.0}
    """
    tried = {start: worth(start)}
    for factor in (2.0, 0.5):
        rate = start
        while True:
            tried[rate * factor] = worth(rate * factor)
            if not tried[rate * factor] > tried[rate]:
                break
            rate *= factor
        if rate != start:
            break
    return tried
