"""CKA and Procrustes agree with plain formulas and scipy; debiased CKA has no bias."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.distance import pdist

from nestling.compare.similarity.cka_procrustes import linear_cka, procrustes
from nestling.compare.similarity.comparators import compare
from nestling.errors import DataError
from samples import examples

SHAPES = [(12, 5, 5), (12, 3, 7), (12, 40, 30), (12, 2, 60), (4, 9, 9)]


def two(n: int, p: int, q: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) + 3
    return x, x @ rng.normal(size=(p, q)) + 2 * rng.normal(size=(n, q))


def slow_cka(x: np.ndarray, y: np.ndarray) -> float:
    n = len(x)
    centring = np.eye(n) - 1 / n
    k, m = (centring @ (z @ z.T) @ centring for z in (x, y))
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def slow_unbiased_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al. 2012, equation 5, of kernels that are not centred."""
    n = len(k)
    k, m = k - np.diag(np.diagonal(k)), m - np.diag(np.diagonal(m))
    one = np.ones(n)
    total = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return float((np.trace(k @ m) + total - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))


def slow_debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    k, m = x @ x.T, y @ y.T
    own = slow_unbiased_hsic(k, k) * slow_unbiased_hsic(m, m)
    return slow_unbiased_hsic(k, m) / float(np.sqrt(own))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_plain_formulas_agree(shape: tuple[int, int, int]) -> None:
    x, y = two(*shape)
    assert linear_cka(x, y) == pytest.approx(slow_cka(x, y), abs=1e-10)
    assert linear_cka(x, y, debiased=True) == pytest.approx(slow_debiased_cka(x, y), abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scipy_agrees(shape: tuple[int, int, int]) -> None:
    x, y = two(*shape)
    widest = max(shape[1:])
    padded = [np.pad(z, [(0, 0), (0, widest - z.shape[1])]) for z in (x, y)]
    assert 1 - procrustes(x, y) ** 2 == pytest.approx(scipy_procrustes(*padded)[2], abs=1e-10)
    first, second = (z - z.mean(axis=0) for z in padded)
    first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
    rotation, scale = orthogonal_procrustes(first, second)
    assert procrustes(x, y) == pytest.approx(scale, abs=1e-10)
    gap = np.linalg.norm(first @ rotation - second)
    assert np.sqrt(2 - 2 * procrustes(x, y)) == pytest.approx(gap, abs=1e-8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_they_are_what_dissimilarities_say(shape: tuple[int, int, int]) -> None:
    x, y = two(*shape)
    a, b = pdist(x, "sqeuclidean"), pdist(y, "sqeuclidean")
    assert linear_cka(x, y) == pytest.approx(compare(a, b, "cosine_whitened")[0, 0], abs=1e-10)
    assert procrustes(x, y) == pytest.approx(compare(a, b, "bures")[0, 0], abs=1e-9)


@settings(max_examples=examples(40))
@given(
    seed=st.integers(0, 1000),
    shape=st.sampled_from(SHAPES),
    scale=st.sampled_from([1e-120, 0.1, 7.0, 1e120]),
    order=st.randoms(use_true_random=False),
)
def test_laws(seed: int, shape: tuple[int, int, int], scale: float, order: object) -> None:
    """Symmetry, bounds; rotations, shifts, scale and the order of stimuli change nothing."""
    x, y = two(*shape, seed=seed)
    rng = np.random.default_rng(seed)
    turned = scale * (x @ np.linalg.qr(rng.normal(size=(shape[1], shape[1])))[0] + 5)
    places = list(range(shape[0]))
    order.shuffle(places)
    for how in (linear_cka, procrustes, lambda a, b: linear_cka(a, b, debiased=True)):
        value = how(x, y)
        assert how(y, x) == pytest.approx(value, abs=1e-9)
        assert how(turned, y) == pytest.approx(value, abs=1e-7)
        assert how(x[places], y[places]) == pytest.approx(value, abs=1e-9)
        assert how(x, turned) == pytest.approx(1, abs=1e-7)
        assert value <= 1
    assert linear_cka(x, y) >= 0
    assert procrustes(x, y) >= 0


def test_only_the_plain_form_is_biased() -> None:
    """Unrelated patterns of 300 channels and 15 stimuli: the mean of 100 has a standard error below .01."""
    rng = np.random.default_rng(1)
    unrelated = [rng.normal(size=(2, 15, 300)) for _ in range(100)]
    assert np.mean([linear_cka(*pair) for pair in unrelated]) > 0.8
    assert abs(np.mean([linear_cka(*pair, debiased=True) for pair in unrelated])) < 0.03


def test_other_types_are_taken_and_nothing_is_changed() -> None:
    torch = pytest.importorskip("torch")
    x, y = two(12, 5, 6)
    before = x.copy()
    whole = np.round(10 * x).astype(np.int16)
    for how in (linear_cka, procrustes):
        assert how(torch.tensor(x, requires_grad=True), y) == pytest.approx(how(x, y))
        assert how(whole, y) == pytest.approx(how(whole.astype(float), y))
        half = x.astype(np.float16)
        assert how(half, y) == pytest.approx(how(half.astype(float), y))
    np.testing.assert_array_equal(x, before)


def test_bad_patterns_are_named() -> None:
    x, y = two(12, 5, 6)
    with pytest.raises(DataError, match="12 and 11 stimuli cannot be compared"):
        linear_cka(x, y[:11])
    with pytest.raises(DataError, match="the second patterns are the same for all stimuli"):
        procrustes(x, np.full((12, 4), 0.1))
    with pytest.raises(DataError, match="2 stimuli are too few; give at least 3"):
        procrustes(x[:2], y[:2])
    with pytest.raises(DataError, match="3 stimuli are too few; give at least 4"):
        linear_cka(x[:3], y[:3], debiased=True)
    with pytest.raises(DataError, match=r"the first patterns hold NaN or infinity in row 2"):
        linear_cka(np.where(np.arange(12)[:, None] == 2, np.nan, x), y)
    with pytest.raises(DataError, match=r"\[stimuli, channels\]"):
        linear_cka(x[None], y)
    with pytest.raises(DataError, match="equally far"):
        linear_cka(np.eye(5), y[:5], debiased=True)
