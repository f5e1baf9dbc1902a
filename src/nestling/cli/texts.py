"""``nestling search`` and ``data``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nestling.cli.demo import COLLECTION, DEMO_FOLDER
from nestling.cli.talk import AsJson, show, show_json
from nestling.errors import ConfigError

if TYPE_CHECKING:
    from nestling.search.plan import Point


def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[INDEX] [QUERY]", help="A folder to search, and what to look for."),
    ] = None,
    vectors: Annotated[Path | None, typer.Option(help="A file of query vectors, in place of words.")] = None,
    k: Annotated[int, typer.Option(min=1, help="How many answers.")] = 10,
    at: Annotated[str | None, typer.Option(help="A smaller granularity, such as dim=32.")] = None,
    point: Annotated[str | None, typer.Option(help="Parameters, such as nprobe=16,shortlist=200.")] = None,
    recall: Annotated[float | None, typer.Option(help="Take the fastest point measured to reach it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search a collection of texts, or an index of vectors.

    Example: nestling search nestling-demo/collection "read a csv into an array"
    """
    from nestling.search.plan import Point

    given, asked = list(words or []), None if point is None else Point.parse(point)
    if vectors is not None:
        if len(given) != 1:
            raise ConfigError(
                "name the index that the vectors are searched in: nestling search INDEX --vectors FILE"
            )
        _search_vectors(Path(given[0]), vectors, k, at, asked, recall, as_json)
        return
    if not 1 <= len(given) <= 2:
        raise ConfigError('say what to look for: nestling search [INDEX] "some words"')
    folder = Path(given[0]) if len(given) == 2 else DEMO_FOLDER / COLLECTION
    _search_texts(folder, given[-1], k, at, asked, recall, as_json)


def _search_texts(
    folder: Path, query: str, k: int, at: str | None, point: Point | None, recall: float | None, as_json: bool
) -> None:
    from nestling.domains.collection import Collection

    if not folder.exists():
        raise ConfigError(f"there is no collection at {folder}; make one with: nestling demo")
    with Collection.open(folder, read_only=True) as collection:
        hits = collection.search(query, k=k, at=at, point=point, recall=recall)
    if as_json:
        show_json([{"id": hit.id, "score": hit.score, **asdict(hit.record)} for hit in hits])
        return
    for hit in hits:
        show(f"{hit.score:.3f}  {hit.record.title}\n       {hit.record.text}")


def _search_vectors(
    folder: Path,
    vectors: Path,
    k: int,
    at: str | None,
    point: Point | None,
    recall: float | None,
    as_json: bool,
) -> None:
    from nestling.encoders.stored import open_vectors
    from nestling.search.index import AdaptiveIndex

    queries = open_vectors(vectors)
    with AdaptiveIndex.open(folder, encoder=queries.encoder or None, read_only=True) as index:
        found = index.search(queries.values, k, at=at, point=point, recall=recall)
    answers = [
        [(name, score) for name, score in zip(ids, scores, strict=True) if score == score]  # NaN: no row
        for ids, scores in zip(found.ids.tolist(), found.scores.tolist(), strict=True)
    ]
    if as_json:
        show_json([[{"id": name, "score": score} for name, score in row] for row in answers])
        return
    for row in answers:
        show("\t".join(f"{name} {score:.4f}" for name, score in row))


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
