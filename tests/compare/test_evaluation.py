"""Model evaluation: ceilings, bootstrap draws and intervals agree with rsatoolbox and plain loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from nestling.compare.inference import bootstrap as bootstrapping
from nestling.compare.inference.bootstrap import Resamples, bootstrap, two_factor_variance
from nestling.compare.inference.ceiling import noise_ceiling
from nestling.compare.inference.evaluation import Evaluation, evaluate
from nestling.compare.rdms.rdms import RDMs
from nestling.compare.similarity.comparators import Method, comparator, compare
from nestling.errors import ConfigError, DataError
from samples import RSATOOLBOX

N, SUBJECTS, MODELS = 12, 5, 3
PAIRS = N * (N - 1) // 2
POOLED: tuple[Method, ...] = (
    "cosine", "pearson", "spearman", "rho_a", "kendall", "tau_a", "cosine_whitened", "pearson_whitened"
)  # fmt: skip
BY_ORDER = ("spearman", "rho_a", "kendall", "tau_a")


def measured(seed: int = 0, subjects: int = SUBJECTS, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Models that are right to different degrees, and what was measured of subjects."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    models = [pdist(x + noise * rng.normal(size=x.shape)) for noise in (0.3, 1, 3)]
    return np.array(models), np.array([pdist(x + rng.normal(size=x.shape)) for _ in range(subjects)])


# ---- noise ceilings


@pytest.mark.filterwarnings("ignore:Noise ceiling for tau:UserWarning")
@pytest.mark.parametrize("method", ["cosine", "pearson", *BY_ORDER])
def test_the_ceiling_is_that_of_rsatoolbox(method: Method) -> None:
    rsatoolbox = pytest.importorskip("rsatoolbox")
    from rsatoolbox.inference.noise_ceiling import boot_noise_ceiling

    _, data = measured()
    lower, upper = boot_noise_ceiling(rsatoolbox.rdm.RDMs(data), method=RSATOOLBOX[method])
    found = noise_ceiling(data, method, subject=None)
    assert found.lower == pytest.approx(lower, abs=1e-6)
    assert found.upper == pytest.approx(upper, abs=1e-6)


@pytest.mark.parametrize("method", ["cosine", "pearson", "cosine_whitened", "pearson_whitened"])
def test_no_model_exceeds_the_upper_ceiling(method: Method) -> None:
    _, data = measured()
    found = noise_ceiling(data, method, subject=None)
    assert found.lower < found.upper
    assert found.upper_each.mean() == found.upper
    pool = comparator(method, N).pool
    assert pool is not None
    best = pool(data).mean(axis=0)
    assert compare(best, data, method).mean() == pytest.approx(found.upper, abs=1e-12)
    rng = np.random.default_rng(1)
    near = best + 0.05 * np.abs(best).max() * rng.normal(size=(500, PAIRS))
    assert compare(near, data, method).mean(axis=1).max() < found.upper


@pytest.mark.parametrize("method", POOLED)
def test_ceilings_in_plain_loops(method: Method) -> None:
    """Leaving a subject out leaves out all its matrices; subjects count alike; missing pairs do not count."""
    _, data = measured(subjects=7)
    data[:, 5] = data[2, 9] = np.nan
    rows_of = {"a": [0, 3], "b": [1, 4, 5], "c": [2], "d": [6]}
    subject = [next(name for name, rows in rows_of.items() if row in rows) for row in range(7)]
    found = noise_ceiling(data, method, subject=subject)
    data[:, 9] = np.nan
    pool = comparator(method, N).pool
    assert pool is not None
    whole = method.endswith("whitened")
    known = ~np.isnan(data[0])
    seen = data if whole else data[:, known]
    means = {name: pool(seen[rows]).mean(axis=0) for name, rows in rows_of.items()}

    def similarity(pooled: list[np.ndarray], rows: list[int]) -> float:
        mean = np.full(PAIRS, np.nan)
        mean[known] = np.mean(pooled, axis=0)[known if whole else slice(None)]
        if method in BY_ORDER:  # equal means of ranks must not differ by rounding
            mean = mean.round(6)
        return float(compare(mean, data[rows], method).mean())

    for place, (name, rows) in enumerate(rows_of.items()):
        others = [mean for other, mean in means.items() if other != name]
        assert found.lower_each[place] == pytest.approx(similarity(others, rows), abs=1e-12)
        assert found.upper_each[place] == pytest.approx(similarity([*means.values()], rows), abs=1e-12)


def test_a_ceiling_needs_subjects_and_a_pool() -> None:
    _, data = measured()
    with pytest.raises(
        ConfigError,
        match=r"subject='subject' names no label: the matrices carry no labels; or give subject=None",
    ):
        noise_ceiling(data)
    with pytest.raises(DataError, match="a noise ceiling needs 2 subjects"):
        noise_ceiling(RDMs(data, labels={"subject": "s1"}))
    with pytest.raises(DataError, match="2 labels 'subject' were given for 5 matrices"):
        noise_ceiling(data, subject=["a", "b"])
    for method in ("bures", "bures_distance", "distance_correlation"):
        with pytest.raises(ConfigError, match=f"{method}' is not known, so there is no noise ceiling"):
            noise_ceiling(data, method, subject=None)
    data[np.arange(5)[:, None] == np.arange(PAIRS) % 5] = np.nan
    with pytest.raises(DataError, match="0 pairs of stimuli are in all matrices"):
        noise_ceiling(data, subject=None)


# ---- draws


def test_draws_are_as_many_as_there_are() -> None:
    drawn = Resamples.draw(500, N, SUBJECTS, "both", seed=0)
    assert (drawn.stimuli.sum(axis=1) == N).all()
    assert (drawn.subjects.sum(axis=1) == SUBJECTS).all()
    # Of each about one: 500 draws of 12 have a standard deviation of .04.
    np.testing.assert_allclose(drawn.stimuli.mean(axis=0), 1, atol=0.2)
    np.testing.assert_array_equal(drawn.stimuli, Resamples.draw(500, N, SUBJECTS, "both", seed=0).stimuli)
    assert (drawn.stimuli != Resamples.draw(500, N, SUBJECTS, "both", seed=1).stimuli).any()
    assert (Resamples.draw(9, N, SUBJECTS, "subjects", seed=0).stimuli == 1).all()
    assert (Resamples.draw(9, N, SUBJECTS, "stimuli", seed=0).subjects == 1).all()


def test_draws_that_say_nothing_are_made_again_and_counted() -> None:
    """Of 3 stimuli all differ in 2 of 9 draws, of 2 subjects in one of two."""
    drawn = Resamples.draw(2000, 3, 2, "both", seed=0)
    assert (drawn.stimuli == 1).all()
    assert (drawn.subjects == 1).all()
    # Failures before so many successes: 2000 * (3.5 + 1), standard deviation near 190.
    assert drawn.redrawn == pytest.approx(9000, abs=900)
    assert Resamples.draw(200, 50, 20, "both", seed=0).redrawn == 0


def plain_draw(
    models: np.ndarray, data: np.ndarray, stimuli: np.ndarray, subjects: np.ndarray, method: Method
) -> np.ndarray:
    """A draw by definition: matrices of the stimuli drawn, without the pairs of one with itself."""
    chosen = comparator(method, N)
    sample = np.repeat(np.arange(N), stimuli)
    apart = sample[:, None] != sample

    def seen(x: np.ndarray) -> np.ndarray:
        square = np.where(apart, squareform(x)[np.ix_(sample, sample)], np.nan)
        vector = square[np.triu_indices(N, 1)]
        return vector if chosen.whole else vector[~np.isnan(vector)]

    models, data = (np.array([seen(x) for x in rows]) for rows in (models, data))
    drawn = np.repeat(np.arange(len(data)), subjects)
    assert chosen.pool is not None
    scaled = chosen.pool(data)
    missing = np.isnan(data[0])
    lower, upper = [], []
    for subject in drawn:
        for bound, pooled in ((lower, drawn[drawn != subject]), (upper, drawn)):
            mean = np.where(missing, np.nan, scaled[pooled].mean(axis=0))
            mean = mean.round(6) if method in BY_ORDER else mean
            bound.append(chosen.similarity(mean[None], data[subject][None])[0, 0])
    values = chosen.similarity(models, data[drawn]).mean(axis=1)
    return np.array([*values, np.mean(lower), np.mean(upper)])


@pytest.mark.parametrize("method", POOLED)
def test_draws_agree_with_plain_ones(method: Method) -> None:
    models, data = measured()
    drawn = Resamples.draw(4, N, SUBJECTS, "both", seed=3)
    found = bootstrap(comparator(method, N), models, data, np.eye(SUBJECTS), drawn, "both")
    for number in range(4):
        stimuli, subjects = drawn.stimuli[number], drawn.subjects[number]
        for kind, counts in (
            ("both", (stimuli, subjects)),
            ("subjects", (np.ones(N, int), subjects)),
            ("stimuli", (stimuli, np.ones(SUBJECTS, int))),
        ):
            expected = plain_draw(models, data, *counts, method)
            np.testing.assert_allclose(found[kind][number], expected, atol=1e-10, err_msg=kind)
            alone = replace(drawn, stimuli=counts[0][None], subjects=counts[1][None])
            over = "both" if kind == "both" else kind
            single = bootstrap(comparator(method, N), models, data, np.eye(SUBJECTS), alone, over)
            np.testing.assert_allclose(single[kind][0], expected, atol=1e-10, err_msg=kind)


@pytest.mark.parametrize("method", ["cosine", "pearson"])
def test_many_draws_at_once_are_each_alone(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with several matrices of a subject, missing pairs, entries of any size, and short blocks."""
    models, data = measured(subjects=8)
    data[:, 7] = models[:, 7] = np.nan
    data[3] *= 1e-100
    models[1] *= 1e100
    average = np.repeat(np.eye(4), 2, axis=1) / 2
    drawn = Resamples.draw(60, N, 4, "both", seed=1)
    chosen = comparator(method, N)
    together = bootstrap(chosen, models, data, average, drawn, "both")
    monkeypatch.setattr(bootstrapping, "_ENTRIES_AT_A_TIME", 7 * models.size)
    in_blocks = bootstrap(chosen, models, data, average, drawn, "both")
    one_by_one = bootstrap(replace(chosen, method="bures"), models, data, average, drawn, "both")
    for kind, values in together.items():
        np.testing.assert_allclose(in_blocks[kind], values, atol=1e-12)
        np.testing.assert_allclose(one_by_one[kind], values, atol=1e-10)


@pytest.mark.parametrize("method", ["pearson", "spearman", "cosine_whitened"])
def test_draws_agree_with_rsatoolbox(method: Method) -> None:
    rsatoolbox = pytest.importorskip("rsatoolbox")
    models, data = measured()
    drawn = Resamples.draw(5, N, SUBJECTS, "both", seed=2)
    found = bootstrap(comparator(method, N), models, data, np.eye(SUBJECTS), drawn, "both")
    theirs = RSATOOLBOX[method]
    for number in range(5):
        stimuli = np.repeat(np.arange(N), drawn.stimuli[number])
        subjects = np.repeat(np.arange(SUBJECTS), drawn.subjects[number])
        predicted = rsatoolbox.rdm.RDMs(models.copy()).subsample_pattern("index", stimuli)
        sample = rsatoolbox.rdm.RDMs(data.copy()).subsample("index", subjects)
        sample = sample.subsample_pattern("index", stimuli)
        expected = rsatoolbox.rdm.compare(predicted, sample, theirs).mean(axis=1)
        np.testing.assert_allclose(found["both"][number][:MODELS], expected, atol=1e-6)


def test_the_variance_of_both_factors_is_that_of_rsatoolbox() -> None:
    pytest.importorskip("rsatoolbox")
    from rsatoolbox.util.inference_util import extract_variances

    models, data = measured()
    found = evaluate(models, data, "pearson", subject=None, draws=100)
    spread = np.array([np.cov(found.drawn[kind].T) for kind in ("both", "subjects", "stimuli")])
    values, pairs, ceilings = extract_variances(spread, True, SUBJECTS, N)
    unit = np.eye(MODELS + 2)
    np.testing.assert_allclose(found.variance(unit[:MODELS]), values, rtol=1e-6)
    first, second = np.triu_indices(MODELS, 1)
    np.testing.assert_allclose(found.variance(unit[first] - unit[second]), pairs, rtol=1e-6)
    for place in (0, 1):
        bounds = found.variance(unit[:MODELS] - unit[MODELS + place])
        np.testing.assert_allclose(bounds, ceilings[:, place], rtol=1e-6)


def test_the_variance_of_a_mean_over_both_factors_is_right() -> None:
    """Effects of rows (variance 1), columns (4) and entries (9): the variance of the mean is known."""
    rng = np.random.default_rng(0)
    rows, columns, found = 8, 15, []
    for _ in range(300):
        x = rng.normal(size=(rows, 1)) + 2 * rng.normal(size=columns) + 3 * rng.normal(size=(rows, columns))
        by_row, by_column = x.mean(axis=1), x.mean(axis=0)
        # Limit of many bootstraps: variances of means of draws with replacement.
        subjects, stimuli = by_row.var() / rows, by_column.var() / columns
        rest = (x - by_row[:, None] - by_column + x.mean()).var() / (rows * columns)
        found.append(two_factor_variance(subjects + stimuli + rest, subjects, stimuli, rows, columns))
    expected = 1 / rows + 4 / columns + 9 / (rows * columns)
    # The clip to at most that of resampling both costs little here; 300 means have a standard error near .01.
    assert np.mean(found) == pytest.approx(expected, rel=0.07)


# ---- evaluations


def test_over_subjects_it_is_the_t_test() -> None:
    """With endless draws; 4000 know a variance to 2 %."""
    models, data = measured(subjects=9)
    found = evaluate(models, data, "spearman", over="subjects", subject=None, draws=4000)
    each = compare(models, data, "spearman")
    np.testing.assert_allclose(found.each, each, atol=1e-12)
    np.testing.assert_allclose(found.values, each.mean(axis=1), atol=1e-12)
    test = stats.ttest_1samp(each, 0, axis=1)
    low, high = test.confidence_interval(0.95)
    np.testing.assert_allclose(found.interval[0], low, atol=0.01)
    np.testing.assert_allclose(found.interval[1], high, atol=0.01)
    deviations = found.values / stats.t.isf(found.p_zero, 8)
    np.testing.assert_allclose(deviations, each.std(axis=1, ddof=1) / 3, rtol=0.08)
    paired = stats.ttest_rel(each[0], each[1]).pvalue
    assert np.log(found.p_pairs[0, 1]) == pytest.approx(np.log(paired), rel=0.1)
    np.testing.assert_allclose(found.p_pairs, found.p_pairs.T)
    assert found.dof == 8


def test_rows_and_pairs() -> None:
    pandas = pytest.importorskip("pandas")
    models, data = measured(subjects=8)
    names = ["good", "fair", "poor"]
    labels = {"name": names}
    subjects = {"subject": [f"s{i // 2}" for i in range(8)]}
    found = evaluate(RDMs(models, labels=labels), RDMs(data, labels=subjects), "pearson", draws=200)
    assert found.models == ("good", "fair", "poor")
    assert found.subjects == ("s0", "s1", "s2", "s3")
    rows, pairs = found.rows(), found.pairs()
    assert [row["model"] for row in rows] == names
    assert [(row["first"], row["second"]) for row in pairs] == [
        ("good", "fair"), ("good", "poor"), ("fair", "poor")
    ]  # fmt: skip
    for row in rows:
        assert row["low"] < row["value"] < row["high"]
    assert pairs[1]["difference"] == pytest.approx(rows[0]["value"] - rows[2]["value"])
    assert pairs[1]["low"] < pairs[1]["difference"] < pairs[1]["high"]
    plain = found.rows("none")
    assert all(a["p_zero"] <= b["p_zero"] for a, b in zip(plain, rows, strict=True))
    assert [row["p_zero"] for row in plain] == found.p_zero.tolist()
    assert isinstance(found.to_pandas(), pandas.DataFrame)
    assert found.to_pandas().columns.tolist() == ["model", "value", "low", "high", "p_zero", "p_ceiling"]


def test_the_same_seed_draws_the_same() -> None:
    models, data = measured()

    def drawn(seed: int) -> np.ndarray:
        return evaluate(models, data, subject=None, draws=20, seed=seed).drawn["both"]

    state = np.random.get_state()[1].copy()
    np.testing.assert_array_equal(drawn(0), drawn(0))
    assert (drawn(0) != drawn(1)).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def simulated(rng: np.random.Generator, n: int, subjects: int) -> tuple[np.ndarray, np.ndarray]:
    """New stimuli and new subjects, who weigh their features each in their way and see them noisily."""
    x = rng.normal(size=(n, 10))
    weights = np.exp(rng.normal(size=(subjects, 10)) / 4)
    noisy = x * weights[:, None] + rng.normal(size=(subjects, n, 10)) / 2
    return pdist(x[:, :5], "sqeuclidean")[None], np.array([pdist(each, "sqeuclidean") for each in noisy])


def covered(found: list[Evaluation], truth: float) -> float:
    return float(np.mean([e.interval[0][0] <= truth <= e.interval[1][0] for e in found]))


def test_intervals_cover_new_subjects_and_stimuli() -> None:
    """200 simulations of 95 % intervals have a standard error of 1.5 %; resampling too little covers less."""
    rng = np.random.default_rng(1)
    sets = [simulated(rng, 20, 8) for _ in range(200)]
    truth = float(np.mean([compare(*each, "pearson").mean() for each in sets]))
    shares = {}
    for over in ("both", "subjects"):
        found = [evaluate(*each, "pearson", over=over, subject=None, draws=100) for each in sets]
        shares[over] = covered(found, truth)
    assert 0.91 <= shares["both"] <= 0.995
    assert shares["subjects"] < 0.8  # says nothing of other stimuli


def test_rows_are_not_subjects() -> None:
    """Four matrices of each of 6 subjects, alike within each: intervals must be those of subjects."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(15, 6))
    model = pdist(x)[None]
    subject = np.repeat(np.arange(6), 4)
    sets = []
    for _ in range(200):
        seen = x + rng.normal(size=(6, 15, 6)) * rng.uniform(0.2, 2, size=(6, 1, 1))
        sets.append(np.array([pdist(each + 0.1 * rng.normal(size=each.shape)) for each in seen[subject]]))
    truth = float(np.mean([compare(model, data, "pearson").mean() for data in sets]))

    def share(of: Any) -> float:
        found = [evaluate(model, data, "pearson", over="subjects", subject=of, draws=100) for data in sets]
        return covered(found, truth)

    assert share(subject) >= 0.89
    assert share(None) < 0.75


def test_missing_pairs_are_left_out() -> None:
    models, data = measured()
    names = [f"s{i}" for i in range(N)]
    whole = evaluate(models, data, "cosine", over="subjects", subject=None, draws=20)
    without = data.copy()
    without[1, 3] = np.nan
    found = evaluate(models, without, "cosine", over="subjects", subject=None, draws=20)
    kept = np.arange(PAIRS) != 3
    by_hand = np.array([[1 - _cosine(x[kept], y[kept]) for y in data] for x in models])
    np.testing.assert_allclose(found.each, 1 - by_hand, atol=1e-12)
    assert (found.each != whole.each).all()
    shuffled = RDMs(data, stimuli=names).at(names[::-1])
    aligned = evaluate(
        RDMs(models, stimuli=names), shuffled, "cosine", over="subjects", subject=None, draws=20
    )
    np.testing.assert_allclose(aligned.drawn["subjects"], whole.drawn["subjects"], atol=1e-12)


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_one_subject_has_no_ceiling() -> None:
    models, data = measured()
    found = evaluate(models, data[0], "pearson", over="stimuli", subject=None, draws=50)
    assert found.ceiling is None
    assert np.isnan(found.p_ceiling).all()
    assert np.isfinite(found.interval).all()
    assert np.isfinite([row["p"] for row in found.pairs()]).all()
    for over in ("both", "subjects"):
        with pytest.raises(DataError, match="one subject, so subjects cannot be resampled"):
            evaluate(models, data[0], "pearson", over=over, subject=None)


def test_draws_with_equal_entries_are_left_out_and_counted() -> None:
    """A model of two classes, one of them a single stimulus: without it all entries are equal."""
    models, data = measured()
    alone = pdist((np.arange(N) == 0).astype(float)[:, None])
    found = evaluate(np.vstack([models, alone]), data, "pearson", subject=None, draws=300)
    # The stimulus is missing from a draw with (11/12)**12 = .352; standard deviation .028.
    assert found.undefined / 300 == pytest.approx(0.352, abs=0.12)
    assert len(found.drawn["both"]) == 300 - found.undefined
    assert np.isfinite(found.interval).all()
    for method in ("pearson", "spearman"):
        with pytest.raises(DataError, match="undefined for row 0 of the models"):
            evaluate(np.ones(PAIRS), data, method, subject=None, draws=10)
    single = (np.arange(PAIRS) == 0).astype(float)  # both stimuli of the pair are in 40 % of the draws
    with pytest.raises(DataError, match=r"in \d+ of 300 draws all entries of some matrix are equal"):
        evaluate(single, data, "pearson", subject=None, draws=300)


def test_what_is_given_is_not_changed() -> None:
    models, data = measured()
    before = models.copy(), data.copy()
    for method in ("pearson", "spearman", "cosine_whitened"):
        evaluate(models, data, method, subject=None, draws=3)
    np.testing.assert_array_equal(models, before[0])
    np.testing.assert_array_equal(data, before[1])


def test_bad_arguments_are_named() -> None:
    models, data = measured()
    with pytest.raises(ConfigError, match=r"over='subject' must be one of .*; did you mean 'subjects'"):
        evaluate(models, data, over="subject", subject=None)
    with pytest.raises(ConfigError, match="draws=1 must be a whole number of at least 2"):
        evaluate(models, data, draws=1, subject=None)
    with pytest.raises(ConfigError, match="confidence=95 must be a number above 0 and below 1"):
        evaluate(models, data, confidence=95, subject=None)
    with pytest.raises(ConfigError, match="'bures' is not known"):
        evaluate(models, data, "bures", subject=None)
    with pytest.raises(ConfigError, match="subject='subject' names no label"):
        evaluate(models, data)
    with pytest.raises(DataError, match="over 12 and 11 stimuli"):
        evaluate(models, RDMs(data).at(range(11)), subject=None)
