"""Concordance kernels agree with all pairs, numpy and scipy at every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from nestling.kernels import concordance as kernel
from nestling.kernels.library import levels
from samples import examples

pytestmark = pytest.mark.skipif(
    not levels(), reason="the kernels were not compiled: there is nothing to compare with numpy"
)


def some_ranks(rows: int, size: int, different: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return kernel.ranks_by_numpy(rng.integers(different, size=(rows, size)).astype(np.float64))


def permutations(rows: int, size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(size) for _ in range(rows)], np.int32)


def slow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All pairs of entries."""
    signs = [np.sign(x[:, :, None] - x[:, None]).astype(np.int64) for x in (a, b)]
    return np.einsum("aij,bij->ab", *signs) // 2


# Sizes about those where a chunk, a byte of the ranks or both begin.
@pytest.mark.parametrize("size", [1, 2, 3, 17, 254, 255, 256, 257, 300, 511, 600])
@pytest.mark.parametrize("different", [1, 2, 10, 300, 10**9])
def test_all_pairs_agree(size: int, different: int) -> None:
    a, b = some_ranks(2, size, different), some_ranks(3, size, max(2, different // 2), seed=1)
    expected = slow(a, b)
    np.testing.assert_array_equal(kernel.by_library(a, b), expected)
    np.testing.assert_array_equal(kernel.by_numpy(a, b), expected)
    untied = permutations(2, size)
    for x, y in ((untied, b), (b, untied), (untied, untied)):
        np.testing.assert_array_equal(kernel.by_library(x, y), slow(x, y))


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 70_000])
@pytest.mark.parametrize("different", [2, 40_000, None])
def test_large_rankings_agree_with_numpy(size: int, different: int | None) -> None:
    """More values than two bytes number; scipy knows the same of one of them."""
    if different is None:
        a, b = permutations(1, size), permutations(2, size, seed=1)
    else:
        a, b = some_ranks(1, size, different), some_ranks(2, size, different, seed=1)
    found = kernel.by_library(a, b)
    np.testing.assert_array_equal(found, kernel.by_numpy(a, b))
    if different is None:
        tau = found[0, 0] / (size * (size - 1) / 2)
        assert tau == pytest.approx(stats.kendalltau(a[0], b[0]).statistic, abs=1e-14)


def test_order_and_its_reverse() -> None:
    """Nothing and everything is inverted: 4,999,950,000 pairs, more than 32 bits hold."""
    rising = np.arange(100_000, dtype=np.int32)[None]
    pairs = 100_000 * 99_999 // 2
    assert kernel.by_library(rising, rising) == pairs
    assert kernel.by_library(rising, rising[:, ::-1]) == -pairs


numbers = st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-52, -1.0, 5e-324])


@settings(max_examples=examples(60))
@given(arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=numbers))
def test_ranks_are_those_of_scipy(x: np.ndarray) -> None:
    expected = stats.rankdata(x, method="dense", axis=1) - 1
    np.testing.assert_array_equal(kernel.ranks_by_library(x), expected)
    np.testing.assert_array_equal(kernel.ranks_by_numpy(x), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda rng, size: rng.random(size),
        lambda rng, size: rng.normal(size=size) * 10.0 ** rng.integers(-300, 300, size),
        lambda rng, size: 1 + rng.integers(0, 1000, size) * 2**-52,  # equal but for the last bits
        lambda rng, size: rng.integers(0, 5, size).astype(float),
        lambda rng, size: rng.choice([-np.inf, np.inf, -0.0, 0.0, 1e-310], size),
        lambda _, size: np.arange(size)[::-1].astype(float),
    ],
)
@pytest.mark.parametrize("size", [1023, 1024, 1025, 30_000])
def test_ranks_of_many_numbers(make: object, size: int) -> None:
    rng = np.random.default_rng(2)
    x = np.array([make(rng, size) for _ in range(2)])
    before = x.copy()
    np.testing.assert_array_equal(kernel.ranks_by_library(x), kernel.ranks_by_numpy(x))
    np.testing.assert_array_equal(x, before)


def test_arrays_need_not_be_contiguous() -> None:
    x = np.random.default_rng(3).random((6, 50))
    ranks = kernel.ranks_by_library(x[::2, ::2])
    np.testing.assert_array_equal(ranks, kernel.ranks_by_numpy(x[::2, ::2].copy()))
    np.testing.assert_array_equal(kernel.by_library(ranks[::2], ranks), slow(ranks[::2], ranks))


def test_the_level_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(kernel, "by_numpy", lambda a, b: called.append("numpy"))
    monkeypatch.setattr(kernel, "by_library", lambda a, b: called.append("library"))
    ranks = permutations(1, 5)
    monkeypatch.setenv("NESTLING_KERNELS", "off")
    kernel.concordance(ranks, ranks)
    monkeypatch.setenv("NESTLING_KERNELS", "plain")
    kernel.concordance(ranks, ranks)
    assert called == ["numpy", "library"]
