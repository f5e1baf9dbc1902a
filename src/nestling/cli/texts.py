"""``nestling search`` and ``data``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nestling.cli.demo import COLLECTION, DEMO_FOLDER
from nestling.cli.talk import AsJson, show, show_json
from nestling.errors import ConfigError


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    index: Annotated[Path, typer.Option(help="A saved collection.")] = DEMO_FOLDER / COLLECTION,
    k: Annotated[int, typer.Option(min=1, help="How many answers.")] = 10,
    at: Annotated[str | None, typer.Option(help="A smaller granularity, such as dim=32.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search a collection of texts, exactly.

    Example: nestling search "read a csv into an array"
    """
    from nestling.domains.collection import Collection

    if not index.exists():
        raise ConfigError(f"there is no collection at {index}; make one with: nestling demo")
    hits = Collection.load(index).search(query, k=k, at=at)
    if as_json:
        show_json([{"row": hit.row, "score": hit.score, **asdict(hit.record)} for hit in hits])
        return
    for hit in hits:
        show(f"{hit.score:.3f}  {hit.record.title}\n       {hit.record.text}")


def data(as_json: AsJson = False) -> None:
    """List the data sets that have a reader here, and where they lie on this machine.

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
