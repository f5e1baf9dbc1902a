"""Crossnobis and Poisson distances follow their definitions, agree with rsatoolbox, have no bias."""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.compare import rdm
from nestling.compare.rdms.estimation import crossvalidation
from nestling.errors import ConfigError, DataError

FOLDS, N, P = 4, 7, 11


def trials(seed: int = 0, repeats: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of single trials in a random order, what each shows, and its fold."""
    generator = np.random.default_rng(seed)
    shown, folds = (side.ravel().repeat(repeats) for side in np.meshgrid(range(N), range(FOLDS)))
    rates = generator.gamma(4.0, size=(N, P))
    order = generator.permutation(len(shown))
    return generator.poisson(rates[shown[order]]).astype(float), shown[order], folds[order]


def means(x: np.ndarray, shown: np.ndarray, folds: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    cells = {(fold, i): x[(folds == fold) & (shown == i)] for fold in range(FOLDS) for i in range(N)}
    return {cell: rows.mean(axis=0) for cell, rows in cells.items() if len(rows)}


def slow_crossnobis(cells: dict[tuple[int, int], np.ndarray], precision: np.ndarray) -> list[float]:
    """By the definition, pair by pair: NaN where no two folds show both."""
    found = []
    for i, j in combinations(range(N), 2):
        both = [fold for fold in range(FOLDS) if (fold, i) in cells and (fold, j) in cells]
        differences = [cells[fold, i] - cells[fold, j] for fold in both]
        products = [a @ precision @ b / P for a, b in combinations(differences, 2)]
        found.append(np.mean(products) if products else np.nan)
    return found


def slow_poisson(cells: dict[tuple[int, int], np.ndarray]) -> list[float]:
    found = []
    for i, j in combinations(range(N), 2):
        products = []
        for fold in range(FOLDS):
            rest = [
                [cells[other, k] for other in range(FOLDS) if other != fold and (other, k) in cells]
                for k in (i, j)
            ]
            if (fold, i) in cells and (fold, j) in cells and all(rest):
                a, b = ((np.mean(each, axis=0) + 0.1) / 1.1 for each in rest)
                c, d = (np.log((cells[fold, k] + 0.1) / 1.1) for k in (i, j))
                products.append((a - b) @ (c - d) / P)
        found.append(np.mean(products) if products else np.nan)
    return found


def precision() -> np.ndarray:
    a = np.random.default_rng(1).normal(size=(P, 3 * P))
    return a @ a.T


@given(st.integers(0, 10_000), st.booleans())
def test_crossnobis_is_its_definition(seed: int, with_noise: bool) -> None:
    x, shown, folds = trials(seed)
    noise = precision() if with_noise else None
    found = rdm(x, "crossnobis", stimuli=shown, folds=folds, noise=noise)
    slow = slow_crossnobis(means(x, shown, folds), np.eye(P) if noise is None else noise)
    np.testing.assert_allclose(found.at(range(N)).vectors[0], slow, rtol=1e-9, atol=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_what_is_missing_counts_nowhere(seed: int, lost: int) -> None:
    """Unequal repeats, down to none: a pair that no two folds have in common is missing."""
    x, shown, folds = (each[lost:] for each in trials(seed))
    cells = means(x, shown, folds)
    found = rdm(x, "crossnobis", stimuli=shown, folds=folds, noise=precision())
    if len(found.stimuli) == N:
        slow = slow_crossnobis(cells, precision())
        np.testing.assert_allclose(found.at(range(N)).vectors[0], slow, rtol=1e-9, atol=1e-9)
        found = rdm(x, "poisson_cv", stimuli=shown, folds=folds)
        np.testing.assert_allclose(found.at(range(N)).vectors[0], slow_poisson(cells), rtol=1e-9, atol=1e-9)


def test_a_pair_without_common_folds_is_missing() -> None:
    x, shown, folds = trials()
    kept = ~(((shown == 0) & (folds < 2)) | ((shown == 1) & (folds >= 2)))
    for metric in ("crossnobis", "poisson_cv"):
        squares = rdm(x[kept], metric, stimuli=shown[kept], folds=folds[kept]).at(range(N)).squares()[0]
        assert np.isnan(squares[0, 1])
        assert np.isnan(squares).sum() == 2


def test_the_sum_of_all_folds_and_the_pairs_of_folds_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x, shown, folds = trials()
    cells = np.stack([[means(x, shown, folds)[fold, i] for i in range(N)] for fold in range(FOLDS)])
    fast, plain, chunks = np.empty((3, N * (N - 1) // 2))
    crossvalidation.write_crossnobis(cells, fast, None)
    pairs = crossvalidation._pairs_of_folds(cells, np.ones((FOLDS, N), bool))
    crossvalidation._write_means(pairs, 0.5 / P, plain, N, None)
    monkeypatch.setattr(crossvalidation, "_ENTRIES_AT_A_TIME", FOLDS * N * 3)
    crossvalidation.write_crossnobis(cells, chunks, None)
    np.testing.assert_allclose(fast, plain, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(chunks, fast, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 10_000))
def test_poisson_is_the_mean_over_folds(seed: int) -> None:
    x, shown, folds = trials(seed)
    found = rdm(x, "poisson_cv", stimuli=shown, folds=folds)
    np.testing.assert_allclose(
        found.at(range(N)).vectors[0], slow_poisson(means(x, shown, folds)), rtol=1e-9, atol=1e-12
    )


def test_rsatoolbox_agrees() -> None:
    """Its crossnobis is ours; its ``poisson_cv`` keeps what the last fold says instead of the mean."""
    rsatoolbox = pytest.importorskip("rsatoolbox")
    x, shown, folds = trials()
    # Text, because averaging fills descriptors that are numbers with NaN.
    named = {"stimulus": shown.astype(str), "fold": folds.astype(str)}
    data = rsatoolbox.data.Dataset(x, obs_descriptors=named)

    def theirs(method: str, **rest: object) -> np.ndarray:
        names = {"descriptor": "stimulus", "cv_descriptor": "fold"}
        return rsatoolbox.rdm.calc_rdm(data, method=method, **names, **rest).dissimilarities[0]

    ours = rdm(x, "crossnobis", stimuli=shown, folds=folds, noise=precision()).at(range(N))
    np.testing.assert_allclose(ours.vectors[0], theirs("crossnobis", noise=precision()), rtol=1e-9, atol=1e-9)
    ours = rdm(x, "crossnobis", stimuli=shown, folds=folds).at(range(N))
    np.testing.assert_allclose(ours.vectors[0], theirs("crossnobis"), rtol=1e-9, atol=1e-9)
    each = []
    for last in range(FOLDS):
        data.obs_descriptors["fold"] = ((folds - last - 1) % FOLDS).astype(
            str
        )  # the fold that they visit last
        each.append(theirs("poisson_cv"))
    ours = rdm(x, "poisson_cv", stimuli=shown, folds=folds).at(range(N))
    np.testing.assert_allclose(ours.vectors[0], np.mean(each, axis=0), rtol=1e-9, atol=1e-12)


def test_crossnobis_has_no_bias_and_mahalanobis_has() -> None:
    """Patterns that do not differ: the mean over many draws is 0, and negative numbers are legal."""
    generator = np.random.default_rng(0)
    n, folds, p = 40, 3, 20
    x = generator.normal(size=(folds * n, p))
    shown, fold = np.tile(np.arange(n), folds), np.arange(folds).repeat(n)
    found = rdm(x, "crossnobis", stimuli=shown, folds=fold).vectors
    assert (found < 0).any()
    # 780 pairs of 40 stimuli; the spread of the mean is that of 40 independent ones, at most.
    assert abs(found.mean()) < 3 * found.std() / np.sqrt(n)
    biased = rdm(x, "sqeuclidean", stimuli=shown).vectors / p
    assert biased.mean() == pytest.approx(2 / folds, rel=0.1)


@given(st.integers(0, 10_000), st.floats(-1000, 1000))
def test_what_a_fold_adds_to_all_patterns_does_not_matter(seed: int, shift: float) -> None:
    x, shown, folds = trials(seed)
    plain = rdm(x, "crossnobis", stimuli=shown, folds=folds).vectors
    moved = rdm(x + shift * folds[:, None], "crossnobis", stimuli=shown, folds=folds).vectors
    np.testing.assert_allclose(moved, plain, rtol=1e-7, atol=1e-7)


def test_several_subjects_share_a_design_and_keep_their_data() -> None:
    x, shown, folds = trials()
    both = np.stack([x, x[:, ::-1] + 1])
    before = hashlib.sha256(both.tobytes()).hexdigest()
    for metric in ("crossnobis", "poisson_cv"):
        found = rdm(both, metric, stimuli=shown, folds=folds, labels={"subject": [1, 2]})
        alone = rdm(both[1], metric, stimuli=shown, folds=folds)
        np.testing.assert_array_equal(found.where(subject=2).vectors, alone.vectors)
    assert hashlib.sha256(both.tobytes()).hexdigest() == before


def test_folds_that_cannot_be_used() -> None:
    x, shown, folds = trials()
    with pytest.raises(ConfigError, match="at least 2 folds"):
        rdm(x, "crossnobis", stimuli=shown, folds=np.zeros(len(x), int))
    with pytest.raises(DataError, match="folds must name each of the"):
        rdm(x, "crossnobis", stimuli=shown, folds=folds[1:])
    for metric in ("crossnobis", "poisson_cv"):
        with pytest.raises(DataError, match="no two stimuli have two folds in common"):
            rdm(x, metric, stimuli=shown, folds=shown)
    with pytest.raises(DataError, match="hold negative numbers"):
        rdm(x - 1, "poisson_cv", stimuli=shown, folds=folds)
