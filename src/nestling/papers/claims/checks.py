"""How a tour is run: each claim in words, the problems it is measured on, and one figure a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from nestling.papers.claims.report import Claim
from nestling.process.progress import Progress


@dataclass(frozen=True)
class Tour:
    """What is asked of a tour.

    Args:
        claims: those that are measured, in the order of the paper.
        seeds: how many.
        quick: few samples and steps, to see that everything runs.
        folder: where long tours keep what they have measured until they are done; None keeps nothing.
    """

    claims: Sequence[str]
    seeds: int
    quick: bool
    folder: Path | None = None

    def checks(self, every: Sequence[Check[Problem]]) -> list[Check[Problem]]:
        """Those of the claims that are measured."""
        return [check for check in every if check.id in self.claims]

    def untested(self, reasons: Mapping[str, str]) -> list[Claim]:
        """Those of the claims that are not, by the reasons."""
        return [Claim.not_tested(name, reasons[name]) for name in self.claims if name in reasons]


Run = tuple[float, dict[str, float]]
"""Clearance - how far the tightest figure lies on the right side of its margin - and all figures."""


class Named(Protocol):
    """Anything that claims are measured on, or that figures are noted of."""

    @property
    def name(self) -> str:
        """What it is called in the report."""
        ...


Problem = TypeVar("Problem", bound=Named)


@dataclass(frozen=True)
class Check(Generic[Problem]):
    """A claim in words, how one seed of it is measured, and on which problems."""

    id: str
    statement: str
    measure: Callable[[Problem, int], Run]
    on: tuple[str, ...]


class Checks(list[Check[Problem]]):
    """The checks of a tour in its order, each written above the function that measures it."""

    def claim(
        self,
        name: str,
        statement: str,
        on: Sequence[str],
    ) -> Callable[[Callable[[Problem, int], Run]], Callable[[Problem, int], Run]]:
        """Take the function below as what measures a claim on some problems."""

        def take(measure: Callable[[Problem, int], Run]) -> Callable[[Problem, int], Run]:
            self.append(Check(name, statement, measure, tuple(on)))
            return measure

        return take


def measure_checks(
    checks: Sequence[Check[Problem]],
    problems: Mapping[str, Problem],
    seeds: int,
    absent: Mapping[str, str] | None = None,
) -> list[Claim]:
    """Measure every check on each of its problems.

    Args:
        checks: in the order of the report.
        problems: by key.
        seeds: how many.
        absent: why a problem is not at hand, by key; what it is asked for counts as not tested.
    """
    absent = absent or {}
    wanted = [(check, key) for check in checks for key in check.on]
    claims = []
    with Progress("measuring claims", len(wanted) * seeds, "runs") as progress:
        for check, key in wanted:
            if key in absent:
                claims.append(Claim.not_tested(check.id, f"{check.statement}: {absent[key]}"))
                progress.update(seeds)
                continue
            runs = []
            for seed in range(seeds):
                progress.note(f"{check.id} on {key}, seed {seed}")
                runs.append(check.measure(problems[key], seed))
                progress.update()
            claims.append(Claim.measured(check.id, check.statement, runs, data=problems[key].name))
    return claims
