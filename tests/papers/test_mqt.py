"""The tour of MQT: a quick run, and the claims that are exact."""

from __future__ import annotations

from pathlib import Path

from nestling.papers import CLAIMS, mqt, reproduce
from nestling.papers.claims.checks import Tour
from nestling.papers.claims.mosaic_study import Study
from nestling.papers.mqt import alone, cost_is_as_published, released_keys_are_static, tokens_are_prefixes
from nestling.storage.resumable import ResumableValues


def test_the_claims_are_those_of_the_catalogue() -> None:
    assert CLAIMS["mqt"] == mqt.CLAIMS


def test_a_quick_tour_measures_models_and_choices_of_tokens(generated: Path, tmp_path: Path) -> None:
    report = reproduce("mqt", quick=True, seeds=2, output=tmp_path / "out", claims=["MQT-2", "MQT-5"])
    assert [claim.id for claim in report.claims] == ["MQT-2", "MQT-5"]
    assert set(report.claims[1].figures) == {
        f"{name}, {method}" for name in ("first", "last", "random") for method in ("MQT", "alone at 21")
    }
    assert (tmp_path / "out" / "mqt.md").exists()


def test_exact_claims_hold(generated: Path) -> None:
    tour = Tour(("MQT-1", "MQT-6", "MQT-7"), 2, quick=True)
    study = Study(tour, ResumableValues(None, {}), {False: alone(21)})
    for check in (tokens_are_prefixes, released_keys_are_static, cost_is_as_published):
        clearance, figures = check(study, 0)
        assert clearance >= 0, figures


def test_first_tokens_are_those_of_fewer(generated: Path) -> None:
    """Choosing the first five of all is asking for five."""
    study = Study(Tour((), 2, quick=True), ResumableValues(None, {}), {False: alone(21)})
    model, answers = study.untrained(mqt.mqt(), 0), study.questions("test").answers
    chances = study.probabilities(model, "test", (5,))[5]
    right = 100 * float((chances.argmax(axis=1) == answers).mean())
    assert study.chosen(model, tuple(range(5))) == right
