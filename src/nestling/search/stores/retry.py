"""Retries after temporary failures: lost connections, timeouts, busy servers."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep
from typing import TypeVar

from nestling.errors import StoreBusyError

Answer = TypeVar("Answer")

_ATTEMPTS = 5
_FIRST_WAIT_S = 0.1


def with_retries(action: Callable[[], Answer]) -> Answer:
    """Runs ``action`` up to five times, with waits of 0.1, 0.2, 0.4 and 0.8 seconds between.

    Raises:
        StoreBusyError: of the last attempt, if all failed; any other error at once.
    """
    for attempt in range(_ATTEMPTS - 1):
        try:
            return action()
        except StoreBusyError:
            sleep(_FIRST_WAIT_S * 2**attempt)
    return action()
