"""``nestling data``."""

from __future__ import annotations

from dataclasses import asdict

from nestling.cli.flags.options import AsJson
from nestling.cli.terminal.output import show, show_json


def data(as_json: AsJson = False) -> None:
    """List the public data sets that nestling reads.

    For each: its licence, and where it is on this machine or where to put it.

    Example: NESTLING_DATA=my/data nestling data
    """
    from nestling.data import listing

    rows = listing()
    if as_json:
        show_json([asdict(row) for row in rows])
        return
    for row in rows:
        place = "here" if row.here else "not here"
        show(f"{row.name:14} {row.what}\n{'':14} {row.licence}; {place}: {row.place}")
