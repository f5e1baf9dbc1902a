"""Splits work into blocks: spans of rows, shares for threads, batches of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import TypeVar

Item = TypeVar("Item")


def blocks(count: int, size: int, start: int = 0) -> list[slice]:
    """The numbers from ``start`` up to ``count`` in slices of ``size``; the last one may be shorter.

    >>> blocks(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(begin, min(begin + size, count)) for begin in range(start, count, size)]


def shares(count: int, parts: int) -> list[slice]:
    """``count`` numbers in ``parts`` slices, whose lengths differ by one at most.

    >>> shares(5, 2)
    [slice(0, 2, None), slice(2, 5, None)]
    """
    return [slice(*ends) for ends in pairwise(count * part // parts for part in range(parts + 1))]


def even_blocks(count: int, most: int) -> list[slice]:
    """``count`` numbers in as few slices of at most ``most`` as possible, alike in length.

    A short last block would take another path through the linear algebra library, which is slower.
    """
    return shares(count, -(-count // most))


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Items of any number in lists of ``size``; the last one may be shorter.

    >>> list(batches("abc", 2))
    [['a', 'b'], ['c']]
    """
    left = iter(items)
    return iter(lambda: list(islice(left, size)), [])
