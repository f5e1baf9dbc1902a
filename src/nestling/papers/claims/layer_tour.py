"""How the tours of 2DMSE and Starbucks are run: their studies, and what was measured before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nestling.measure.machine import versions
from nestling.papers.claims.checks import Checks, Tour, measure_checks
from nestling.papers.claims.layer_search import SearchStudy
from nestling.papers.claims.layer_study import Method, Study
from nestling.papers.claims.notes import Notes
from nestling.papers.claims.report import Claim


def run_checks(
    name: str,
    checks: Checks[Any],
    not_tested: Mapping[str, str],
    tour: Tour,
    searched: Mapping[str, Sequence[Method]],
) -> tuple[list[Claim], dict[str, object]]:
    """Measure what is asked of a tour; also the learning rates that were picked.

    Args:
        name: of the tour, and of the file where an interrupted one is noted.
        checks: of all its claims, on a :class:`Study` (``"sts"``) or a :class:`SearchStudy` (``"search"``).
        not_tested: why some claims are not.
        tour: what is asked.
        searched: the methods of the first that are measured in retrieval, by the claim that does so.
    """
    path = None if tour.folder is None else tour.folder / f"{name}.interrupted.json"
    names = {each.name for claim, methods in searched.items() if claim in tour.claims for each in methods}
    notes = Notes(path, {"tour": name, "quick": tour.quick, "searched": sorted(names), **versions()})
    studies: dict[str, Study | SearchStudy] = {
        "sts": Study(tour, notes, names),
        "search": SearchStudy(tour, notes),
    }
    measured = measure_checks(tour.checks(checks), studies, tour.seeds)
    notes.remove()
    rates = {name: rate for study in studies.values() for name, rate in study.tuned.rates.items()}
    return [*measured, *tour.untested(not_tested)], {"learning rates": rates}
