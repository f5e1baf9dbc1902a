"""``nestling bench``: search plans measured on vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli.flags.generated import with_groups
from nestling.cli.flags.options import AsJson, Source
from nestling.cli.flags.tables import check_are_vectors, open_queries
from nestling.cli.flags.targets import Targets
from nestling.cli.index.folder import show_frontier
from nestling.cli.terminal.output import check_results, say


@with_groups
def bench(
    source: Source,
    targets: Targets,
    plans: Annotated[
        str | None,
        typer.Option(
            help="Plans to compare, such as 'flat@full; int4@full > rerank@full'; by default the usual ones."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder for the table and the picture.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure recall, latency and memory of search plans.

    They are built over your own vectors and discarded afterwards.

    Example: nestling bench vectors.npy --recall 0.99 -o report
    """
    check_results(output, "frontier.json", "frontier.png")
    from nestling.search.tuning.planner import tune as measure
    from nestling.vectors.opening import open_vectors

    targets.check()
    asked = check_are_vectors(open_queries(targets.queries), targets.queries)

    stored = open_vectors(source)
    chosen, frontier = measure(
        stored.values,
        queries=asked,
        plans=None if plans is None else [*(text.strip() for text in plans.split(";")), "flat@full"],
        sizes=stored.nesting.sizes("dim"),
        nested=stored.is_nested,
        rule=stored.rule,
        **targets.limits,
    )
    if output is not None:
        frontier.save(output / "frontier.json")
        frontier.plot(output / "frontier.png")
        say(f"written to {output}")
    show_frontier(chosen, frontier, targets.k, as_json)
