"""Each distance agrees with scipy and rsatoolbox; blocks and permutations change nothing."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import pdist

from nestling.compare import RatePrior, RDMs, rdm
from nestling.compare.rdms.estimation import design, products
from nestling.compare.rdms.pairs import count_pairs
from nestling.errors import ConfigError, DataError

PLAIN = ["euclidean", "sqeuclidean", "correlation", "cosine"]
ALONE = [*PLAIN, "poisson"]  # need nothing but patterns


def varied(x: np.ndarray) -> np.ndarray:
    """Rows of equal or no counts have no correlation or cosine: one entry of them is raised."""
    x[np.ptp(x, axis=1) == 0, 0] += 1
    return x


# Counts, so that every metric takes them.
patterns = arrays(np.float64, (9, 5), elements=st.integers(0, 9)).map(varied)


def counts(n: int = 40, p: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(3.0, size=(n, p)).astype(float)


def spectrum(p: int, seed: int = 1) -> np.ndarray:
    """A precision matrix."""
    a = np.random.default_rng(seed).normal(size=(p, 2 * p))
    return a @ a.T / p


def test_what_scipy_calls_by_the_name() -> None:
    x = np.random.default_rng(0).normal(1, 1, size=(300, 70))
    for metric in PLAIN:
        np.testing.assert_allclose(rdm(x, metric).vectors[0], pdist(x, metric), rtol=1e-12, atol=1e-14)
    precision = spectrum(70)
    ours = rdm(x, "mahalanobis", noise=precision).vectors[0]
    np.testing.assert_allclose(ours, pdist(x, "mahalanobis", VI=precision) ** 2 / 70, rtol=1e-11)


def test_what_rsatoolbox_calls_by_the_name() -> None:
    """With the factors of the docstring."""
    rsatoolbox = pytest.importorskip("rsatoolbox")
    x, precision = counts(), spectrum(24)
    data = rsatoolbox.data.Dataset(x)

    def theirs(method: str, **rest: object) -> np.ndarray:
        return rsatoolbox.rdm.calc_rdm(data, method=method, **rest).dissimilarities

    same = {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(rdm(x, "sqeuclidean").vectors, 24 * theirs("euclidean"), **same)
    np.testing.assert_allclose(rdm(x, "euclidean").vectors, np.sqrt(24 * theirs("euclidean")), **same)
    np.testing.assert_allclose(rdm(x, "correlation").vectors, theirs("correlation"), **same)
    ours = rdm(x, "mahalanobis", noise=precision).vectors
    np.testing.assert_allclose(ours, theirs("mahalanobis", noise=precision), **same)
    np.testing.assert_allclose(rdm(x, "poisson").vectors, theirs("poisson"), **same)
    ours = rdm(x, "poisson", prior=RatePrior(2.0, 0.5)).vectors
    np.testing.assert_allclose(ours, theirs("poisson", prior_lambda=2, prior_weight=0.5), **same)


def test_poisson_is_the_symmetrised_divergence() -> None:
    x = counts(6, 4)
    rates = (x + 0.1) / 1.1

    def divergence(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean(a * np.log(a / b) - a + b))

    plain = [
        divergence(rates[i], rates[j]) + divergence(rates[j], rates[i])
        for i, j in zip(*np.triu_indices(6, 1), strict=True)
    ]
    np.testing.assert_allclose(rdm(x, "poisson").vectors[0], plain, rtol=1e-12)


def test_precision_of_channels_alone_is_a_diagonal() -> None:
    x, weights = counts(), np.random.default_rng(0).uniform(0.1, 3, 24)
    whole = rdm(x, "mahalanobis", noise=np.diag(weights)).vectors
    np.testing.assert_allclose(rdm(x, "mahalanobis", noise=weights).vectors, whole, rtol=1e-12)
    unit = rdm(x, "mahalanobis", noise=np.eye(24)).vectors
    np.testing.assert_allclose(unit, rdm(x, "sqeuclidean").vectors / 24, rtol=1e-12)


@given(patterns, st.permutations(range(9)), st.sampled_from(ALONE))
def test_permuted_stimuli_permute_the_matrix(x: np.ndarray, order: list[int], metric: str) -> None:
    moved = rdm(x[order], metric, stimuli=order)
    np.testing.assert_allclose(moved.at(range(9)).vectors, rdm(x, metric).vectors, rtol=1e-9, atol=1e-14)


@given(patterns, st.sampled_from(ALONE), st.integers(1, 9))
def test_blocks_change_nothing(x: np.ndarray, metric: str, block: int) -> None:
    whole = rdm(x, metric, block=9)
    np.testing.assert_allclose(rdm(x, metric, block=block).vectors, whole.vectors, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("metric", ALONE)
def test_blocks_of_channels_change_nothing(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns too large for one copy in float64 are summed some channels at a time."""
    x = counts(30, 50)
    whole = rdm(x, metric).vectors
    monkeypatch.setattr(design, "_ENTRIES_AT_A_TIME", 30 * 7)
    np.testing.assert_allclose(rdm(x, metric).vectors, whole, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(rdm(x.astype(np.float32), metric).vectors, whole, rtol=1e-6)


@given(patterns, st.sampled_from(PLAIN), st.floats(0.001, 1000))
def test_scaled_patterns(x: np.ndarray, metric: str, factor: float) -> None:
    expected = rdm(x, metric).vectors * {"euclidean": factor, "sqeuclidean": factor**2}.get(metric, 1)
    np.testing.assert_allclose(rdm(x * factor, metric).vectors, expected, rtol=1e-9, atol=1e-14)


@given(patterns, st.sampled_from(PLAIN))
def test_dissimilarities_are_not_negative_and_equal_patterns_are_at_0(x: np.ndarray, metric: str) -> None:
    found = rdm(np.concatenate([x, x[::-1]]), metric).squares()[0]
    assert (found >= 0).all()
    assert (found[range(9), range(17, 8, -1)] == 0).all()


@given(patterns, st.sampled_from(["euclidean", "sqeuclidean", "correlation"]), st.floats(-1e4, 1e4))
def test_a_shift_of_all_entries_changes_nothing(x: np.ndarray, metric: str, shift: float) -> None:
    np.testing.assert_allclose(rdm(x + shift, metric).vectors, rdm(x, metric).vectors, rtol=1e-6, atol=1e-9)


def test_near_patterns_keep_seven_digits() -> None:
    """Lengths that cancel in the products: groups a millionth of their distance wide, far from 0."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(40, 1, 60)) + 1e3
    x = (centres + 1e-6 * generator.normal(size=(40, 5, 60))).reshape(200, 60)
    exact = pdist(x)
    np.testing.assert_allclose(rdm(x).vectors[0], exact, rtol=1e-7)
    assert exact.min() < 2e-5 < 5 < exact.max()
    # The correlation of near patterns by the definition with the same cancellation in scipy: in 80 bits.
    y = x.astype(np.longdouble)
    y -= y.mean(axis=1, keepdims=True)
    y /= np.sqrt((y * y).sum(axis=1, keepdims=True))
    i, j = np.triu_indices(200, 1)
    exact = ((y[i] - y[j]) ** 2).sum(axis=1) / 2
    np.testing.assert_allclose(rdm(x, "correlation").vectors[0], exact.astype(float), rtol=1e-6)


def test_equal_distances_of_counts_are_equal_to_the_last_bit() -> None:
    """Ranks of dissimilarities depend on it; the mean of counts is no count."""
    x = np.random.default_rng(0).poisson(0.3, size=(60, 40)) + 1_000_000
    exact = pdist(x.astype(np.int64), "sqeuclidean")
    for dtype in (np.float64, np.float32):
        np.testing.assert_array_equal(rdm(x, "sqeuclidean", dtype=dtype).vectors[0], exact)
        np.testing.assert_array_equal(rdm(x, dtype=dtype).vectors[0], np.sqrt(exact.astype(dtype)))


@pytest.mark.parametrize("metric", PLAIN)
@pytest.mark.parametrize("wide", [100, 3000])
def test_single_precision_errs_by_a_millionth_of_the_largest(metric: str, wide: int) -> None:
    """Groups of patterns alike, in which lengths cancel, and channels that share most of what they say."""
    generator = np.random.default_rng(0)
    groups = generator.normal(size=(30, 1, wide)) + 3 * generator.normal(size=(30, 1, 1))
    x = groups + generator.uniform(0.01, 0.5, size=(1, 20, 1)) * generator.normal(size=(30, 20, wide))
    x = x.reshape(600, wide).astype(np.float32)
    exact = rdm(x, metric, dtype=np.float64).vectors
    for block in (64, 600):
        found = rdm(x, metric, block=block).vectors
        assert found.dtype == np.float32
        assert np.abs(found - exact).max() < 1e-6 * exact.max()


def test_a_strip_with_many_near_pairs_is_computed_in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups: half of all pairs are near, and to take them one by one would cost more."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 1, 50)).repeat(100, axis=1) + 1e-3 * generator.normal(size=(2, 100, 50))
    x = x.reshape(200, 50).astype(np.float32)
    one_by_one = []
    plain = products._Strips._from_differences

    def counted(self: object, pairs: tuple[np.ndarray, np.ndarray], first: int) -> np.ndarray:
        one_by_one.append(len(pairs[0]))
        return plain(self, pairs, first)

    monkeypatch.setattr(products._Strips, "_from_differences", counted)
    found = rdm(x).vectors[0]
    assert sum(one_by_one) == 0
    np.testing.assert_allclose(found, pdist(x.astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize("metric", ALONE)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.int8, np.uint16])
def test_types_are_widened_not_truncated(metric: str, dtype: type) -> None:
    x = counts()
    found = rdm(x.astype(dtype), metric).vectors
    assert found.dtype == (np.float32 if dtype in (np.float32, np.float16) else np.float64)
    exact = rdm(x, metric).vectors
    np.testing.assert_allclose(found, exact, rtol=1e-12 if found.dtype == np.float64 else 1e-6)


def test_half_precision_does_not_overflow() -> None:
    x = (counts() * 3000).astype(np.float16)
    np.testing.assert_allclose(rdm(x).vectors[0], pdist(x.astype(float)), rtol=1e-6)


def test_flags_are_numbers() -> None:
    x = counts() > 3
    np.testing.assert_allclose(
        rdm(x, "sqeuclidean").vectors[0], pdist(x.astype(float), "sqeuclidean"), atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int32])
def test_tensors(dtype: torch.dtype) -> None:
    x = torch.from_numpy(counts()).to(dtype)
    x = x.requires_grad_() if dtype.is_floating_point else x
    np.testing.assert_allclose(rdm(x).vectors[0], pdist(counts()), rtol=1e-6)


def test_a_memory_map(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", counts())
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(rdm(x).vectors, rdm(counts()).vectors)


@pytest.mark.parametrize("metric", ALONE)
def test_the_input_is_not_changed(metric: str) -> None:
    x = counts()
    before = hashlib.sha256(x.tobytes()).hexdigest()
    for view in (x, x[::-1], x.T, np.asfortranarray(x)):
        rdm(view, metric)
    rdm(x, metric, stimuli=np.arange(40) // 2)
    assert hashlib.sha256(x.tobytes()).hexdigest() == before


@pytest.mark.parametrize("metric", ALONE)
def test_the_layout_does_not_matter(metric: str) -> None:
    x = counts()
    np.testing.assert_allclose(rdm(np.asfortranarray(x), metric).vectors, rdm(x, metric).vectors, rtol=1e-12)


def test_the_result_may_be_asked_for_in_single() -> None:
    found = rdm(counts(), dtype=np.float32).vectors
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, rdm(counts()).vectors, rtol=1e-6)
    with pytest.raises(ConfigError, match="dtype=float16 cannot hold"):
        rdm(counts(), dtype=np.float16)


def test_several_matrices_at_once() -> None:
    x = np.stack([counts(seed=seed) for seed in range(3)])
    times = [0.0, 0.1, 0.2]
    found = rdm(x, "correlation", labels={"time": times, "subject": "s1"})
    assert found.labels == {"time": tuple(times), "subject": ("s1",) * 3}
    for one, each in zip(found, x, strict=True):
        np.testing.assert_array_equal(one.vectors, rdm(each, "correlation").vectors)


def test_named_matrices_of_any_width() -> None:
    layers = {"conv1": counts(p=10), "fc": torch.from_numpy(counts(p=33))}
    found = rdm(layers, "cosine", labels={"seed": 4})
    assert found.labels == {"name": ("conv1", "fc"), "seed": (4, 4)}
    np.testing.assert_array_equal(found.where(name="fc").vectors, rdm(layers["fc"], "cosine").vectors)
    precisions = {"conv1": np.ones(10), "fc": spectrum(33)}
    noisy = rdm(layers, "mahalanobis", noise=precisions).where(name="fc").vectors
    np.testing.assert_array_equal(noisy, rdm(layers["fc"], "mahalanobis", noise=precisions["fc"]).vectors)
    with pytest.raises(DataError, match="noise= lacks 'conv1'"):
        rdm(layers, "mahalanobis", noise={"fc": spectrum(33)})


def test_repeats_are_averaged_however_many_each_has() -> None:
    x = counts(12)
    shown = list("abcaabbbbdcd")
    found = rdm(x, "correlation", stimuli=shown)
    assert found.stimuli == ("a", "b", "c", "d")
    means = np.stack([x[[name == each for each in shown]].mean(axis=0) for name in "abcd"])
    np.testing.assert_allclose(found.vectors[0], pdist(means, "correlation"), rtol=1e-12)


def test_the_memory_is_what_the_docstring_says() -> None:
    n, p = 3000, 64
    x = np.random.default_rng(0).normal(size=(n, p)).astype(np.float32)
    rdm(x[:10])  # imports
    tracemalloc.start()
    try:
        found = rdm(x, "correlation")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    result, strip = found.vectors.nbytes, 8 * (1 << 20)
    assert result == 4 * count_pairs(n)
    # A strip is scratch, and there are flags for a few of them; a matrix n x n of float64 is 72 MB.
    assert peak < result + 3 * x.nbytes * 2 + 2 * strip < 8 * n * n
    assert products._STRIP_ENTRIES == 1 << 20


BAD = np.ones((4, 3)) * np.arange(12).reshape(4, 3)


def bad(place: tuple[int, int], value: float) -> np.ndarray:
    x = BAD.copy()
    x[place] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (bad((2, 1), np.nan), "the patterns hold NaN or infinity in row 2"),
        (bad((0, 1), -np.inf), "the patterns hold NaN or infinity in row 0"),
        (np.stack([BAD, bad((1, 1), np.inf)]), r"the patterns\[1\] hold NaN or infinity in row 1"),
        ({"a": BAD, "b": bad((1, 1), np.inf)}, "the patterns of 'b' hold NaN or infinity in row 1"),
        (BAD[:2], "2 stimuli have too few pairs"),
        (BAD[0], r"must be \[stimuli, channels\]"),
        (BAD[:, :0], "not of shape"),
        (BAD.astype(str), "must be real numbers"),
        (BAD * 1j, "must be real numbers, not complex128"),
        (BAD * 1e200, "so large that their squares overflow"),
        ({}, "at least one matrix"),
        ({"a": BAD, "b": np.stack([BAD, BAD])}, "at least one matrix"),
        ({"a": BAD, "b": BAD[:3]}, r"of the same stimuli, but have \[3, 4\] rows"),
    ],
    ids=str,
)
def test_patterns_that_cannot_be_used(x: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rdm(x)


def test_rows_that_a_metric_cannot_use() -> None:
    x = BAD.copy()
    x[1] = 0.1
    with pytest.raises(DataError, match="row 1 of the patterns is the same in all channels"):
        rdm(x, "correlation")
    x[1] = 0
    with pytest.raises(DataError, match="row 1 of the patterns is all zero, without a direction"):
        rdm(x, "cosine")
    x[1] = -1
    with pytest.raises(DataError, match="row 1 of the patterns holds negative numbers"):
        rdm(x, "poisson")


@pytest.mark.parametrize(
    ("metric", "rest", "message"),
    [
        ("euclid", {}, "metric='euclid' must be one of .*did you mean 'euclidean'"),
        ("euclidean", {"noise": np.eye(3)}, '"euclidean" takes no noise='),
        ("correlation", {"folds": [0, 1, 0, 1]}, '"correlation" takes no folds='),
        ("crossnobis", {}, '"crossnobis" is cross-validated and needs folds='),
        ("crossnobis", {"folds": [0, 1, 0, 1]}, "folds= needs stimuli="),
        ("euclidean", {"block": 0}, "block=0 must be a whole number of at least 1"),
    ],
)
def test_arguments_that_do_not_fit_the_metric(metric: str, rest: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rdm(BAD, metric, **rest)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (np.eye(4), r"must be a precision \[3, 3\], or \[3\]"),
        (np.full((3, 3), np.nan), "without NaN"),
        (np.array([1.0, 0.0, 1.0]), "positive definite"),
        (-np.eye(3), "positive definite"),
        (np.eye(3) + np.triu(np.ones((3, 3)), 1), "must be symmetric"),
    ],
)
def test_a_precision_that_is_none(noise: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rdm(BAD, "mahalanobis", noise=noise)


def test_names_that_do_not_fit_the_rows() -> None:
    with pytest.raises(DataError, match="stimuli must name each of the 4 rows; 3 names were given"):
        rdm(BAD, stimuli=["a", "b", "c"])
    with pytest.raises(DataError, match="2 labels 'layer' were given for 1 matrices"):
        rdm(BAD, labels={"layer": ["a", "b"]})


def test_patterns_that_are_all_the_same_have_a_constant_matrix() -> None:
    found = rdm(np.ones((5, 3)))
    assert isinstance(found, RDMs)
    assert not found.vectors.any()


def test_a_prior_without_weight() -> None:
    with pytest.raises(ConfigError, match="weight=0 must be a finite number above 0"):
        RatePrior(weight=0)


def test_without_noise_mahalanobis_is_squared_distance_over_the_channels() -> None:
    x = np.random.default_rng(0).normal(size=(12, 7))
    ours = rdm(x, "mahalanobis").vectors
    np.testing.assert_allclose(ours, rdm(x, "sqeuclidean").vectors / 7, rtol=1e-12)
    np.testing.assert_allclose(ours, rdm(x, "mahalanobis", noise=np.eye(7)).vectors, rtol=1e-12)
