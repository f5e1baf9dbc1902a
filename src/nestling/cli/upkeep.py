"""``nestling index compact``, ``info``, ``verify``, ``tune`` and ``export``, and ``nestling bench``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nestling.cli.folders import is_collection, readable, show_frontier, show_index, writable
from nestling.cli.options import AsJson, Folder, K, MaxBytes, MaxMs, Queries, Recall, Seed, Source, Wait
from nestling.cli.output import readable_bytes, say, show, show_json
from nestling.cli.results import check_results
from nestling.cli.tables import check_are_vectors, open_queries


def compact(folder: Folder, wait: Wait = 0) -> None:
    """Merge all segments into one, without what was deleted.

    Example: nestling index compact my-index
    """
    with writable(folder, wait=wait) as opened:
        opened.compact()
        show(str(len(opened)))


def info(folder: Folder, as_json: AsJson = False) -> None:
    """Tell what an index holds, how it is searched, and what was measured of it.

    Example: nestling index info my-index
    """
    with readable(folder) as opened:
        show_index(opened, as_json)


def verify(folder: Folder, as_json: AsJson = False) -> None:
    """Read and check every file of an index.

    Example: nestling index verify my-index
    """
    with readable(folder) as opened:
        found = opened.verify()
    for message in found.messages:
        say(message)
    if as_json:
        show_json(asdict(found))
    else:
        show(f"{found.files} files, {readable_bytes(found.size_bytes)}, {found.rows:,} rows: all in order")


def tune(
    folder: Folder,
    recall: Recall = 0.95,
    max_bytes: MaxBytes = None,
    max_ms: MaxMs = None,
    queries: Queries = None,
    k: K = 10,
    seed: Seed = 0,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Measure the plan of an index at many points and keep the table in it, for search --recall.

    Example: nestling index tune my-index --recall 0.99
    """
    from nestling.search.plan.frontier import check_targets
    from nestling.search.tuning.planner import retune

    check_targets(recall)
    asked = open_queries(queries)
    if isinstance(asked, tuple) and is_collection(folder):
        from nestling.encoders.text.opening import open_encoder

        asked = open_encoder(folder / "encoder").encode(list(asked))
    check_are_vectors(asked, queries)
    with writable(folder, wait=wait) as opened:
        chosen, frontier = retune(
            opened, queries=asked, k=k, recall=recall, max_bytes=max_bytes, max_ms=max_ms, seed=seed
        )
    show_frontier(chosen, frontier, k, as_json)


def export(
    folder: Folder,
    to: Annotated[
        str,
        typer.Option(help="A table, such as postgres://host/db/table; secrets come from the environment."),
    ],
    shortlist_dim: Annotated[
        int | None, typer.Option(help="Size of the prefix that the database searches first.")
    ] = None,
    delete_missing: Annotated[
        bool, typer.Option("--delete-missing", help="Delete rows of the table that the index does not have.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy an index to a database, without encoding anything again; repeat it to bring what changed.

    Rows that the table has already are compared and left as they are, so that it also goes on after an
    interruption.

    Example: nestling index export my-index --to lancedb:///data/vectors/items
    """
    from nestling.search.stores.urls import read_url

    read_url(to)
    from nestling.search.stores import export_index

    with readable(folder) as opened:
        done = export_index(opened, to, shortlist_dim=shortlist_dim, delete_missing=delete_missing)
    say(
        f"{done.added:,} rows added, {done.changed:,} changed, {done.deleted:,} deleted, "
        f"{done.unchanged:,} unchanged; {done.seconds:.1f} s"
    )
    if done.extra:
        say(f"{done.extra:,} rows of the table are not in the index; --delete-missing deletes them")
    show_json({"rows": done.rows, **asdict(done)}) if as_json else show(str(done.rows))


def bench(
    source: Source,
    recall: Recall = 0.95,
    max_bytes: MaxBytes = None,
    max_ms: MaxMs = None,
    queries: Queries = None,
    k: K = 10,
    plans: Annotated[
        str | None,
        typer.Option(
            help="Plans to compare, such as 'flat@full; int4@full > rerank@full'; found by default."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder for table and picture.")
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure what plans of an index find, take and cost on your own vectors; nothing is kept.

    Example: nestling bench vectors.npy --recall 0.99 -o report
    """
    check_results(output, "frontier.json", "frontier.png")
    from nestling.search.plan.frontier import check_targets
    from nestling.search.tuning.planner import tune as measure
    from nestling.vectors.stored import open_vectors

    check_targets(recall)
    asked = check_are_vectors(open_queries(queries), queries)

    stored = open_vectors(source)
    chosen, frontier = measure(
        stored.values,
        queries=asked,
        k=k,
        recall=recall,
        max_bytes=max_bytes,
        max_ms=max_ms,
        plans=None if plans is None else [*(text.strip() for text in plans.split(";")), "flat@full"],
        sizes=stored.nesting.sizes("dim"),
        nested=stored.is_nested,
        rule=stored.rule,
        seed=seed,
    )
    if output is not None:
        frontier.save(output / "frontier.json")
        frontier.plot(output / "frontier.png")
        say(f"written to {output}")
    show_frontier(chosen, frontier, k, as_json)
