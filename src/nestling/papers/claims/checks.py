"""Claims and how they are measured: a statement, the problems it is about, one run for each seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from nestling.papers.claims.report import Claim
from nestling.process.progress import Progress


@dataclass(frozen=True)
class Tour:
    """The claims and problems to measure in a tour.

    Args:
        claims: ids of the claims to measure, in the order of the paper.
        seeds: number of seeds.
        quick: few samples and steps, to see that everything runs.
        folder: folder for the figures of a long tour until it is done; None keeps them in memory only.
    """

    claims: Sequence[str]
    seeds: int
    quick: bool
    folder: Path | None = None

    def checks(self, every: Sequence[Check[Problem]]) -> list[Check[Problem]]:
        """The checks of the wanted claims."""
        return [check for check in every if check.id in self.claims]

    def untested(self, reasons: Mapping[str, str]) -> list[Claim]:
        """The wanted claims that cannot be tested here, each with its reason."""
        return [Claim.not_tested(name, reasons[name]) for name in self.claims if name in reasons]


Run = tuple[float, dict[str, float]]
"""The clearance (how far the tightest figure lies on the right side of its margin), and all figures."""


class Named(Protocol):
    """A problem or a method with a name for the report."""

    @property
    def name(self) -> str:
        """Its name in the report."""
        ...


Problem = TypeVar("Problem", bound=Named)


@dataclass(frozen=True)
class Check(Generic[Problem]):
    """A claim: its statement, the function that measures one seed, and the keys of its problems."""

    id: str
    statement: str
    measure: Callable[[Problem, int], Run]
    on: tuple[str, ...]


class Checks(list[Check[Problem]]):
    """The checks of a tour, in the order in which their functions are written."""

    def claim(
        self,
        name: str,
        statement: str,
        on: Sequence[str],
    ) -> Callable[[Callable[[Problem, int], Run]], Callable[[Problem, int], Run]]:
        """Decorate the function that measures a claim on some problems."""

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
        seeds: number of seeds.
        absent: reason that a problem is missing, by key; its claims count as not tested.
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
