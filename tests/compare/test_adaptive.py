"""Adaptive dependence against its definition in plain loops over thresholds and permutations."""

import hashlib
import itertools

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from nestling.compare.rdms.rdms import RDMs
from nestling.compare.similarity.adaptive import adaptive_dependence
from nestling.compare.transforms.topology import geo_topological
from nestling.errors import ConfigError, DataError


def slow_dcor(a: np.ndarray, b: np.ndarray) -> float:
    def centred(d: np.ndarray) -> np.ndarray:
        return d - d.mean(axis=0) - d.mean(axis=1)[:, None] + d.mean()

    a, b = centred(a), centred(b)
    spread = np.sqrt((a * a).mean() * (b * b).mean())
    return float(np.sqrt(abs((a * b).mean()) / spread)) if spread > 1e-12 else 0.0


def slow_band(vector: np.ndarray, low: float, high: float, scale: str, band: str) -> np.ndarray:
    most = vector.max()
    low, high = np.quantile(vector, [low, high]) if scale == "quantile" else (low * most, high * most)
    found = vector.copy()
    inside = (vector > low) & (vector < high)
    if band != "kept":
        found[inside] = (most if band == "full" else high) * (vector[inside] - low) / (high - low)
    found[vector >= high] = most
    found[vector <= low] = 0
    return squareform(found)


def slow_table(
    a: np.ndarray, b: np.ndarray, order: np.ndarray, levels: int, scale: str, band: str
) -> np.ndarray:
    pairs = list(itertools.combinations(np.linspace(0, 1, levels), 2))
    turned = [slow_band(b, *pair, scale, band)[np.ix_(order, order)] for pair in pairs]
    return np.array(
        [[slow_dcor(slow_band(a, *pair, scale, band), other) for other in turned] for pair in pairs]
    )


def matrices(count: int, n: int = 9, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).standard_normal((count, n, 3))
    points[1:] += points[0]
    return np.array([pdist(each) for each in points])


@pytest.mark.parametrize("scale", ["quantile", "maximum"])
@pytest.mark.parametrize("band", ["full", "upper", "kept"])
def test_it_is_the_largest_of_all_bands(scale: str, band: str) -> None:
    a, b = matrices(2), matrices(3, seed=1)
    found = adaptive_dependence(a, b, levels=4, scale=scale, band=band)
    levels = np.linspace(0, 1, 4)
    pairs = list(itertools.combinations(levels, 2))
    for row, column in itertools.product(range(2), range(3)):
        table = slow_table(a[row], b[column], np.arange(9), 4, scale, band)
        assert found.statistic[row, column] == pytest.approx(table.max(), rel=1e-9)
        first, second = np.unravel_index(table.argmax(), table.shape)
        assert tuple(found.thresholds_a[row, column]) == pytest.approx(pairs[first])
        assert tuple(found.thresholds_b[row, column]) == pytest.approx(pairs[second])
    assert np.isnan(found.p_values).all()


@pytest.mark.parametrize("band", ["full", "upper", "kept"])
def test_tied_distances_on_both_thresholds_are_near(band: str) -> None:
    a, b = matrices(1).round(), matrices(1, seed=1).round()
    found = adaptive_dependence(a, b, levels=5, band=band).statistic[0, 0]
    assert found == pytest.approx(slow_table(a[0], b[0], np.arange(9), 5, "quantile", band).max(), rel=1e-9)


@pytest.mark.parametrize("statistic", ["dcor", "ratio", "z"])
def test_statistics_and_p_values_are_those_of_plain_permutations(statistic: str) -> None:
    a, b = matrices(2, seed=2), matrices(2, seed=3)
    b[1] = a[0] ** 1.5
    found = adaptive_dependence(a, b, levels=3, statistic=statistic, permutations=19, seed=5)
    generator = np.random.default_rng(5)
    orders = [np.arange(9), *(generator.permutation(9) for _ in range(19))]
    for row, column in itertools.product(range(2), repeat=2):
        tables = np.array([slow_table(a[row], b[column], order, 3, "quantile", "full") for order in orders])
        if statistic != "dcor":
            tables = tables / tables.mean(axis=0)
        if statistic == "z":
            tables = 1 + (tables - 1) / np.maximum(tables.std(axis=0), 1e-5)
        largest = tables.max(axis=(1, 2))
        assert found.statistic[row, column] == pytest.approx(largest[0], rel=1e-9)
        assert found.p_values[row, column] == pytest.approx(np.mean(largest >= largest[0] - 1e-9))
    assert found.p_values[0, 1] == pytest.approx(1 / 20)


def test_a_full_band_is_the_geo_topological_matrix() -> None:
    a, b = matrices(2, n=12)
    found = adaptive_dependence([a], [b], levels=2)
    first, second = (squareform(geo_topological([each], [(0, 1)], rank=False)[0, 0]) for each in (a, b))
    assert found.statistic[0, 0] == pytest.approx(slow_dcor(first, second))


def test_a_set_with_itself_is_symmetric_and_one_on_the_diagonal() -> None:
    a = matrices(5, n=12)
    found = adaptive_dependence(a)
    np.testing.assert_allclose(np.diagonal(found.statistic), 1)
    np.testing.assert_allclose(found.statistic, found.statistic.T)
    np.testing.assert_allclose(found.statistic, adaptive_dependence(a, a.copy()).statistic)


def test_scale_and_a_common_order_of_the_stimuli_do_not_matter() -> None:
    a, b = matrices(2, n=12)
    order = np.random.default_rng(0).permutation(12)
    turned = [squareform(squareform(each)[np.ix_(order, order)]) for each in (7 * a, b)]
    expected = adaptive_dependence([a], [b]).statistic
    np.testing.assert_allclose(adaptive_dependence(turned[:1], turned[1:]).statistic, expected)


def test_stimuli_are_aligned_by_their_names() -> None:
    a, b = matrices(2, n=4)
    expected = adaptive_dependence([a], [b]).statistic
    named = RDMs([b], stimuli="abcd").at("dbca")
    assert adaptive_dependence(RDMs([a], stimuli="abcd"), named).statistic == pytest.approx(expected)
    with pytest.raises(DataError, match="no stimulus d"):
        adaptive_dependence(RDMs([a], stimuli="abcd"), RDMs([b], stimuli="abce"))


def test_dependence_that_bands_show_is_found() -> None:
    """A ring against its own cut: near pairs stay near, far ones do not."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = pdist(np.stack([np.cos(turn), np.sin(turn)], axis=1))
    line = pdist(turn[:, None])
    found = adaptive_dependence([ring], [line], permutations=99)
    assert found.p_values[0, 0] == pytest.approx(0.01)
    plain = adaptive_dependence([ring], [line], levels=2)
    assert found.statistic[0, 0] > plain.statistic[0, 0] + 0.02


def test_independent_matrices_have_even_p_values() -> None:
    a, b = (
        matrices(8, n=15, seed=6)[1:],
        np.array([pdist(np.random.default_rng(seed).random((15, 2))) for seed in range(9)]),
    )
    p_values = adaptive_dependence(a, b, levels=4, permutations=49).p_values
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.12)


def test_blocks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = matrices(4, seed=7), matrices(3, seed=8)
    options = {"statistic": "z", "permutations": 9}
    whole = adaptive_dependence(a, b, **options)
    alone = adaptive_dependence(a)
    monkeypatch.setattr("nestling.compare.similarity.adaptive._PRODUCTS_AT_A_TIME", 1)
    parts = adaptive_dependence(a, b, **options)
    np.testing.assert_allclose(parts.statistic, whole.statistic)
    np.testing.assert_allclose(parts.p_values, whole.p_values)
    np.testing.assert_allclose(adaptive_dependence(a).statistic, alone.statistic)


def test_bands_in_which_nothing_is_left_correlate_with_none() -> None:
    tied = np.array([[1.0, 2, 2, 2, 2, 2]])
    found = adaptive_dependence(tied, matrices(1, n=4), permutations=3, statistic="ratio")
    assert np.isfinite(found.statistic).all()


def test_the_input_is_never_changed() -> None:
    a = matrices(3)
    before = hashlib.sha256(a.tobytes()).hexdigest()
    for scale, band in itertools.product(("quantile", "maximum"), ("full", "upper", "kept")):
        adaptive_dependence(a, levels=3, scale=scale, band=band, permutations=2)
    assert hashlib.sha256(a.tobytes()).hexdigest() == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scale": "quantiles"}, "did you mean 'quantile'"),
        ({"band": "whole"}, "must be one of full, upper, kept"),
        ({"statistic": "zscore"}, "statistic=.* must be one of"),
        ({"levels": 1}, "at least 2"),
        ({"statistic": "z", "permutations": 1}, "at least 2"),
        ({"permutations": -1}, "at least 0"),
    ],
)
def test_arguments_that_are_not_allowed_are_refused(options: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        adaptive_dependence(matrices(2), **options)


def test_matrices_that_cannot_be_used_are_refused() -> None:
    a = matrices(2)
    for wrong, options, says in (
        (np.nan, {}, "matrix 1 has missing or infinite"),
        (np.inf, {}, "matrix 1 has missing or infinite"),
        (-1.0, {"scale": "maximum"}, "matrix 1 has distances below 0"),
        (-1.0, {"band": "kept"}, "matrix 1 has distances below 0"),
    ):
        vectors = a.copy()
        vectors[1, 4] = wrong
        with pytest.raises(DataError, match=says):
            adaptive_dependence(vectors, **options)
    with pytest.raises(DataError, match="stimuli"):
        adaptive_dependence(a, matrices(2, n=8))
    with pytest.raises(DataError, match="all distances"):
        adaptive_dependence(np.ones((1, 6)))
    vectors = a.copy()
    vectors[1, 4] = -1.0
    assert np.isfinite(adaptive_dependence(vectors).statistic).all()
