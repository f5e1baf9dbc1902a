"""The frame of all papers: intervals, verdicts, and what is written."""

from __future__ import annotations

import json
from importlib import import_module

import numpy as np
import pytest
from scipy import stats

from nestling.errors import ConfigError, DataError
from nestling.papers import CLAIMS, PAPERS, Claim, Report, machine_stamp, reproduce
from nestling.papers.claims.report import t_interval


def make_report() -> Report:
    holding = Claim.measured(
        "C1", "prefixes are good", [(2.0, {"gap": 3.0}), (2.2, {"gap": 4.0})], data="digits"
    )
    failing = Claim.measured(
        "C2", "and cheap", [(-1.0, {"share": 0.5}), (-1.1, {"share": 0.25})], data="digits"
    )
    untested = Claim.not_tested("C3", "needs a larger machine")
    settings = {"seeds": 2, "learning rates": {"digits": {"MRL": 0.01}}}
    return Report("mrl", "A paper", (holding, failing, untested), settings, machine_stamp())


@pytest.mark.parametrize("count", [2, 3, 10])
def test_interval_is_students(count):
    values = np.random.default_rng(count).normal(size=count)
    expected = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose(t_interval(values), expected, rtol=1e-12)


def test_one_seed_gives_no_interval():
    with pytest.raises(DataError, match="at least 2 seeds, not 1"):
        t_interval([1.0])


def test_claim_holds_only_if_the_whole_interval_clears_the_margin():
    assert [claim.verdict for claim in make_report().claims] == ["holds", "does not hold", "not tested"]
    # The mean is on the right side, the interval reaches to the wrong one.
    undecided = Claim.measured("C1", "s", [(0.1, {}), (0.5, {})], data="d")
    assert undecided.holds is False
    assert undecided.verdict == "does not hold (interval spans the margin)"


def test_figures_are_means_over_seeds():
    assert make_report().claims[0].figures == {"gap": 3.5}
    assert make_report().claims[0].seeds == 2


def test_saved_report_says_what_was_measured_and_where(tmp_path):
    report = make_report()
    report.save(tmp_path / "results")
    saved = json.loads((tmp_path / "results" / "mrl.json").read_text(encoding="utf-8"))
    assert [claim["holds"] for claim in saved["claims"]] == [True, False, None]
    assert saved["claims"][0]["interval"] == pytest.approx(report.claims[0].interval)
    assert saved["settings"]["learning rates"] == {"digits": {"MRL": 0.01}}
    assert {"processor", "versions", "date"} == set(saved["machine"])
    assert {"python", "numpy", "nestling"} <= set(saved["machine"]["versions"])
    table = (tmp_path / "results" / "mrl.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("| C")]
    assert [row.count("|") for row in rows] == [6, 6, 6]
    assert "does not hold" in rows[1]
    assert "share 0.375" in rows[1]
    assert "MRL 0.01" in table


def test_table_shows_every_claim():
    text = make_report().table()
    for part in ("C1 HOLDS (digits, 2 seeds", "C2 DOES NOT HOLD", "C3 NOT TESTED", "needs a larger machine"):
        assert part in text


def test_unknown_names_list_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'mrl'"):
        reproduce("mlr")
    with pytest.raises(ConfigError, match=r"unknown claim of mrl 'C99'"):
        reproduce("mrl", claims=["C1", "C99"])
    with pytest.raises(ConfigError, match="at least 2"):
        reproduce("mrl", seeds=1)
    with pytest.raises(ConfigError, match="no claims"):
        reproduce("mrl", claims=[])
    assert set(PAPERS) == {"mrl", "adanns", "2dmse", "starbucks", "trsa", "bits", "m3", "mqt", "llama-mtsk"}
    for name, module in PAPERS.items():
        assert sorted(CLAIMS[name]) == sorted(import_module(module).CLAIMS), name
