"""Flags for the plan of an index: the targets that it must reach, and how it is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

PANEL = "Search plan"


@dataclass(frozen=True)
class Targets:
    """Targets of a plan, and the queries that it is measured with."""

    recall: Annotated[
        float,
        typer.Option(
            help="Recall to reach: the fraction of the exact nearest neighbours that is found.",
            rich_help_panel=PANEL,
        ),
    ] = 0.95
    max_bytes: Annotated[
        float | None,
        typer.Option(help="The most bytes of memory for each vector.", rich_help_panel=PANEL),
    ] = None
    max_ms: Annotated[
        float | None,
        typer.Option(help="The longest median latency of one query, in milliseconds.", rich_help_panel=PANEL),
    ] = None
    queries: Annotated[
        Path | None,
        typer.Option(
            help="Held-out queries to measure with, as vectors or texts; by default rows of the data.",
            rich_help_panel=PANEL,
        ),
    ] = None
    k: Annotated[
        int,
        typer.Option(
            min=1,
            help="Neighbours to find for each query; all, where there are fewer.",
            rich_help_panel=PANEL,
        ),
    ] = 10
    seed: Annotated[
        int,
        typer.Option(min=0, help="Seed of samples, queries and builds.", rich_help_panel=PANEL),
    ] = 0

    def check(self) -> None:
        """Refuse a recall that no plan can reach, before anything is read."""
        from nestling.search.plan.frontier import check_targets

        check_targets(self.recall)

    @property
    def limits(self) -> dict[str, Any]:
        """The arguments of :func:`~nestling.search.tuning.planner.build`, without the queries."""
        names = ("recall", "max_bytes", "max_ms", "k", "seed")
        return {name: getattr(self, name) for name in names}
