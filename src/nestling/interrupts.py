"""What Ctrl-C leaves: work that can go on notes on the interrupt what was kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_interrupt(told: Callable[[], str]) -> Iterator[None]:
    """Adds to a ``KeyboardInterrupt`` that passes what ``told`` says then: what was kept, and how to go on.

    >>> try:
    ...     with on_interrupt(lambda: "12 texts are kept; repeat it to go on"):
    ...         raise KeyboardInterrupt
    ... except KeyboardInterrupt as stopped:
    ...     stopped.__notes__
    ['12 texts are kept; repeat it to go on']
    """
    try:
        yield
    except KeyboardInterrupt as stopped:
        stopped.add_note(told())
        raise
