"""RDM comparators agree with scipy, rsatoolbox and plain loops, missing pairs included."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from itertools import combinations, permutations
from typing import get_args

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from nestling.compare.rdms.rdms import RDMs
from nestling.compare.similarity.comparators import Method, compare
from nestling.errors import ConfigError, DataError, UndefinedSimilarityWarning
from samples import RSATOOLBOX, examples

METHODS: tuple[Method, ...] = get_args(Method)
BY_ORDER = ("spearman", "rho_a", "kendall", "tau_a")
WHITENED = ("cosine_whitened", "pearson_whitened")
OF_WHOLE = ("bures", "bures_distance", "distance_correlation")
N = 9
PAIRS = N * (N - 1) // 2


def euclidean(count: int, n: int = N, seed: int = 0, decimals: int = 8) -> np.ndarray:
    """Squared distances of related patterns; of few decimals there are ties."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 6))
    noisy = shared + rng.normal(size=(count, n, 6))
    return np.round([pdist(x, "sqeuclidean") for x in noisy], decimals)


def each(a: np.ndarray, b: np.ndarray, how: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
    return np.array([[how(x, y) for y in b] for x in a])


@pytest.mark.parametrize("decimals", [8, 0, -1])
def test_scipy_agrees(decimals: int) -> None:
    a, b = euclidean(4, seed=1, decimals=decimals), euclidean(3, seed=1, decimals=decimals)
    theirs = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}
    for method, function in theirs.items():
        expected = each(a, b, lambda x, y, function=function: function(x, y).statistic)
        np.testing.assert_allclose(compare(a, b, method), expected, atol=1e-12)


def slow_tau_a(x: np.ndarray, y: np.ndarray) -> float:
    signs = [np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in combinations(range(len(x)), 2)]
    return float(np.mean(signs))


def slow_distance_correlation(x: np.ndarray, y: np.ndarray) -> float:
    centred = []
    for square in map(squareform, (x, y)):
        out = np.empty_like(square)
        for i in range(len(square)):
            for j in range(len(square)):
                out[i, j] = square[i, j] - square[i].mean() - square[:, j].mean() + square.mean()
        centred.append(out)
    first, second = centred
    return float(np.sqrt(abs(np.mean(first * second)) / np.sqrt(np.mean(first**2) * np.mean(second**2))))


def second_moments(x: np.ndarray) -> np.ndarray:
    centring = np.eye(N) - 1 / N
    return -centring @ squareform(x) @ centring / 2


def slow_fidelity(x: np.ndarray, y: np.ndarray) -> float:
    root = scipy.linalg.sqrtm(second_moments(x)).real
    return float(scipy.linalg.sqrtm(root @ second_moments(y) @ root).real.trace())


def slow_bures(x: np.ndarray, y: np.ndarray) -> float:
    return slow_fidelity(x, y) / float(np.sqrt(second_moments(x).trace() * second_moments(y).trace()))


def slow_bures_distance(x: np.ndarray, y: np.ndarray) -> float:
    gap = second_moments(x).trace() + second_moments(y).trace() - 2 * slow_fidelity(x, y)
    return float(np.sqrt(max(gap, 0)))


@pytest.mark.parametrize("decimals", [8, 0])
def test_plain_loops_agree(decimals: int) -> None:
    a, b = euclidean(3, seed=2, decimals=decimals), euclidean(2, seed=3, decimals=decimals)
    np.testing.assert_allclose(compare(a, b, "tau_a"), each(a, b, slow_tau_a), atol=1e-14)
    np.testing.assert_allclose(
        compare(a, b, "distance_correlation"), each(a, b, slow_distance_correlation), atol=1e-12
    )


def test_bures_agrees_with_roots_of_matrices() -> None:
    """To 1e-6: a root of a singular matrix has half the digits."""
    a, b = euclidean(3, seed=2), euclidean(2, seed=3)
    np.testing.assert_allclose(compare(a, b, "bures"), each(a, b, slow_bures), atol=1e-6)
    np.testing.assert_allclose(compare(a, b, "bures_distance"), each(a, b, slow_bures_distance), rtol=1e-5)


def test_rho_a_is_the_mean_over_all_orders_of_ties() -> None:
    a, b = np.array([1.0, 2.0, 2.0, 3.0, 3.0, 3.0]), np.array([2.0, 1.0, 3.0, 3.0, 0.0, 4.0])

    def orders(x: np.ndarray) -> list[np.ndarray]:
        ranks = [np.array(p) for p in permutations(range(len(x)))]
        return [p for p in ranks if all((p[i] < p[j]) for i in range(6) for j in range(6) if x[i] < x[j])]

    expected = np.mean([stats.pearsonr(p, q).statistic for p in orders(a) for q in orders(b)])
    np.testing.assert_allclose(compare(a, b, "rho_a"), expected, atol=1e-12)


def slow_whitened(
    a: np.ndarray, b: np.ndarray, sigma: np.ndarray, *, centred: bool, kept: np.ndarray | None = None
) -> np.ndarray:
    """With the whole covariance of the pairs that are there."""
    contrasts = np.array([np.eye(N)[i] - np.eye(N)[j] for i, j in combinations(range(N), 2)])
    kept = np.ones(len(contrasts), bool) if kept is None else kept
    covariance = ((contrasts @ sigma @ contrasts.T) ** 2)[np.ix_(kept, kept)]
    a, b = (x[:, kept] - (x[:, kept].mean(axis=1, keepdims=True) if centred else 0) for x in (a, b))

    def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return x @ np.linalg.solve(covariance, y.T)

    return product(a, b) / np.sqrt(np.outer(np.diagonal(product(a, a)), np.diagonal(product(b, b))))


def sigma_of(kind: str) -> np.ndarray | None:
    rng = np.random.default_rng(4)
    variances = rng.uniform(0.5, 3, N)
    noise = rng.normal(size=(N, 3 * N))
    return {"none": None, "variances": variances, "full": noise @ noise.T}[kind]


@pytest.mark.parametrize("kind", ["none", "variances", "full"])
@pytest.mark.parametrize("missing", [0, 1, 9])
@pytest.mark.parametrize("method", WHITENED)
def test_whitening_agrees_with_the_inverse_of_the_covariance(kind: str, missing: int, method: Method) -> None:
    a, b, sigma = euclidean(3, seed=5), euclidean(4, seed=6), sigma_of(kind)
    kept = np.ones(PAIRS, bool)
    kept[np.random.default_rng(7).permutation(PAIRS)[:missing]] = False
    whole = np.eye(N) if sigma is None else np.diag(sigma) if sigma.ndim == 1 else sigma
    expected = slow_whitened(a, b, whole, centred=method == "pearson_whitened", kept=kept)
    a[:, ~kept] = np.nan
    np.testing.assert_allclose(compare(a, b, method, sigma=sigma), expected, atol=1e-10)
    if sigma is not None:  # only up to scale
        np.testing.assert_allclose(compare(a, b, method, sigma=1e6 * sigma), expected, atol=1e-10)


@pytest.mark.parametrize("decimals", [8, 0])
@pytest.mark.parametrize("missing", [0, 2])
def test_rsatoolbox_agrees(decimals: int, missing: int) -> None:
    theirs = pytest.importorskip("rsatoolbox.rdm")
    a, b = euclidean(4, 20, decimals=decimals), euclidean(3, 20, seed=1, decimals=decimals)
    a[:, 17 : 17 + missing] = b[:, 17 : 17 + missing] = np.nan
    for ours, name in RSATOOLBOX.items():
        expected = theirs.compare(theirs.RDMs(a), theirs.RDMs(b), name)
        np.testing.assert_allclose(compare(a, b, ours), expected, atol=1e-6, err_msg=ours)


def test_rsatoolbox_agrees_on_bures_of_euclidean_distances() -> None:
    """Theirs takes the square roots of rounding errors, which are half of the digits."""
    theirs = pytest.importorskip("rsatoolbox.rdm")
    a, b = euclidean(4, 20, decimals=15), euclidean(3, 20, seed=1, decimals=15)
    given = theirs.RDMs(a), theirs.RDMs(b)
    np.testing.assert_allclose(compare(a, b, "bures"), theirs.compare(*given, "bures"), atol=1e-6)
    squares = theirs.compare(*given, "bures_metric")
    np.testing.assert_allclose(compare(a, b, "bures_distance") ** 2, squares, rtol=1e-6)


@pytest.mark.parametrize("method", WHITENED)
def test_rsatoolbox_agrees_on_a_whole_covariance(method: Method) -> None:
    """To 1e-4: theirs are solved by conjugate gradients to 1e-5. Variances alone they only approximate."""
    theirs = pytest.importorskip("rsatoolbox.rdm")
    a, b = euclidean(3), euclidean(2, seed=1)
    for sigma in (sigma_of("full"), np.diag(sigma_of("variances"))):
        expected = theirs.compare(theirs.RDMs(a), theirs.RDMs(b), RSATOOLBOX[method], sigma_k=sigma)
        np.testing.assert_allclose(compare(a, b, method, sigma=sigma), expected, atol=1e-4)
    approximate = theirs.compare(
        theirs.RDMs(a), theirs.RDMs(b), RSATOOLBOX[method], sigma_k=np.diagonal(sigma)
    )
    assert np.abs(approximate - expected).max() > 1e-3


def test_bures_of_what_is_not_euclidean_is_still_1_with_itself() -> None:
    vectors = np.random.default_rng(8).random((3, PAIRS))
    found = compare(vectors, vectors, "bures")
    np.testing.assert_allclose(np.diagonal(found), 1, atol=1e-12)
    assert (found <= 1).all()


def test_bures_distance_is_a_metric() -> None:
    x = euclidean(12, seed=9)
    gaps = compare(x, x, "bures_distance")
    np.testing.assert_allclose(np.diagonal(gaps), 0, atol=1e-6)
    assert (gaps[:, None] <= gaps[:, :, None] + gaps[None] + 1e-9).all()
    np.testing.assert_allclose(compare(4 * x, 4 * x, "bures_distance"), 2 * gaps, atol=1e-6)


entries = st.floats(0, 1e3).map(lambda x: round(x, 3))
matrices = arrays(np.float64, st.tuples(st.integers(1, 3), st.just(PAIRS)), elements=entries)


def quiet(a: object, b: object, method: Method) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedSimilarityWarning)
        return compare(a, b, method)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=examples(25))
@given(a=matrices, b=matrices, order=st.permutations(range(N)))
def test_laws(method: Method, a: np.ndarray, b: np.ndarray, order: list[int]) -> None:
    """Symmetry, bounds, and no difference by the order in which stimuli come."""
    found = quiet(a, b, method)
    # A root of singular matrices has half the digits; the others are a few units of rounding.
    close = {"atol": 2e-3, "rtol": 1e-6} if method == "bures_distance" else {"atol": 1e-6}
    np.testing.assert_allclose(quiet(b, a, method), found.T, **close)
    present = found[~np.isnan(found)]
    assert (present >= (0 if method in OF_WHOLE else -1)).all()
    assert method == "bures_distance" or (present <= 1).all()
    shuffled = RDMs(b).at(order)
    np.testing.assert_allclose(quiet(RDMs(a), shuffled, method), found, **close)
    np.testing.assert_allclose(quiet(RDMs(a).at(order).vectors, shuffled.vectors, method), found, **close)


@pytest.mark.parametrize("method", BY_ORDER)
@settings(max_examples=examples(25))
@given(a=matrices, b=matrices)
def test_methods_of_order_ignore_increasing_maps(method: Method, a: np.ndarray, b: np.ndarray) -> None:
    mapped = np.exp(a / 200) + a
    np.testing.assert_allclose(quiet(mapped, b, method), quiet(a, b, method), atol=1e-12)
    np.testing.assert_allclose(quiet(-a, b, method), -quiet(a, b, method), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_many_at_once_are_each_alone(method: Method) -> None:
    a, b = euclidean(4, seed=10), euclidean(5, seed=11)
    alone = [[compare(x, y, method)[0, 0] for y in b] for x in a]
    np.testing.assert_allclose(compare(a, b, method), alone, atol=1e-7)
    same = np.diagonal(compare(a, a, method))
    if method == "bures_distance":
        np.testing.assert_allclose(same, 0, atol=1e-6)
    else:
        np.testing.assert_allclose(same, 1, atol=1e-12)


@pytest.mark.parametrize("method", ["cosine", "pearson", *BY_ORDER, *WHITENED])
def test_missing_pairs_are_left_out_two_by_two(method: Method) -> None:
    a, b = euclidean(5, seed=12), euclidean(4, seed=13)
    rng = np.random.default_rng(14)
    a[rng.random(a.shape) < 0.1] = np.nan
    a[3] = a[2]  # two lack the same
    b[1:, rng.random(PAIRS) < 0.1] = np.nan
    found = compare(a, b, method)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            kept = ~np.isnan(x) & ~np.isnan(y)
            if method in WHITENED:
                x, y = np.where(kept, x, np.nan), np.where(kept, y, np.nan)
                expected = slow_whitened(
                    x[None], y[None], np.eye(N), centred=method == "pearson_whitened", kept=kept
                )
            else:
                # Vectors of pairs that are no whole matrix: with as many again as fill one, all missing.
                expected = compare(_only(x, kept), _only(y, kept), method)
            np.testing.assert_allclose(found[i, j], expected[0, 0], atol=1e-10)


def _only(x: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The entries that are there in front, the rest missing."""
    return np.concatenate([x[kept], np.full((~kept).sum(), np.nan)])


def test_too_few_common_pairs_are_refused() -> None:
    a, b = euclidean(2), euclidean(1)
    a[1, :20], b[0, 22:] = np.nan, np.nan
    with pytest.raises(DataError, match="matrix 1 of the first and 0 of the second have 2 pairs"):
        compare(a, b)


@pytest.mark.parametrize("method", OF_WHOLE)
def test_methods_of_whole_matrices_refuse_missing_pairs(method: Method) -> None:
    a = euclidean(3)
    a[1, 4] = np.nan
    with pytest.raises(DataError, match=r"row 1 of the matrices lacks pairs .* needs whole matrices"):
        compare(a, euclidean(1), method)


@pytest.mark.parametrize("method", METHODS)
def test_infinity_is_largest_or_refused(method: Method) -> None:
    a, b = euclidean(2), euclidean(2, seed=1)
    largest = a.copy()
    largest[1, 3], a[1, 3] = a.max() + 1, np.inf
    if method in BY_ORDER:
        np.testing.assert_array_equal(compare(a, b, method), compare(largest, b, method))
    else:
        with pytest.raises(DataError, match=r"row 1 of the matrices holds infinity, which .* tau_a"):
            compare(a, b, method)


CONSTANT = {
    **dict.fromkeys(("pearson", "spearman", "kendall", "pearson_whitened"), np.nan),
    **dict.fromkeys(("rho_a", "tau_a"), 0.0),
}


@pytest.mark.parametrize("method", CONSTANT)
def test_equal_entries_are_as_in_scipy(method: Method) -> None:
    """NaN for correlations; those that count ties as no agreement are 0. 0.1 is no binary fraction."""
    a, b = euclidean(3), euclidean(2, seed=1)
    a[1] = 0.1
    expected = CONSTANT[method]
    if np.isnan(expected):
        with pytest.warns(UndefinedSimilarityWarning, match="row 1 of the first matrices"):
            found = compare(a, b, method)
        with pytest.warns(UndefinedSimilarityWarning, match="row 1 of the second matrices"):
            compare(b, a, method)
    else:
        found = compare(a, b, method)
    np.testing.assert_allclose(found[1], expected, atol=1e-12)
    assert not np.isnan(found[[0, 2]]).any()
    if method in ("kendall", "spearman", "pearson"):
        function = getattr(stats, {"kendall": "kendalltau"}.get(method, f"{method}r"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            assert np.isnan(function(a[1], b[0]).statistic)


@pytest.mark.parametrize("method", ["cosine", "cosine_whitened", "bures", "distance_correlation"])
def test_zeros_have_no_direction(method: Method) -> None:
    a = euclidean(2)
    a[0] = 0
    with pytest.warns(UndefinedSimilarityWarning, match="row 0 of the first"):
        found = compare(a, euclidean(3), method)
    assert np.isnan(found[0]).all()
    assert not np.isnan(found[1]).any()


def test_zeros_are_at_a_distance() -> None:
    found = compare(np.zeros(PAIRS), euclidean(1), "bures_distance")
    np.testing.assert_allclose(found[0, 0] ** 2, second_moments(euclidean(1)[0]).trace())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_tiny_and_huge_entries_do_not_overflow(method: Method, scale: float) -> None:
    a, b = euclidean(2), euclidean(3, seed=1)
    if method == "bures_distance":
        expected = compare(a, b, method) * np.sqrt(scale)
        np.testing.assert_allclose(compare(scale * a, scale * b, method), expected, rtol=1e-6)
    else:
        np.testing.assert_allclose(compare(scale * a, b, method), compare(a, b, method), atol=1e-9)


def test_stimuli_are_aligned_by_name() -> None:
    vectors = euclidean(2)
    names = [f"s{i}" for i in range(N)]
    a, b = RDMs(vectors, stimuli=names), RDMs(vectors, stimuli=names).at(names[::-1])
    np.testing.assert_allclose(np.diagonal(compare(a, b, "pearson")), 1)
    assert not np.allclose(np.diagonal(compare(a.vectors, b.vectors, "pearson")), 1)
    with pytest.raises(DataError, match="no stimulus s8, which the first have"):
        compare(a, RDMs(vectors, stimuli=[*names[:8], "other"]))
    with pytest.raises(DataError, match="over 9 and 8 stimuli cannot be compared"):
        compare(a, a.at(names[:8]))


def test_other_types_are_taken_and_nothing_is_changed() -> None:
    torch = pytest.importorskip("torch")
    a, b = euclidean(2), euclidean(3, seed=1)
    before = [hashlib.sha256(x.tobytes()).digest() for x in (a, b)]
    for method in METHODS:
        expected = compare(a, b, method)
        np.testing.assert_allclose(compare(torch.tensor(a, requires_grad=True), b, method), expected)
        assert expected.dtype == np.float64
    assert [hashlib.sha256(x.tobytes()).digest() for x in (a, b)] == before
    whole = np.round(10 * a).astype(np.int64)
    np.testing.assert_allclose(compare(whole, b), compare(whole.astype(float), b))
    half = a.astype(np.float16)
    np.testing.assert_allclose(compare(half, b), compare(half.astype(float), b))


@pytest.mark.parametrize("method", ["kendall", "tau_a", "spearman", "rho_a"])
def test_numpy_gives_the_same_where_nothing_was_compiled(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = euclidean(2, decimals=0), euclidean(3, seed=1)
    expected = compare(a, b, method)
    monkeypatch.setenv("NESTLING_KERNELS", "off")
    np.testing.assert_array_equal(compare(a, b, method), expected)


def test_bad_arguments_are_named() -> None:
    a = euclidean(1)
    with pytest.raises(ConfigError, match=r"method='spearmen' must be one of .*; did you mean 'spearman'"):
        compare(a, a, "spearmen")
    with pytest.raises(ConfigError, match=r"method='tau-a' must be one of .*; did you mean 'tau_a'"):
        compare(a, a, "tau-a")
    with pytest.raises(ConfigError, match="method='pearson' has no use for sigma"):
        compare(a, a, "pearson", sigma=np.eye(N))
    with pytest.raises(ConfigError, match=r"symmetric \[9, 9\], or variances \[9\]"):
        compare(a, a, "cosine_whitened", sigma=np.eye(N - 1))
    with pytest.raises(ConfigError, match="not positive definite among differences"):
        compare(a, a, "cosine_whitened", sigma=np.ones((N, N)))
    with pytest.raises(ConfigError, match="not positive definite"):
        compare(a, a, "cosine_whitened", sigma=-np.ones(N))
    with pytest.raises(DataError, match="11 dissimilarities are no whole matrix"):
        compare(a[:, :11], a[:, :11])
