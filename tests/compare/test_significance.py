"""Permutation tests agree with plain loops and scipy; p values are uniform under the null."""

from __future__ import annotations

import hashlib
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from nestling.compare.inference.significance import adjusted, compare_groups, flip_signs, permute_stimuli
from nestling.compare.rdms.rdms import RDMs
from nestling.compare.similarity.comparators import Method, compare
from nestling.errors import ConfigError, DataError
from samples import examples

N = 10
METHODS: tuple[Method, ...] = (
    "cosine", "pearson", "spearman", "rho_a", "kendall", "tau_a", "cosine_whitened", "pearson_whitened",
    "bures", "distance_correlation",
)  # fmt: skip


def unrelated(count: int, seed: int = 0, n: int = N) -> np.ndarray:
    return np.array([pdist(x) for x in np.random.default_rng(seed).normal(size=(count, n, 4))])


def related(count: int, seed: int = 0, n: int = N, noise: float = 0.7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    return np.array([pdist(x + noise * rng.normal(size=x.shape)) for _ in range(count)])


# ---- stimuli


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_permuted_stimuli_in_plain_loops(method: Method, alternative: str) -> None:
    a, b = unrelated(2), unrelated(3, seed=1)
    found = permute_stimuli(a, b, method, permutations=19, alternative=alternative, seed=5)
    rng, null = np.random.default_rng(5), []
    for _ in range(19):
        order = rng.permutation(N)
        moved = np.array([squareform(squareform(x)[np.ix_(order, order)]) for x in a])
        null.append(compare(moved, b, method))
    values = compare(a, b, method)
    np.testing.assert_allclose(found.values, values, atol=1e-9)
    turn = {"greater": lambda x: x, "less": lambda x: -x, "two-sided": np.abs}[alternative]
    reached = turn(np.array(null)) >= turn(values) - 1e-9
    np.testing.assert_array_equal(found.p, (1 + reached.sum(axis=0)) / 20)
    most = turn(np.array(null)).max(axis=(1, 2))
    np.testing.assert_array_equal(
        found.p_family, (1 + (most[:, None, None] >= turn(values) - 1e-9).sum(axis=0)) / 20
    )
    assert (found.permutations, found.exact) == (19, False)


def test_p_values_of_unrelated_matrices_are_uniform() -> None:
    """400 tests: a share of .05 has a standard error of .011; that of 100 families of four one of .022."""
    found = [
        permute_stimuli(unrelated(2, seed), unrelated(2, 10_000 + seed), "pearson", permutations=99)
        for seed in range(100)
    ]
    p = np.concatenate([each.p.ravel() for each in found])
    assert abs((p <= 0.05).mean() - 0.05) < 0.04
    assert abs(p.mean() - 0.505) < 0.06
    assert (np.array([each.p_family.min() for each in found]) <= 0.05).mean() < 0.05 + 0.066


def test_related_matrices_are_found() -> None:
    x = related(2, n=20, noise=0.3)
    assert permute_stimuli(x[0], x[1], permutations=199).p == 1 / 200
    assert permute_stimuli(x[0], x[0], "bures_distance", permutations=199, alternative="less").p == 1 / 200


def test_blocks_of_permutations_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from nestling.compare.inference import significance

    a, b = unrelated(2), unrelated(2, seed=1)
    whole = permute_stimuli(a, b, "kendall", permutations=20)
    monkeypatch.setattr(significance, "_ENTRIES_AT_A_TIME", 3 * a.size)
    np.testing.assert_array_equal(permute_stimuli(a, b, "kendall", permutations=20).p, whole.p)


def test_nothing_is_changed_and_the_seed_decides() -> None:
    a, b = unrelated(1), unrelated(1, seed=1)
    before = hashlib.sha256(a.tobytes()).digest()
    state = np.random.get_state()[1].copy()
    p = [float(permute_stimuli(a, b, permutations=500, seed=seed).p[0, 0]) for seed in (0, 0, 1)]
    assert p[0] == p[1] != p[2]
    assert hashlib.sha256(a.tobytes()).digest() == before
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_stimuli_that_cannot_be_permuted_are_refused() -> None:
    a = unrelated(2)
    with pytest.raises(ConfigError, match="permutations=0 must be a whole number of at least 1"):
        permute_stimuli(a, a, permutations=0)
    with pytest.raises(ConfigError, match="alternative='more' must be one of"):
        permute_stimuli(a, a, alternative="more")
    a[0, 3] = np.nan
    with pytest.raises(DataError, match=r"lack pairs \(NaN\) cannot be permuted"):
        permute_stimuli(a, unrelated(1))


def test_what_is_undefined_has_no_p_value() -> None:
    a = unrelated(2)
    a[1] = 0.1
    found = permute_stimuli(a, unrelated(1, seed=1), "spearman", permutations=19)
    assert np.isnan(found.p[1, 0])
    assert 0 < found.p[0, 0] <= found.p_family[0, 0] <= 1


# ---- signs


def test_all_signs_agree_with_scipy() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, size=(3, 9))
    for alternative in ("greater", "less", "two-sided"):
        found = flip_signs(differences, alternative=alternative)
        assert (found.exact, found.permutations) == (True, 512)
        for row, p in zip(differences, found.p, strict=True):
            theirs = stats.permutation_test(
                (row, np.zeros(9)),
                lambda x, y, axis: np.mean(x - y, axis=axis),
                permutation_type="samples",
                vectorized=True,
                n_resamples=np.inf,
                alternative=alternative,
            )
            # scipy doubles the smaller side; of signs that is the same.
            assert p == pytest.approx(theirs.pvalue, abs=1e-12)


def test_some_signs_are_near_all_of_them() -> None:
    differences = np.random.default_rng(1).normal(0.4, 1, size=(2, 12))
    whole = flip_signs(differences)
    some = flip_signs(differences, permutations=4000)
    assert (whole.exact, some.exact) == (True, False)
    # 4000 draws know a p value near .1 to .005.
    np.testing.assert_allclose(some.p, whole.p, atol=0.02)
    assert (some.p_family >= some.p).all()


@settings(max_examples=examples(30))
@given(st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=2, max_size=7))
def test_signs_in_plain_loops(differences: list[float]) -> None:
    x = np.array(differences)
    means = [abs(np.mean(x * signs)) for signs in product([1, -1], repeat=len(x))]
    expected = np.mean(np.array(means) >= abs(x.mean()) - 1e-9)
    assert flip_signs(x).p == pytest.approx(expected)
    assert flip_signs(-x).p == pytest.approx(expected)


def test_equal_models_are_told_apart_as_often_as_chance_does() -> None:
    rng = np.random.default_rng(2)
    found = flip_signs(rng.standard_t(3, size=(400, 10)))
    assert abs((found.p <= 0.05).mean() - 0.05) < 0.04  # standard error .011
    assert (found.p_family <= 0.05).mean() < 0.01


def test_bad_differences_are_refused() -> None:
    for wrong in ([0.1], [[0.1, np.nan]], np.zeros((2, 2, 2)), 0.5):
        with pytest.raises(DataError, match="differences must be finite"):
            flip_signs(wrong)


# ---- groups


def slow_contrast(among: np.ndarray, group: np.ndarray, paired: bool) -> float:
    """Mean over pairs of subjects of one group, less that over pairs of two."""
    within, across = [], []
    half = len(group) // 2
    for i in range(len(group)):
        for j in range(i):
            if paired and i - half == j:
                continue
            (within if group[i] == group[j] else across).append(among[i, j])
    return float(np.mean(within) - np.mean(across))


@pytest.mark.parametrize("paired", [False, True])
def test_groups_in_plain_loops(paired: bool) -> None:
    """Two matrices a subject: their similarities are averaged first."""
    sizes = (5, 5) if paired else (4, 6)
    a, b = (unrelated(2 * size, seed) for seed, size in enumerate(sizes))
    names = [
        [f"{place if paired else 10 * g + place}" for place in range(size)] for g, size in enumerate(sizes)
    ]
    groups = [RDMs(x, labels={"subject": 2 * own}) for x, own in zip((a, b), names, strict=True)]
    if paired:  # another order of subjects
        groups[1] = groups[1][np.roll(np.arange(10), 3)]
    found = compare_groups(*groups, "spearman", paired=paired, permutations=100, seed=3)
    rows = np.concatenate([a, b])
    similar = compare(rows, rows, "spearman")
    own = np.concatenate([np.tile(range(sizes[0]), 2), sizes[0] + np.tile(range(sizes[1]), 2)])
    among = np.array([[similar[np.ix_(own == i, own == j)].mean() for j in range(10)] for i in range(10)])
    group = np.repeat([1, -1], sizes)
    expected = slow_contrast(among, group, paired)
    assert found.values == pytest.approx(expected, abs=1e-12)
    if paired:
        dealt = [np.concatenate([signs, -np.array(signs)]) for signs in product([1, -1], repeat=5)]
        null = np.array([slow_contrast(among, each, paired) for each in dealt])
        assert (found.exact, found.permutations) == (True, 32)
        assert found.p == pytest.approx(np.mean(null >= expected - 1e-9))
    else:
        rng = np.random.default_rng(3)
        dealt = rng.permuted(np.tile(group, (100, 1)), axis=1)
        null = np.array([slow_contrast(among, each, paired) for each in dealt])
        assert found.p == pytest.approx((1 + (null >= expected - 1e-9).sum()) / 101)


def test_groups_of_one_kind_are_told_apart_as_often_as_chance_does() -> None:
    rng = np.random.default_rng(4)
    for paired in (False, True):
        p = []
        for _ in range(150):
            x = related(10, int(rng.integers(1 << 30)))
            p.append(compare_groups(x[:5], x[5:], subject=None, paired=paired, permutations=99).p)
        # Standard error .018. Of 32 swaps, each is the same as another: p is one of 16.
        assert (np.array(p) <= 0.05).mean() < 0.05 + 0.054


def test_groups_that_differ_are_found() -> None:
    a, b = related(6, seed=1), related(6, seed=2)
    assert compare_groups(a, b, subject=None, permutations=999).p < 0.02
    assert compare_groups(a, b, subject=None, paired=True).p == 2 / 64


def test_bad_groups_are_refused() -> None:
    a, b = (RDMs(unrelated(3, seed), labels={"subject": ["x", "y", "z"]}) for seed in (0, 1))
    with pytest.raises(DataError, match="subject 'x' is in both groups; paired=True"):
        compare_groups(a, b)
    with pytest.raises(DataError, match="need the same subjects, but w, z are in one alone"):
        compare_groups(a, b.replace(labels={"subject": ["x", "y", "w"]}), paired=True)
    with pytest.raises(DataError, match="group of one subject"):
        compare_groups(a[0], b, subject=None)
    with pytest.raises(ConfigError, match="'bures_distance' is none; choose 'bures'"):
        compare_groups(a, b, "bures_distance", paired=True)


# ---- many tests


probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@settings(max_examples=examples(60))
@given(probabilities)
def test_corrections_in_plain_loops(p: list[float]) -> None:
    holm, largest = dict[int, float](), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, (len(p) - rank) * p[place])
        holm[place] = min(largest, 1)
    np.testing.assert_allclose(adjusted(p), [holm[place] for place in range(len(p))])
    np.testing.assert_allclose(adjusted(p, "benjamini_hochberg"), stats.false_discovery_control(p))
    np.testing.assert_array_equal(adjusted(p, "none"), p)
    assert (adjusted(p) >= adjusted(p, "benjamini_hochberg") - 1e-12).all()


def test_what_is_no_test_does_not_count() -> None:
    p = np.array([[0.01, np.nan], [0.03, 0.04]])
    for correction in ("holm", "benjamini_hochberg"):
        found = adjusted(p, correction)
        np.testing.assert_allclose(found[~np.isnan(p)], adjusted(p[~np.isnan(p)], correction))
        assert np.isnan(found[0, 1])
    assert np.isnan(p[0, 1])
    assert np.isnan(adjusted([np.nan], "benjamini_hochberg")).all()
    with pytest.raises(ConfigError, match=r"correction='holms' must be one of .*; did you mean 'holm'"):
        adjusted(p, "holms")
    with pytest.raises(DataError, match="between 0 and 1"):
        adjusted([0.1, 1.5])
