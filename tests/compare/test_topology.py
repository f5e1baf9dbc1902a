"""The geo-topological transform against its formula in exact fractions, and the peer where it is right."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rsatoolbox.rdm import RDMs as PeerRDMs
from rsatoolbox.rdm.transform import geotopological_transform
from scipy.spatial.distance import pdist
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from nestling.compare.rdms.rdms import RDMs
from nestling.compare.transforms.thresholds import threshold_grid
from nestling.compare.transforms.topology import (
    GeoTopological,
    OrderedDistances,
    SmoothTopological,
    geo_topological,
)
from nestling.errors import ConfigError, DataError

LEVELS = st.integers(0, 20)
PAIRS = st.tuples(LEVELS, LEVELS).map(lambda both: tuple(level / 20 for level in sorted(both)))


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Small integers, so that distances are tied often, or numbers that hardly ever are."""
    pairs = draw(st.sampled_from([3, 6, 10, 15]))
    entry = draw(st.sampled_from([st.integers(-4, 6), st.integers(0, 10**6)]))
    row = st.lists(entry, min_size=pairs, max_size=pairs).filter(lambda values: len(set(values)) > 1)
    return np.array(draw(st.lists(row, min_size=1, max_size=3)), np.float64)


def slow(vector: np.ndarray, lower: float, upper: float, *, rank: bool) -> list[float]:
    """The formula for multiples of 0.05, entry by entry and without rounding."""
    known = [value for value in vector if not np.isnan(value)]
    order = rankdata(known) if rank else known
    values = dict(zip(known, (Fraction(float(value)) for value in order), strict=True))
    rising = sorted(values[value] for value in known)

    def quantile(share: float) -> Fraction:
        place = Fraction(round(share * 20), 20) * (len(rising) - 1)
        below = place.numerator // place.denominator
        return rising[below] + (place - below) * (rising[min(below + 1, len(rising) - 1)] - rising[below])

    a, b = quantile(lower), quantile(upper)

    def value(d: float) -> float:
        if np.isnan(d):
            return np.nan
        if values[d] <= a:
            return 0.0
        return 1.0 if values[d] > b else float((values[d] - a) / (b - a))

    return [value(d) for d in vector]


@given(matrices(), PAIRS, st.booleans())
def test_it_is_the_formula(vectors: np.ndarray, pair: tuple[float, float], rank: bool) -> None:
    found = geo_topological(vectors, [pair], rank=rank)[0]
    expected = [slow(vector, *pair, rank=rank) for vector in vectors]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    if pair[0] == pair[1]:
        assert np.array_equal(found, expected)


@given(matrices(), PAIRS, st.data())
def test_missing_pairs_stay_missing_and_count_for_nothing(
    vectors: np.ndarray, pair: tuple[float, float], data: st.DataObject
) -> None:
    gaps = data.draw(st.lists(st.integers(0, vectors.shape[1] - 1), max_size=3))
    vectors[:, gaps] = np.nan
    known = [set(vector[~np.isnan(vector)]) for vector in vectors]
    if min(map(len, known)) < 2:
        with pytest.raises(DataError):
            geo_topological(vectors, [pair])
        return
    found = geo_topological(vectors, [pair])[0]
    assert np.array_equal(np.isnan(found), np.isnan(vectors))
    np.testing.assert_allclose(found, [slow(vector, *pair, rank=True) for vector in vectors], atol=1e-12)


@given(matrices(), PAIRS)
def test_order_is_kept_and_only_order_counts(vectors: np.ndarray, pair: tuple[float, float]) -> None:
    found = geo_topological(vectors, [pair])[0]
    assert ((found >= 0) & (found <= 1)).all()
    for vector, transformed in zip(vectors, found, strict=True):
        assert (np.diff(transformed[np.argsort(vector, kind="stable")]) >= 0).all()
    assert np.array_equal(found, geo_topological(np.cbrt(vectors) * 3 - 7, [pair])[0])


@given(matrices(), PAIRS, st.booleans())
def test_each_matrix_is_transformed_by_itself(
    vectors: np.ndarray, pair: tuple[float, float], rank: bool
) -> None:
    alone = [geo_topological(vector[None], [pair], rank=rank)[0, 0] for vector in vectors]
    assert np.array_equal(geo_topological(vectors, [pair], rank=rank)[0], alone)


@given(matrices())
def test_the_corner_is_the_rank_matrix(vectors: np.ndarray) -> None:
    ranks = rankdata(vectors, axis=1)
    low, high = ranks.min(axis=1, keepdims=True), ranks.max(axis=1, keepdims=True)
    expected = (ranks - low) / (high - low)
    np.testing.assert_allclose(GeoTopological(0, 1).transform(vectors), expected, rtol=1e-15)


def test_equal_thresholds_give_the_graph_of_the_near_pairs() -> None:
    vectors = pdist(np.random.default_rng(0).standard_normal((30, 5)))[None]
    for share in (0.0, 0.1, 0.35, 0.7, 1.0):
        found = GeoTopological(share, share).transform(vectors)
        assert np.array_equal(found, vectors > np.quantile(vectors, share))


def test_a_distance_on_the_threshold_is_near() -> None:
    tied = np.array([[1.0, 2, 2, 2, 2, 3]])
    assert GeoTopological(0.5, 0.5).transform(tied).tolist() == [[0, 0, 0, 0, 0, 1]]
    # Both quantiles fall among the ties.
    assert GeoTopological(0.3, 0.7).transform(tied).tolist() == [[0, 0, 0, 0, 0, 1]]


def test_many_thresholds_are_many_times_one() -> None:
    vectors = np.random.default_rng(1).random((4, 45))
    grid = threshold_grid(0.1, equal=True)
    found = geo_topological(vectors, grid)
    assert found.shape == (len(grid), 4, 45)
    for pair, transformed in zip(grid, found, strict=True):
        assert np.array_equal(transformed, GeoTopological(*pair).transform(vectors))


@pytest.mark.parametrize(
    ("given_dtype", "found_dtype"),
    [("float16", "float32"), ("float32", "float32"), ("float64", "float64"), ("int32", "float64")],
)
@pytest.mark.parametrize("rank", [True, False])
def test_dtypes(given_dtype: str, found_dtype: str, rank: bool) -> None:
    vectors = np.arange(90).reshape(2, 45)[:, ::-1].astype(given_dtype)
    found = geo_topological(vectors, [(0.2, 0.7), (0.5, 0.5)], rank=rank)
    assert found.dtype == found_dtype
    expected = geo_topological(vectors.astype(np.float64), [(0.2, 0.7), (0.5, 0.5)], rank=rank)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.array_equal(found[1], expected[1])


def test_single_precision_stays_near_double_at_full_size() -> None:
    vectors = pdist(np.random.default_rng(2).standard_normal((600, 4)))[None]
    pairs = [(0.0, 1.0), (0.4, 0.6), (0.31, 0.33), (0.5, 0.5)]
    exact = geo_topological(vectors.astype(np.float32).astype(np.float64), pairs)
    np.testing.assert_allclose(geo_topological(vectors.astype(np.float32), pairs), exact, atol=1e-5)


@pytest.mark.parametrize(
    "transform", [GeoTopological(), GeoTopological(0.3, 0.3, rank=False), SmoothTopological()]
)
def test_the_input_is_never_changed(transform: object) -> None:
    vectors = np.random.default_rng(3).random((3, 45))
    before = hashlib.sha256(vectors.tobytes()).hexdigest()
    transform.fit_transform(vectors)
    transform.transform(RDMs(vectors))
    assert hashlib.sha256(vectors.tobytes()).hexdigest() == before
    assert vectors.flags.writeable


def test_matrices_keep_their_names() -> None:
    rdms = RDMs(
        np.random.default_rng(4).random((2, 6)),
        stimuli="abcd",
        labels={"layer": ("one", "two")},
        metric="cosine",
    )
    found = GeoTopological().fit_transform(rdms)
    assert isinstance(found, RDMs)
    assert found.metric == "geo-topological cosine"
    assert (found.stimuli, dict(found.labels)) == (rdms.stimuli, dict(rdms.labels))
    assert np.array_equal(found.vectors, GeoTopological().transform(rdms.vectors))


def test_tensors_are_read() -> None:
    vectors = np.random.default_rng(5).random((2, 15))
    assert np.array_equal(
        GeoTopological().transform(torch.from_numpy(vectors)), GeoTopological().transform(vectors)
    )


def test_it_is_a_scikit_learn_transformer() -> None:
    transform = GeoTopological(0.1, 0.4, rank=False)
    assert clone(transform).get_params() == {"lower": 0.1, "upper": 0.4, "rank": False}
    assert transform.set_params(upper=0.5).upper == 0.5
    vectors = np.random.default_rng(6).random((8, 45))
    found = make_pipeline(GeoTopological(0, 0.5), SmoothTopological(), PCA(2)).fit_transform(vectors)
    expected = PCA(2).fit_transform(SmoothTopological().transform(GeoTopological(0, 0.5).transform(vectors)))
    np.testing.assert_allclose(found, expected)


def test_a_pipeline_of_them_needs_no_fit() -> None:
    vectors = np.random.default_rng(7).random((2, 45))
    twice = make_pipeline(GeoTopological(), GeoTopological(0, 1))
    assert np.array_equal(
        twice.fit_transform(vectors), GeoTopological(0, 1).transform(GeoTopological().transform(vectors))
    )


def test_the_smooth_step() -> None:
    vectors = np.random.default_rng(8).random((2, 45))
    scaled = (rankdata(vectors, axis=1) - 1) / 44
    expected = 1 / (1 + np.exp(-10 * (scaled - 0.5)))
    np.testing.assert_allclose(SmoothTopological().transform(vectors), expected, rtol=1e-12)
    plain = (vectors - vectors.min(1, keepdims=True)) / np.ptp(vectors, axis=1, keepdims=True)
    expected = 1 / (1 + np.exp(-4 * (plain - 0.2)))
    np.testing.assert_allclose(SmoothTopological(4, 0.2, rank=False).transform(vectors), expected, rtol=1e-12)
    assert np.isfinite(SmoothTopological(1e6).transform(vectors)).all()


def test_infinity_has_a_rank_but_no_size() -> None:
    vectors = np.array([[1.0, 2.0, np.inf, np.inf, 3.0, 4.0]])
    assert GeoTopological(0, 1).transform(vectors)[0, 2:4].tolist() == [1, 1]
    with pytest.raises(DataError, match="rank=True"):
        GeoTopological(rank=False).transform(vectors)


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        ([[1.0, 2, 3], [5, 5, 5]], "all distances of matrix 1 are 5"),
        ([[1.0, np.nan, np.nan]], "matrix 0 has 1 distance"),
        ([[np.nan, np.nan, np.nan]], "matrix 0 has 0 distance"),
        ([[1.0, 2, 3, 4]], "4 "),
        ([[1.0]], "stimuli"),
        ([["a", "b", "c"]], "numbers"),
        (np.zeros((2, 2, 3)), "row per matrix"),
    ],
)
def test_matrices_that_cannot_be_used_are_refused(vectors: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        GeoTopological().fit(vectors).transform(vectors)


@pytest.mark.parametrize(
    "transform",
    [
        GeoTopological(0.8, 0.2),
        GeoTopological(0.2, 1.1),
        SmoothTopological(0),
        SmoothTopological(float("nan")),
        SmoothTopological(beta=2),
    ],
)
def test_arguments_that_are_not_allowed_are_refused_in_use(transform: object) -> None:
    with pytest.raises(ConfigError):
        transform.fit([[1.0, 2.0, 3.0]])
    with pytest.raises(ConfigError):
        transform.transform([[1.0, 2.0, 3.0]])


def test_ranks_are_scipys() -> None:
    vectors = np.random.default_rng(9).integers(0, 9, (5, 45)).astype(np.float64)
    vectors[1:3, 4:9] = np.nan
    expected = rankdata(vectors, axis=1, nan_policy="omit")
    np.testing.assert_array_equal(OrderedDistances.of(vectors, rank=True).values, expected)


def peer(vectors: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """The peer's transform, of a copy, as it changes its input."""
    rdms = PeerRDMs(np.array(vectors))
    return geotopological_transform(rdms, lower, upper).get_vectors()


def test_we_agree_with_the_peer_where_it_is_right() -> None:
    """One matrix, both thresholds above 1, and no ties."""
    for seed in range(5):
        vectors = 100 + pdist(np.random.default_rng(seed).standard_normal((40, 6)))[None]
        for pair in [(0.0, 0.3), (0.2, 0.8), (0.4, 0.6), (0.7, 1.0)]:
            ours = GeoTopological(*pair, rank=False).transform(vectors)
            np.testing.assert_allclose(ours, peer(vectors, *pair), atol=1e-12)


def test_the_peer_is_wrong_on_distances_below_one_and_we_are_not() -> None:
    """It scales in place and then compares what it has scaled with the threshold of the raw distances."""
    vectors = np.random.default_rng(0).uniform(0, 0.6, (1, 4950))
    low, high = np.quantile(vectors, [0.2, 0.8])
    formula = np.clip((vectors - low) / (high - low), 0, 1)
    ours = GeoTopological(0.2, 0.8, rank=False).transform(vectors)
    np.testing.assert_allclose(ours, formula, atol=1e-12)
    theirs = peer(vectors, 0.2, 0.8)
    assert 0.25 < np.mean(np.abs(theirs - formula) > 1e-6) < 0.35
    assert np.abs(theirs - formula).max() > 0.4
    np.testing.assert_allclose(peer(vectors * 100, 0.2, 0.8), formula, atol=1e-12)


def test_the_peer_pools_thresholds_over_matrices_and_we_do_not() -> None:
    vector = 100 + pdist(np.random.default_rng(1).standard_normal((20, 3)))
    both = np.stack([vector, 5 * vector])
    ours, theirs = GeoTopological(0.2, 0.8, rank=False).transform(both), peer(both, 0.2, 0.8)
    np.testing.assert_allclose(ours[0], ours[1], atol=1e-12)
    assert np.abs(theirs[0] - theirs[1]).max() > 0.9


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_the_peer_makes_nan_of_ties_and_we_do_not() -> None:
    vectors = np.random.default_rng(2).integers(1, 6, (1, 4186)).astype(np.float64)
    assert np.isnan(peer(vectors, 0.5, 0.5)).any()
    assert set(np.unique(GeoTopological(0.5, 0.5, rank=False).transform(vectors))) == {0, 1}


def test_the_peer_changes_its_input() -> None:
    """The reason why the others hand it a copy."""
    vectors = np.random.default_rng(3).random((1, 45))
    before = vectors.copy()
    geotopological_transform(PeerRDMs(vectors), 0.2, 0.8)
    assert not np.array_equal(vectors, before)


def test_quantiles_that_hit_an_entry_are_that_entry() -> None:
    """However the product of share and number of pairs is rounded: 0.55 * 20 is 11.000000000000002."""
    shares = np.arange(21) / 20
    for count in (*range(2, 200), 1891, 4186):
        rising = np.sort(np.random.default_rng(count).random((1, count)), axis=1)
        found = OrderedDistances(rising, rising, np.array([count])).quantiles(shares)[:, 0]
        whole = [level for level in range(21) if level * (count - 1) % 20 == 0]
        assert np.array_equal(found[whole], rising[0, [level * (count - 1) // 20 for level in whole]])
        np.testing.assert_allclose(found, np.quantile(rising, shares), rtol=1e-12)
