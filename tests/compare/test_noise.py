"""Noise precision agrees with scikit-learn and rsatoolbox, and is positive definite when shrunk."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import OAS, EmpiricalCovariance, LedoitWolf

from nestling.compare import noise_precision
from nestling.errors import ConfigError, DataError


def residuals(t: int = 60, p: int = 20, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(t, p)) @ generator.normal(size=(p, p))


@pytest.mark.parametrize(
    ("name", "estimator"), [("ledoit_wolf", LedoitWolf), ("oas", OAS), ("none", EmpiricalCovariance)]
)
def test_what_scikit_learn_estimates(name: str, estimator: type) -> None:
    x = residuals()
    theirs = estimator().fit(x).covariance_ * 60 / 59
    np.testing.assert_allclose(np.linalg.inv(noise_precision(x, name)), theirs, rtol=1e-8, atol=1e-8)
    fewer = noise_precision(x, name, dof=50)
    np.testing.assert_allclose(fewer, noise_precision(x, name) * 50 / 59, rtol=1e-8)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("ledoit_wolf", "shrinkage_eye"),
        ("schaefer_strimmer", "shrinkage_diag"),
        ("diagonal", "diag"),
        ("none", "full"),
    ],
)
def test_what_rsatoolbox_estimates(name: str, theirs: str) -> None:
    noise = pytest.importorskip("rsatoolbox.data.noise")
    x = residuals()
    ours, expected = noise_precision(x, name), noise.prec_from_residuals(x, method=theirs)
    np.testing.assert_allclose(np.diag(ours) if ours.ndim == 1 else ours, expected, rtol=1e-8, atol=1e-10)


def test_schaefer_strimmer_is_its_formula() -> None:
    """Their equation 10 with the variance of each correlation over the residuals, in plain loops."""
    t, p = 25, 6
    x = residuals(t, p)
    x = x - x.mean(axis=0)
    covariance = x.T @ x / (t - 1)
    unit = x / np.sqrt(np.diag(covariance))
    variance = signal = 0.0
    for i in range(p):
        for j in range(p):
            if i != j:
                w = unit[:, i] * unit[:, j]
                mean_square, mean = (w**2).sum() / (t - 1), w.sum() / (t - 1)
                variance += t / (t - 1) ** 2 * (mean_square - mean**2)
                signal += mean**2
    shrunk = covariance * np.where(np.eye(p), 1, 1 - variance / signal)
    assert 0 < variance / signal < 1
    np.testing.assert_allclose(np.linalg.inv(noise_precision(x, "schaefer_strimmer")), shrunk, rtol=1e-8)


@given(st.integers(0, 1000), st.sampled_from(["ledoit_wolf", "oas", "schaefer_strimmer"]))
def test_shrunk_it_is_positive_definite_with_fewer_residuals_than_channels(seed: int, name: str) -> None:
    found = noise_precision(residuals(12, 30, seed) + np.random.default_rng(seed).normal(size=(12, 30)), name)
    np.testing.assert_array_equal(found, found.T)
    assert np.linalg.eigvalsh(found).min() > 0


def test_the_means_of_stimuli_are_taken_away() -> None:
    x = residuals()
    shown = np.arange(60) % 7
    plain = x - np.stack([x[shown == each].mean(axis=0) for each in range(7)])[shown]
    found = noise_precision(x + 1000 * shown[:, None], "none", stimuli=shown)
    np.testing.assert_allclose(found, np.linalg.inv(plain.T @ plain / 53), rtol=1e-6, atol=1e-8)


def test_memory_does_not_grow_with_residuals_times_channels_squared() -> None:
    """An array of every product of every residual would be 400 x 300 x 300: 288 MB."""
    x = residuals(400, 300)
    before = hashlib.sha256(x.tobytes()).hexdigest()
    for name in ("ledoit_wolf", "schaefer_strimmer", "diagonal"):
        noise_precision(x[:20, :5], name)  # imports
        tracemalloc.start()
        try:
            noise_precision(x, name)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 5 * x.nbytes + 5 * 8 * 300**2
    assert hashlib.sha256(x.tobytes()).hexdigest() == before


@pytest.mark.parametrize(
    ("x", "rest", "error", "message"),
    [
        (residuals(), {"shrinkage": "eye"}, ConfigError, "shrinkage='eye' must be one of"),
        (residuals(10), {"shrinkage": "none"}, DataError, "9 degrees of freedom do not suffice for 20"),
        (residuals(5), {"dof": 0}, ConfigError, "0 degrees of freedom are left"),
        (residuals(6), {"stimuli": range(6)}, ConfigError, "0 degrees of freedom are left"),
        (residuals() * (np.arange(20) != 3), {}, DataError, "do not vary in channel 3"),
        (np.full((5, 3), np.nan), {}, DataError, "the residuals hold NaN"),
        (residuals()[None], {}, DataError, "must be a matrix"),
    ],
)
def test_residuals_that_cannot_be_used(
    x: np.ndarray, rest: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        noise_precision(x, **rest)
