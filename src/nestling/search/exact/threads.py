"""Thread pool for matrix products, one BLAS thread per worker."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

from nestling.arguments.constraints import Whole, check

# BLAS has one thread count per process. If two pools set and restored it in overlap, it could stay at one.
# A pool keeps all cores busy, so pools take turns.
_turn = threading.Lock()


def _give_a_new_turn() -> None:
    """A child process must not wait for a thread that only its parent has."""
    global _turn
    _turn = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_a_new_turn)


def count_workers(workers: int | None) -> int:
    """The number of threads to use: as many as this process may use cores, unless it is given.

    Raises:
        ConfigError: for what is no whole number of at least 1.
    """
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return check("workers", workers, Whole(1))


@contextmanager
def worker_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads whose products of matrices start no threads of their own, which would be many times slower."""
    with _turn, _limit_products(), ThreadPoolExecutor(workers, initializer=_limit_products) as pool:
        yield pool


def _limit_products() -> Any:
    """One thread for each product: of the process or, where the library counts so, of this thread."""
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> ThreadpoolController:
    """Found once: looking through the loaded libraries takes longer than a small search."""
    return ThreadpoolController()
