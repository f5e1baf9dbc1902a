"""``nestling search``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestling.arguments.paths import home_path
from nestling.cli.demo import COLLECTION, DEMO_FOLDER
from nestling.cli.flags.completion import models
from nestling.cli.flags.options import AsJson, At, Where
from nestling.cli.flags.registration import home_name
from nestling.cli.index.folder import is_collection, readable
from nestling.cli.terminal.output import one_line, say, show, show_json
from nestling.errors import ConfigError
from nestling.storage.artifact import MANIFEST, read_manifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nestling.search.index.index import AdaptiveIndex
    from nestling.search.index.snapshot.snapshot import Hits


def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INDEX] [QUERY]",
            help="The folder of an index or a collection (by default the demo's), and the query "
            "(- reads it from standard input).",
        ),
    ] = None,
    vectors: Annotated[Path | None, typer.Option(help="A file of query vectors, instead of a query.")] = None,
    k: Annotated[int, typer.Option(min=1, help="Number of results for each query.")] = 10,
    at: At = None,
    point: Annotated[
        str | None, typer.Option(help="Search parameters, such as nprobe=16,shortlist=200.")
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            help="Use the fastest measured search parameters that reach this recall, instead of --point."
        ),
    ] = None,
    where: Where = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="The model that made the vectors, where the index does not name it.",
            callback=home_name,
            autocompletion=models,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search a collection of texts, or an index of vectors.

    A result has a score, an id, and the fields of the row.

    Example: nestling search products "warm winter jacket" --where "year>=2020 and brand in (acme, nord)"
    """
    from nestling.search.plan.point import Point

    given = list(words or [])
    at_point = None if point is None else Point.parse(point)
    asked: dict[str, Any] = {"k": k, "at": at, "point": at_point, "recall": recall, "where": where}
    if vectors is not None:
        if len(given) > 1:
            raise ConfigError("give a query or --vectors, not both")
        if not given:
            raise ConfigError("name the index to search: nestling search INDEX --vectors FILE")
        _show_rows(_search_vectors(home_path(given[0]), vectors, asked), as_json)
        return
    folder = _folder_of(given)
    query = sys.stdin.readline().strip() if given[-1] == "-" else given[-1]
    answers = _search_texts(folder, query, encoder, asked)
    if as_json:
        show_json(answers)
        return
    if not answers:
        say("the index has no rows" if where is None else "no row meets --where")
    for answer in answers:
        _show_answer(answer)


def _folder_of(given: list[str]) -> Path:
    """The folder to search: the word before the query, or the demo's."""
    first = home_path(given[0]) if given else None
    has_folder = first is not None and (first / MANIFEST).is_file()
    if first is None or (has_folder and len(given) == 1):
        raise ConfigError(f'give a query: nestling search {first or "INDEX"} "warm winter jacket"')
    if len(given) > 2:
        words = f'{first} "{" ".join(given[1:])}"' if has_folder else f'"{" ".join(given)}"'
        raise ConfigError(f"put the words of the query in quotes: nestling search {words}")
    folder = first if len(given) == 2 else DEMO_FOLDER / COLLECTION
    if not folder.exists():
        raise ConfigError(
            f"there is no index at {folder}; make one with nestling index build or nestling demo, and name "
            f'it: nestling search INDEX "{given[-1]}"'
        )
    return folder


def _search_texts(
    folder: Path, query: str, encoder: str | None, asked: dict[str, Any]
) -> list[dict[str, Any]]:
    if is_collection(folder):
        from nestling.domains.text.collection import Collection
        from nestling.encoders.text.names import check_model

        if encoder is not None:
            raise ConfigError("leave out --encoder: a collection has its own")
        read_manifest(folder / "index").read_nesting().resolve(asked["at"])
        check_model(folder / "encoder")
        with Collection.open(folder, read_only=True) as collection:
            return [asdict(hit) for hit in collection.search(query, **asked)]
    from nestling.search.index.index import AdaptiveIndex

    with AdaptiveIndex.open(folder, read_only=True) as index:
        vectors = _encode_for(index, query, encoder)
        return _of_rows(index.search(vectors, **asked))[0]


def _encode_for(index: AdaptiveIndex, query: str, encoder: str | None) -> NDArray[np.float32]:
    """The query as the model encodes it that made the vectors of an index."""
    from nestling.encoders.reference import has_digest, name_to_open, with_place
    from nestling.encoders.text.opening import open_encoder

    reference = with_place(index.encoder, index.folder)
    name = name_to_open(reference, encoder)
    if not name:
        raise ConfigError(
            f"{index.folder} does not say what model made its vectors; name it with --encoder, or use "
            "--vectors"
        )
    if index.encoder and not has_digest(reference):
        index.check_encoder(encoder or "")
    made = open_encoder(name)
    full = made.nesting.full["dim"]
    # A cut is right only of vectors that are known to be its own.
    if not index.encoder and full != index.dim:
        raise ConfigError(
            f"{name} makes vectors of {full} dims, but those of {index.folder} have {index.dim}; name the "
            f"model that made them with --encoder, or build the index with --made-by {name} if it did"
        )
    return made.encode([query], index.dim if index.dim in made.nesting.sizes("dim") else None)


def _search_vectors(folder: Path, vectors: Path, asked: dict[str, Any]) -> list[list[dict[str, Any]]]:
    from nestling.encoders.reference import has_digest
    from nestling.vectors.opening import open_vectors

    queries, has_texts = open_vectors(vectors), is_collection(folder)
    with readable(folder) as index:
        if queries.encoder and (has_digest(queries.encoder) or not has_texts):  # a collection says no name
            index.check_encoder(queries.encoder)
        found = _of_rows(index.search(queries.values, **asked))
        text = index.columns.get("text", "text")
    if not has_texts:
        return found
    return [
        [{**each, "text": each["fields"].pop(text), "fields": each["fields"]} for each in row]
        for row in found
    ]


def _of_rows(hits: Hits) -> list[list[dict[str, Any]]]:
    """The results of each query, with their fields where the index has any."""
    return [
        [
            {"id": name, "score": score, **({"fields": fields} if fields else {})}
            for name, score, fields in zip(names, scores, found, strict=True)
            if score == score  # NaN: no row
        ]
        for names, scores, found in zip(hits.ids.tolist(), hits.scores.tolist(), hits.fields, strict=True)
    ]


def _show_rows(answers: list[list[dict[str, Any]]], as_json: bool) -> None:
    if as_json:
        show_json(answers)
        return
    for number, row in enumerate(answers):
        show(f"query {number}")
        for answer in row:
            _show_answer(answer)


def _show_answer(answer: dict[str, Any]) -> None:
    """One result: score and id, then the text, then the other fields."""
    show(f"{answer['score']:.3f}  {one_line(answer['id'])}")
    if "text" in answer:
        show(f"       {one_line(answer['text'])}")
    fields = {name: value for name, value in answer.get("fields", {}).items() if value is not None}
    if fields:
        show("       " + "  ".join(f"{one_line(name)}={one_line(value)}" for name, value in fields.items()))
