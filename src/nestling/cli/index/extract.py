"""``nestling index extract``: a smaller index of the leading dims and bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli.flags.options import AsJson, Folder
from nestling.cli.index.folder import is_collection, readable, show_index
from nestling.errors import ConfigError

_KEPT = (
    "What to keep of each vector, such as dim=64, or of an index of codes dim=64,bits=2: the leading 64 "
    "entries, and the leading 2 bits of each. An index of floats has no bits: build one of codes."
)


def extract(
    folder: Folder,
    at: Annotated[str, typer.Option(help=_KEPT)],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder for the smaller index.")],
    as_json: AsJson = False,
) -> None:
    """Copy the leading dims and bits of an index to a smaller one.

    The smaller index takes the same queries.

    Example: nestling index extract my-index --at dim=64 -o small-index
    """
    if is_collection(folder):
        raise ConfigError(f"{folder} holds a collection; use nestling index build --at on its texts")
    with readable(folder) as opened, opened.extract(at, output) as small:
        show_index(small, as_json)
