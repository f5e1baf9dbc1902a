"""``nestling index info`` and ``verify``: the contents of an index, and whether its files are intact."""

from __future__ import annotations

from dataclasses import asdict

from nestling.cli.flags.options import AsJson, Folder
from nestling.cli.index.folder import readable, show_index
from nestling.cli.terminal.output import readable_bytes, say, show, show_json


def info(folder: Folder, as_json: AsJson = False) -> None:
    """Show the contents of an index, its plan and its measurements.

    Example: nestling index info my-index
    """
    with readable(folder) as opened:
        show_index(opened, as_json)


def verify(folder: Folder, as_json: AsJson = False) -> None:
    """Verify every file of an index.

    Example: nestling index verify my-index
    """
    with readable(folder) as opened:
        found = opened.verify()
    for message in found.messages:
        say(message)
    if as_json:
        show_json(asdict(found))
    else:
        show(f"{found.files} files, {readable_bytes(found.size_bytes)}, {found.rows:,} rows: no damage found")
