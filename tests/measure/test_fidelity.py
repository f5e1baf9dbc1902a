"""Fidelity at every size agrees with the plain computation; more dims keep more."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata

from nestling.cut import RAW, CutRule, cut
from nestling.elastic import resolve_each
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.measure import Fidelity, Robustness, encode_task, sweep
from nestling.measure.baselines import random_dims
from nestling.measure.tasks.pair_scores import PairScores
from nestling.vectors.stored import StoredVectors

NESTING = Nesting.parse("dim=2,4,8,16")
THRESHOLDS = {"rank": (0.0, 1.0), "topology": (0.4, 0.6), "local": (0.0, 0.1)}
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(60, 16)) * np.linspace(2, 0.5, 16)).astype(np.float32)
WORDS = """
cat dog horse cow sheep lion tiger bear wolf fox mouse eagle owl sparrow salmon shark whale bee ant
spider apple pear banana cherry grape lemon orange bread cheese butter milk coffee tea wine beer soup
salad rice potato car bus train bicycle boat ship plane rocket wheel engine hammer saw screwdriver drill
nail ladder rope knife doctor nurse lawyer judge teacher student farmer baker soldier sailor king queen
mother father sister brother red green blue yellow black white purple brown Paris London Berlin Rome
Madrid Tokyo Moscow Cairo happy sad angry afraid proud tired hungry run walk swim fly jump sing dance
write read speak piano violin guitar drum flute river mountain forest desert ocean
""".split()  # noqa: SIM905 - a list would take a page


def identity(x: np.ndarray) -> np.ndarray:
    return x


def graded(distances: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """The geo-topological transform, one distance at a time."""
    ranks = rankdata(distances)
    ranks = (ranks - ranks.min()) / (ranks.max() - ranks.min())
    low, high = np.quantile(ranks, [lower, upper])
    return np.array([min(max((rank - low) / (high - low), 0.0), 1.0) for rank in ranks])


def plainly(x: np.ndarray, full: np.ndarray, k: int = 10) -> list[float]:
    """Fidelity of vectors to others, step by step."""
    here, there = pdist(x.astype(np.float64)), pdist(full.astype(np.float64))
    found = [np.corrcoef(graded(here, *ends), graded(there, *ends))[0, 1] for ends in THRESHOLDS.values()]
    near = [np.argsort(squareform(d) + np.diag(np.full(len(x), np.inf)))[:, :k] for d in (here, there)]
    return [*found, float(np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)]))]


class Layered:
    """Elastic over layers and dims; lower layers are noisier."""

    nesting = Nesting.grid(layer=[1, 2, 3], dim=[4, 16])
    rule = CutRule()

    def forward_each(self, x: np.ndarray, /, granularities: Any = None) -> dict[Granularity, np.ndarray]:
        noise = np.random.default_rng(1).normal(size=(100, 16))[: len(x)]
        wanted = resolve_each(self.nesting, granularities)
        return {g: cut(x + (3 - g["layer"]) * noise, g["dim"], self.rule) for g in wanted}

    def __call__(self, x: np.ndarray, /, at: At = None) -> np.ndarray:
        return self.forward_each(x, [at])[self.nesting.resolve(at)]


@pytest.mark.parametrize("rule", [RAW, CutRule(), CutRule("layer_norm", "l2")])
def test_every_size_agrees_with_the_plain_computation(rule: CutRule) -> None:
    before = X.copy()
    curve = sweep(identity, Fidelity(X), NESTING, rule=rule, resamples=20)
    assert curve.metrics == ("rank", "topology", "local", "neighbours@10")
    for dim in NESTING.sizes("dim"):
        expected = plainly(cut(X, dim, rule), cut(X, 16, rule))
        found = [curve.row(dim, metric).value for metric in curve.metrics]
        # Near-ties may be ranked the other way round in float32.
        np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_array_equal(X, before)


def test_the_full_one_keeps_everything_and_more_keeps_more() -> None:
    curve = sweep(identity, Fidelity(X), NESTING, resamples=100)
    for metric in curve.metrics:
        column = curve.column(metric)
        assert [row.value for row in column] == sorted(row.value for row in column)
        full = column[-1]
        assert (full.value, full.low, full.high) == pytest.approx((1, 1, 1), abs=1e-6)
        assert column[0].value < 0.8
        assert all(row.low <= row.value <= row.high for row in column[:-1])
    assert curve.choose(keep=0.5) < Granularity(dim=16)


def test_other_axes_are_compared_with_the_full_granularity_of_all() -> None:
    """Each layer is scored by itself, but not against itself."""
    thing = Layered()
    curve = sweep(thing, Fidelity(X), resamples=20)
    full = thing(X)
    for g in thing.nesting:
        found = [curve.row(g, metric).value for metric in curve.metrics]
        np.testing.assert_allclose(found, plainly(thing(X, at=g), full), atol=2e-3)
    assert curve.row("layer=1,dim=16").value < curve.row("layer=2,dim=16").value < 0.99


def test_part_of_a_nesting_is_compared_with_its_own_full_one() -> None:
    stored = StoredVectors(X, NESTING)
    curve = sweep(stored, Fidelity(np.arange(60)), Nesting.parse("dim=2,8"), resamples=20)
    assert curve.row().value == pytest.approx(1)
    expected = plainly(cut(X, 2), cut(X, 8))
    assert [curve.row(2, metric).value for metric in curve.metrics] == pytest.approx(expected, abs=2e-3)


def test_a_resample_counts_pairs_as_they_are_drawn() -> None:
    """Weights are the numbers of draws: listing every drawn pair of different examples gives the same."""
    rng = np.random.default_rng(3)
    values, target = rng.random((2, 1, 190)), rng.random((1, 190))
    scores = PairScores(values, target, ["m"])
    assert scores.groups == (20,)
    draws = rng.integers(20, size=(5, 20))
    weights = np.stack([np.bincount(drawn, minlength=20) for drawn in draws]).astype(np.float64)
    found = scores.statistic(weights)
    squares, goal = [squareform(each[0]) for each in values], squareform(target[0])
    for resample, drawn in enumerate(draws):
        pairs = [(i, j) for i, j in combinations(drawn, 2) if i != j]
        for size, square in enumerate(squares):
            listed = np.array([(square[i, j], goal[i, j]) for i, j in pairs])
            # Sums are float32.
            assert found[resample, size, 0] == pytest.approx(np.corrcoef(listed.T)[0, 1], abs=1e-5)


def test_pairs_that_do_not_vary_have_no_correlation() -> None:
    values = np.array([[[0.0, 1.0, 1.0]]])
    scores = PairScores(values, values[0], ["m"])
    weights = np.array([[1.0, 1, 1], [0, 2, 2], [3, 0, 0]])  # all, one pair, none
    assert scores.statistic(weights)[:, 0, 0] == pytest.approx([1, np.nan, np.nan], nan_ok=True)


def test_few_inputs_are_resampled_without_a_warning() -> None:
    curve = sweep(identity, Fidelity(X[:5], k=1), NESTING, resamples=200)
    assert all(np.isfinite(row.low) for row in curve.rows)


def test_of_many_inputs_a_sample_is_used() -> None:
    task = Fidelity(X, limit=30, seed=4)
    rows = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in task.x]
    assert rows == sorted(set(rows))
    assert len(rows) == 30
    np.testing.assert_array_equal(task.x, Fidelity(X, limit=30, seed=4).x)
    assert not np.array_equal(task.x, Fidelity(X, limit=30, seed=5).x)
    curve = sweep(identity, task, NESTING, resamples=20)
    assert curve.examples == 30
    expected = plainly(cut(X[rows], 4), cut(X[rows], 16))
    assert [curve.row(4, metric).value for metric in curve.metrics] == pytest.approx(expected, abs=2e-3)
    texts = [f"text {number}" for number in range(50)]
    sampled = Fidelity(texts, reference=np.arange(50.0)[:, None] + 1, limit=20)
    named = [f"text {int(row[0]) - 1}" for row in sampled.reference]
    assert sampled.x == named


def test_a_reference_of_its_own_stays() -> None:
    other = X @ RNG.normal(size=(16, 12)).astype(np.float32)
    curve = sweep(identity, Fidelity(X, reference=other, rule=RAW), NESTING, rule=RAW, resamples=20)
    for dim in (4, 16):
        expected = plainly(X[:, :dim], other)
        assert [curve.row(dim, m).value for m in curve.metrics] == pytest.approx(expected, abs=2e-3)
    assert curve.row().value < 0.99


def test_thresholds_and_neighbours_are_chosen() -> None:
    task = Fidelity(X, thresholds={"far": (0.8, 1.0), "graph": (0.5, 0.5)}, k=None)
    curve = sweep(identity, task, NESTING, resamples=20)
    assert curve.metrics == ("far", "graph")
    assert curve.row(16, "graph").value == pytest.approx(1)
    assert 0 < curve.row(4, "graph").value < 1
    assert Fidelity(X, k=3).metrics[-1] == "neighbours@3"


def test_a_shifted_set_has_a_fidelity_too() -> None:
    task = Robustness(Fidelity(X), Fidelity(X + 0.2))
    curve = sweep(identity, task, NESTING, resamples=20)
    assert curve.row(16, "rank shifted").value == pytest.approx(1)
    assert (
        curve.row(2, "rank clean").value == sweep(identity, Fidelity(X), NESTING, resamples=20).row(2).value
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"x": X[:2]}, "2 inputs are too few"),
        ({"x": X[:8]}, "k=10 neighbours cannot be found among 7"),
        ({"k": 0}, "k=0"),
        ({"limit": 2}, "limit=2"),
        ({"thresholds": {}}, "at least one transform"),
        ({"thresholds": {"a": (0.6, 0.4)}}, "swap"),
        ({"thresholds": {"a": (0.1, 1.4)}}, "lie in 0 to 1"),
        ({"thresholds": {"neighbours@3": (0.1, 0.4)}}, "another name"),
        ({"reference": X[:5]}, "5 reference rows were given for 60"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        Fidelity(**{"x": X, **settings})


def test_what_cannot_be_compared_is_named() -> None:
    with pytest.raises(ConfigError, match="nothing to compare with"):
        Fidelity(X).score({"x": X}, [4, 16], RAW)
    same = np.repeat(X[:1], 12, axis=0)
    with pytest.raises(DataError, match="all distances of the reference are 0"):
        sweep(identity, Fidelity(same), NESTING)
    flat = X.copy()
    flat[:, :2] = 1
    with pytest.raises(DataError, match="all distances at 2 dims are 0,"):
        sweep(identity, Fidelity(flat), NESTING, rule=RAW)


def test_a_trained_prefix_keeps_more_than_random_dims() -> None:
    """Claim C5 of the reference study: by at least 0.1 of rank and local fidelity at 64 of 256 dims."""
    encoder = TextEncoder.open("wordllama", device="cpu")
    nesting = Nesting.parse("dim=8..256")
    task = encode_task(encoder, Fidelity(WORDS))
    trained = sweep(identity, task, nesting, resamples=50)
    drawn = [random_dims(task, nesting, seed=seed) for seed in range(3)]
    for metric in ("rank", "local"):
        chance = np.mean([curve.row(64, metric).value for curve in drawn])
        assert trained.row(64, metric).value > chance + 0.1
    assert sweep(encoder, Fidelity(WORDS), nesting, resamples=50).row(64).value == trained.row(64).value
