"""``nestling index export``: an index copied to a database."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from nestling.cli.flags.options import AsJson, Folder
from nestling.cli.index.folder import readable
from nestling.cli.terminal.output import say, show, show_json


def export(
    folder: Folder,
    to: Annotated[
        str,
        typer.Option(help="A table, such as postgres://host/db/table; secrets come from the environment."),
    ],
    shortlist_dim: Annotated[
        int | None,
        typer.Option(help="Size of the prefix that the database searches before it reranks."),
    ] = None,
    bits: Annotated[
        int, typer.Option(help="Bits of an entry in a new table: 32, or 16 for half precision.")
    ] = 32,
    shortlist_bits: Annotated[
        int | None,
        typer.Option(
            help="Bits of an entry in the first stage: those of --bits, or 1 for Hamming distance.",
            show_default=False,
        ),
    ] = None,
    delete_missing: Annotated[
        bool, typer.Option("--delete-missing", help="Delete rows of the table that are not in the index.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy an index to a database; nothing is encoded again.

    Run it again to copy what has changed, or to resume after an interruption: rows that are already there and
    equal are skipped.

    Example: nestling index export my-index --to lancedb:///data/vectors/items
    """
    from nestling.search.stores.urls import read_url

    read_url(to)
    from nestling.search.stores import export_index

    with readable(folder) as opened:
        done = export_index(
            opened,
            to,
            shortlist_dim=shortlist_dim,
            bits=bits,
            shortlist_bits=shortlist_bits,
            delete_missing=delete_missing,
        )
    say(
        f"{done.added:,} rows added, {done.changed:,} changed, {done.deleted:,} deleted, "
        f"{done.unchanged:,} unchanged; {done.seconds:.1f} s"
    )
    if done.extra:
        say(f"{done.extra:,} rows of the table are not in the index; --delete-missing deletes them")
    show_json({"rows": done.rows, **asdict(done)}) if as_json else show(str(done.rows))
