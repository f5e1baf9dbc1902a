"""Pools of threads limit BLAS, take turns and restore the limit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from nestling.errors import ConfigError, DataError
from nestling.search.exact.neighbours import nearest
from nestling.search.exact.threads import _controller, count_workers, worker_pool


def product_threads(_: object = None) -> set[int]:
    """Of numpy's BLAS; torch may have brought another one."""
    numpys = [pool for pool in _controller().info() if pool["user_api"] == "blas"]
    return {pool["num_threads"] for pool in numpys}


def test_inside_the_pool_a_product_has_one_thread() -> None:
    with threadpool_limits(2, user_api="blas"):
        with worker_pool(3) as pool:
            assert list(pool.map(product_threads, range(3))) == [{1}] * 3
        assert product_threads() == {2}


def test_pools_take_turns() -> None:
    """Were they to overlap, the second would take the limit of the first for what is to be restored."""
    before, inside = product_threads(), []
    ready = threading.Barrier(4)

    def use(number: int) -> None:
        ready.wait(10)
        with worker_pool(2) as pool:
            inside.append(number)
            assert list(pool.map(product_threads, range(2))) == [{1}] * 2
            assert inside[-1] == number

    with ThreadPoolExecutor(4) as users:
        list(users.map(use, range(4)))
    assert product_threads() == before


def test_a_search_that_fails_restores_the_limit() -> None:
    with threadpool_limits(2, user_api="blas"):
        with pytest.raises(DataError, match="row 3 of documents"):
            nearest(np.ones((100, 4)), np.diag([1.0, 1.0, 1.0, 0.0]), 1, workers=2)
        assert product_threads() == {2}


def test_workers_are_counted() -> None:
    assert count_workers(None) >= 1
    assert count_workers(3) == 3
    with pytest.raises(ConfigError, match="workers=0"):
        count_workers(0)
