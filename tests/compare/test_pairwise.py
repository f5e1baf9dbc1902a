"""Several representations are compared pair by pair, with intervals over other stimuli."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau, pearsonr, spearmanr

from nestling.compare import RDMs, rdm
from nestling.compare.inference.pairwise import agreements, similarity_by_thresholds
from nestling.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(25, 12))
MATRICES = rdm({"all": X, "some": X[:, :6], "none": RNG.normal(size=(25, 6))}, "euclidean")


def test_every_two_are_compared_by_every_method() -> None:
    rows = agreements(MATRICES, ["spearman", "kendall"], draws=50)
    assert [(row.first, row.second, row.method) for row in rows] == [
        (first, second, method)
        for first, second in (("all", "some"), ("all", "none"), ("some", "none"))
        for method in ("spearman", "kendall")
    ]
    vectors = dict(zip(MATRICES.labels["name"], MATRICES.vectors, strict=True))
    for row in rows:
        by = spearmanr if row.method == "spearman" else kendalltau
        assert row.value == pytest.approx(by(vectors[row.first], vectors[row.second]).statistic)
        assert row.low < row.value < row.high
    assert rows == agreements(MATRICES, ["spearman", "kendall"], draws=50)
    assert rows != agreements(MATRICES, ["spearman", "kendall"], draws=50, seed=1)


def test_intervals_hold_other_stimuli() -> None:
    """Of many sets of stimuli, the intervals of nearly all hold the similarity of very many stimuli."""
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(8, 8))

    def matrices(n: int) -> RDMs:
        x = rng.normal(size=(n, 8))
        return rdm({"a": x, "b": x @ mixing}, "euclidean")

    truth = pearsonr(*matrices(1500).vectors).statistic
    found = [agreements(matrices(40), ["pearson"], draws=100, seed=seed)[0] for seed in range(60)]
    held = np.mean([row.low <= truth <= row.high for row in found])
    # 95 % of 60, less three standard errors.
    assert held > 0.86


def test_no_interval_goes_above_1() -> None:
    near = RDMs(np.stack([MATRICES.vectors[0], MATRICES.vectors[0] + 1e-3 * RNG.random(300)]))
    (row,) = agreements(near, ["pearson"], draws=20)
    assert (row.first, row.second) == ("0", "1")
    assert 0.999 < row.value <= row.high <= 1


def test_one_matrix_is_refused() -> None:
    with pytest.raises(DataError, match="at least two"):
        agreements(MATRICES[0])
    with pytest.raises(ConfigError, match="did you mean 'pearson'"):
        agreements(MATRICES, ["person"])  # type: ignore[list-item]


def test_thresholds_look_at_a_range_of_distances() -> None:
    found = similarity_by_thresholds(MATRICES, [(0, 1), (0, 0.1), (0.5, 0.5)])
    assert found.shape == (3, 3, 3)
    vectors = MATRICES.vectors
    np.testing.assert_allclose(found[0], spearmanr(vectors, axis=1).statistic, atol=1e-9)
    above = [vector > np.quantile(vector, 0.5) for vector in vectors]
    np.testing.assert_allclose(found[2], np.corrcoef(above), atol=1e-9)
    np.testing.assert_allclose(found[:, [0, 1, 2], [0, 1, 2]], 1)
