"""Reports of ``fit``: against plain loops, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nestling.cut import RAW, CutRule
from nestling.encoders.maps.fit_report import FitReport, compare_with_truncation
from nestling.encoders.maps.held_out import FEWEST, HeldOut, interval
from nestling.granularity import Nesting

K = 10
SIZES = Nesting.parse("dim=3,8,16")
RULES = {"cosine": CutRule(), "distance": RAW}
KINDS = ["vectors", "pairs", "labels"]


def rows(kind, n=60, seed=0, turn=None, dim=16, weakest=1.0):
    """Held-out rows of which all directions are alike, or some are weaker."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, dim)) * np.linspace(1, weakest, dim)
    noise = 0.3 * rng.standard_normal((n, dim))
    labels = rng.integers(4, size=n) if weakest == 1 else (hidden[:, 0] > 0) * 2 + (hidden[:, 1] > 0)
    x, partners = (
        (each @ (np.eye(dim) if turn is None else turn)).astype(np.float32)
        for each in (hidden, hidden + noise)
    )
    return HeldOut(x, partners if kind == "pairs" else None, labels if kind == "labels" else None)


def rotation(seed=0, dim=16):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0].astype(np.float32)


def slow_near(held, i, dim, rule, present):
    """Row i's likeness to each of the rows that are there, one by one."""
    known, found = held.x if held.pairs is None else held.pairs, {}
    for j in present:
        a, b = held.x[i, :dim].astype(np.float64), known[j, :dim].astype(np.float64)
        if held.pairs is None and i == j:
            continue
        if rule is RAW:
            found[j] = -float(((a - b) ** 2).sum())
        else:
            found[j] = float(a @ b / math.sqrt((a @ a) * (b @ b)))
    return found


def slow_values(held, plain, dim, rule, present):
    """The metric of each row that is there, over the rows that are there."""
    values = {}
    for i in present:
        near = slow_near(held, i, dim, rule, present)
        if held.pairs is not None:
            values[i] = 1 / (1 + sum(score > near[i] for score in near.values()))
            continue
        nearest = sorted(near, key=near.get, reverse=True)[:K]
        if held.labels is not None:
            right = {j for j in near if held.labels[j] == held.labels[i]}
        else:
            full = slow_near(plain, i, plain.x.shape[1], rule, present)
            right = set(sorted(full, key=full.get, reverse=True)[:K])
        values[i] = sum(j in right for j in nearest) / K
    return values


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_both_columns_are_those_of_plain_loops(kind, rule):
    held, turn = rows(kind, weakest=0.2), rotation()
    mapped = HeldOut(held.x @ turn, None if held.pairs is None else held.pairs @ turn, held.labels)
    report = compare_with_truncation(lambda x: x @ turn, held, SIZES, rule)
    assert (report.metric, report.rows) == (held.metric, 60)
    for gain, value in zip(report.gains, report.values, strict=True):
        dim = gain.granularity["dim"]
        ours, theirs = (
            np.mean(list(slow_values(each, held, dim, rule, range(60)).values())) for each in (mapped, held)
        )
        assert value == pytest.approx(ours, abs=1e-12)
        assert gain.value == pytest.approx(ours - theirs, abs=1e-12)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_row_adds_is_what_is_lost_without_it(kind, rule):
    held = rows(kind, n=50, weakest=0.2)
    for dim in (3, 16):
        found = held.answers(dim, rule, held.right(rule))
        for gone in (0, 17, 49):
            left = [i for i in range(50) if i != gone]
            values = slow_values(held, held, dim, rule, left)
            expected = [values[i] - found.values[i] for i in left]
            np.testing.assert_allclose(found.without[left, gone], expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_interval_is_that_of_dyads(kind):
    held, turn = rows(kind), rotation()
    mapped = HeldOut(held.x @ turn, None if held.pairs is None else held.pairs @ turn, held.labels)
    right = held.right(CutRule())
    ours, theirs = (each.answers(8, CutRule(), right) for each in (mapped, held))
    n, values, without = 60, ours.values - theirs.values, ours.without - theirs.without
    added = [values[i] - sum(without[q, i] for q in range(n)) for i in range(n)]
    clusters = sum((each - np.mean(added)) ** 2 for each in added)
    dyads = sum((without[i, j] + without[j, i]) ** 2 for i in range(n) for j in range(i))
    variance = max(clusters - dyads, sum((values - values.mean()) ** 2)) / (n * (n - 1))
    reach = stats.t.ppf(0.975, n - 1 if kind == "pairs" else n / K) * math.sqrt(variance)
    expected = (values.mean(), values.mean() - reach, values.mean() + reach)
    np.testing.assert_allclose(interval(ours, theirs, held.freedom), expected, atol=1e-6)


@pytest.mark.parametrize("n", [60, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_where_no_map_pays_19_of_20_intervals_say_so(kind, n):
    """Among rows without direction every rotation is as good as none."""
    hits = []
    for seed in range(200):
        turn = rotation(seed)
        report = compare_with_truncation(
            lambda x, turn=turn: x @ turn, rows(kind, n, seed), Nesting.parse("dim=5,16"), CutRule()
        )
        hits.append(report.gains[0].low <= 0 <= report.gains[0].high)
    # 0.95 less three standard errors of 200 draws; benchmarks/fit_reports.py draws more of them.
    assert np.mean(hits) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_a_gain_that_is_known_lies_within(kind):
    """The map finds the strong directions that a rotation hid; the true gain is the mean of many draws."""
    turn = rotation(7)
    reports = [
        compare_with_truncation(
            lambda x: x @ turn.T,
            rows(kind, 80, seed, turn, weakest=0.1),
            Nesting.parse("dim=4,16"),
            CutRule(),
        )
        for seed in range(200)
    ]
    gains = [report.gains[0] for report in reports]
    true = np.mean([gain.value for gain in gains])
    assert true > 0.05
    assert np.mean([gain.low <= true <= gain.high for gain in gains]) > 0.9
    assert np.mean([gain.verdict == "better" for gain in gains]) > 0.5


def test_equal_rows_stand_for_each_other():
    """A copy of every row: which of two equal rows is found says nothing of the map."""
    held = rows("vectors", 40)
    twice = HeldOut(np.concatenate([held.x, held.x]))
    report = compare_with_truncation(lambda x: x, twice, SIZES, CutRule())
    assert report.values[-1] == 1
    assert all((gain.value, gain.low, gain.high) == (0, 0, 0) for gain in report.gains)


def test_too_few_rows_or_no_cut_say_nothing():
    for n, sizes in ((FEWEST - 1, SIZES), (FEWEST, Nesting.parse("dim=16"))):
        report = compare_with_truncation(lambda x: x, rows("vectors", n), sizes, CutRule())
        assert report == FitReport()
        assert report.verdict.startswith("Not measured")
