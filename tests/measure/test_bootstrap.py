"""Bootstrap intervals agree with theory, are paired across sizes and follow the seed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, spearmanr
from sklearn.metrics import v_measure_score

from nestling.errors import ConfigError, DataError
from nestling.measure import bootstrap as module
from nestling.measure.bootstrap import bootstrap
from nestling.measure.tasks.scores import MeanScores, RetentionScores, Scores, SpearmanScores, VMeasureScores

RNG = np.random.default_rng(0)
N = 40


def spearman_scores() -> SpearmanScores:
    similarities = np.round(RNG.normal(size=(3, N)), 1)  # ties
    return SpearmanScores(similarities, RNG.integers(0, 6, N))


def v_measure_scores() -> VMeasureScores:
    return VMeasureScores(RNG.integers(0, 5, (3, N)), RNG.integers(0, 4, N))


def mean_scores() -> MeanScores:
    values = RNG.normal(size=(3, N, 2))
    values[:, ::3, 1] = np.nan
    return MeanScores(values, ["all", "some"])


def slow(scores: Scores, rows: np.ndarray) -> np.ndarray:
    """The statistic of the drawn rows themselves, one at a time."""
    if isinstance(scores, SpearmanScores):
        return np.array([[spearmanr(s[rows], scores.gold[rows]).statistic] for s in scores.similarities])
    if isinstance(scores, VMeasureScores):
        return np.array([[v_measure_score(scores.labels[rows], c[rows])] for c in scores.clusters])
    assert isinstance(scores, MeanScores)
    return np.nanmean(scores.values[:, rows], axis=1)


@pytest.mark.parametrize("make", [mean_scores, spearman_scores, v_measure_scores])
def test_weights_stand_for_repeated_examples(make: object) -> None:
    scores = make()  # type: ignore[operator]
    drawn = RNG.integers(N, size=(20, N))
    weights = np.stack([np.bincount(rows, minlength=N) for rows in drawn]).astype(float)
    expected = np.stack([slow(scores, rows) for rows in drawn])
    np.testing.assert_allclose(scores.statistic(weights), expected, atol=1e-9)


def test_retention_is_a_ratio_of_two_sets() -> None:
    clean, shifted = MeanScores(np.ones((2, 10, 1)), ["m"]), MeanScores(np.full((2, 5, 1), 0.5), ["m"])
    scores = RetentionScores(clean, shifted)
    assert scores.groups == (10, 5)
    assert scores.metrics == ("m retention", "m shifted", "m clean")
    np.testing.assert_allclose(scores.statistic(np.ones((1, 15)))[0], [[0.5, 0.5, 1.0]] * 2)
    with pytest.raises(DataError, match="same metrics"):
        RetentionScores(clean, MeanScores(np.ones((2, 5, 1)), ["other"]))


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(1).normal(size=(1, 2_000, 1))
    found = bootstrap(MeanScores(values, ["m"]), resamples=4_000)
    half = norm.ppf(0.975) * values.std() / np.sqrt(2_000)
    # Quantiles of 4,000 resamples vary by some percent.
    assert found.value[0, 0] - found.low[0, 0] == pytest.approx(half, rel=0.08)
    assert found.high[0, 0] - found.value[0, 0] == pytest.approx(half, rel=0.08)


def test_sizes_share_their_resamples() -> None:
    """A size that is always 0.9 of the full one keeps 0.9 for certain, however much both vary."""
    full = np.random.default_rng(1).uniform(size=(1, 50, 1))
    found = bootstrap(MeanScores(np.concatenate([0.9 * full, full]), ["m"]), resamples=200)
    assert found.high[0, 0] - found.low[0, 0] > 0.05
    np.testing.assert_allclose([found.kept_low[0], found.kept[0], found.kept_high[0]], 0.9)
    np.testing.assert_array_equal([found.kept_low[1], found.kept_high[1]], 1.0)


def test_the_same_seed_gives_the_same_interval_in_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = mean_scores()
    whole = bootstrap(scores, resamples=50, seed=3)
    monkeypatch.setattr(module, "_WEIGHTS_AT_A_TIME", 7 * N)
    parts = bootstrap(scores, resamples=50, seed=3)
    np.testing.assert_allclose(whole.low, parts.low)
    assert not np.allclose(whole.low, bootstrap(scores, resamples=50, seed=4).low)


def test_what_is_nowhere_defined_is_nan() -> None:
    values = np.stack([np.zeros((6, 1)), np.zeros((6, 1))])
    found = bootstrap(MeanScores(values, ["m"]), resamples=20)
    assert np.isnan(found.kept).all()
    assert np.isnan(found.kept_low).all()
    assert (found.low == 0).all()


def test_bad_requests_are_refused() -> None:
    scores = mean_scores()
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        bootstrap(scores, confidence=95)
    with pytest.raises(ConfigError, match="at least 1"):
        bootstrap(scores, resamples=0)
    with pytest.raises(DataError, match="1 example gives no interval"):
        bootstrap(MeanScores(np.ones((2, 1, 1)), ["m"]))
    with pytest.raises(DataError, match="one column a metric"):
        MeanScores(np.ones((2, 3)), ["m"])
    with pytest.raises(DataError, match="4 similarities were given for 3 scores"):
        SpearmanScores(np.ones((2, 4)), [1, 2, 3])
