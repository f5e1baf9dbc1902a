"""Ctrl-C: say what was kept, and delay it where it would leave half of a change."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def on_interrupt(message: Callable[[], str]) -> Iterator[None]:
    """Adds ``message()`` to a ``KeyboardInterrupt`` that passes: what was kept, and how to resume.

    >>> try:
    ...     with on_interrupt(lambda: "12 texts are kept; run it again to resume"):
    ...         raise KeyboardInterrupt
    ... except KeyboardInterrupt as stopped:
    ...     stopped.__notes__
    ['12 texts are kept; run it again to resume']
    """
    try:
        yield
    except KeyboardInterrupt as stopped:
        with suppress(KeyboardInterrupt), held_interrupts():  # a second one has nothing more to stop
            stopped.add_note(message())
        raise


@contextmanager
def held_interrupts() -> Iterator[None]:
    """Delays Ctrl-C to the end of the block; a second Ctrl-C interrupts at once."""
    before = signal.getsignal(signal.SIGINT)
    # Other threads never receive the signal, and a handler that is not Python's cannot be put back.
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    is_over = pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if is_over or pressed:
            before(number, frame)
        pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    except KeyboardInterrupt:
        pressed = False  # it is on its way already
        raise
    finally:
        is_over = True  # an exception between two blocks may leave this handler in place
        signal.signal(signal.SIGINT, before)
        if pressed:
            signal.raise_signal(signal.SIGINT)
