"""``nestling index`` and ``bench``: indexes of vectors and collections of texts, on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from nestling.cli.results import check_results
from nestling.cli.talk import AsJson, Wait, readable_bytes, say, show, show_json
from nestling.errors import ConfigError, DataError

if TYPE_CHECKING:
    from nestling.cut import After, Before, CutRule
    from nestling.search.exact import Metric
    from nestling.search.frontier import Frontier, Trial
    from nestling.search.index import AdaptiveIndex

index = typer.Typer(name="index", help="Build, change and check an index on the disk.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The folder of the index.")]
_VECTORS = "Vectors (.npy, .fvecs, .parquet, a folder)"
Source = Annotated[Path, typer.Argument(help=f"{_VECTORS}.")]
SourceOrTexts = Annotated[Path, typer.Argument(help=f"{_VECTORS} or, with --encoder, texts.")]
More = Annotated[Path, typer.Argument(help=f"{_VECTORS}, or texts for a collection.")]
Recall = Annotated[float, typer.Option(help="Share of the exact nearest that is to be found.")]
MaxBytes = Annotated[float | None, typer.Option(help="In memory for each vector.")]
MaxMs = Annotated[float | None, typer.Option(help="Median latency of a query.")]
Queries = Annotated[Path | None, typer.Option(help="Vectors to plan with, held out; else rows of the data.")]
K = Annotated[int, typer.Option(min=1, help="Neighbours wanted.")]
Seed = Annotated[int, typer.Option(min=0)]


@index.command("build")
def build(
    source: SourceOrTexts,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    encoder: Annotated[
        str | None, typer.Option(help="Encode texts: wordllama, minilm, a folder, a name.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="The column of texts or vectors.")] = None,
    at: Annotated[
        str | None, typer.Option(help="Granularity of the texts' vectors, such as dim=128.")
    ] = None,
    nesting: Annotated[str | None, typer.Option(help="Sizes to search at, such as dim=32,64,256.")] = None,
    metric: Annotated[str, typer.Option(help="dot (of unit vectors: the cosine) or euclidean.")] = "dot",
    made_by: Annotated[str | None, typer.Option(help="What made the vectors: the name of a model.")] = None,
    before: Annotated[
        str | None, typer.Option(help="Done to vectors before a cut: none (without this flag) or layer_norm.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Done to vectors after a cut: l2 (without this flag) or none.")
    ] = None,
    plan: Annotated[
        str | None, typer.Option(help="Such as 'int4@full > rerank@full'; else measured.")
    ] = None,
    recall: Recall = 0.95,
    max_bytes: MaxBytes = None,
    max_ms: MaxMs = None,
    queries: Queries = None,
    k: K = 10,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Build an index: the fastest plan that finds enough, chosen by measuring.

    Texts that were encoded when the command was interrupted are not encoded again when it is repeated.

    Example: nestling index build vectors.npy -o my-index --recall 0.95
    """
    if encoder is not None:
        if (made_by, before, after) != (None, None, None):
            raise ConfigError(
                "--made-by, --before and --after are for vectors; texts get theirs from --encoder"
            )
        from nestling.data import TextFile
        from nestling.domains.collection import Collection
        from nestling.domains.records import Untitled
        from nestling.encoders.opening import open_encoder

        texts, model = Untitled(TextFile(source, column)), open_encoder(encoder)
        with Collection.create(output, model, texts, at=at, plan=plan, recall=recall, seed=seed) as made:
            _show_index(made.index, as_json)
        return
    if at is not None:
        raise ConfigError(
            "--at is for texts; vectors are cut with --nesting, such as --nesting dim=32,64,128"
        )
    from nestling.encoders.stored import open_vectors
    from nestling.search.tune import build as build_index

    stored = open_vectors(source, nesting, _rule(before, after), encoder=made_by, column=column)
    asked = None if queries is None else open_vectors(queries).values
    with build_index(
        output,
        stored,
        plan=plan,
        recall=recall,
        max_bytes=max_bytes,
        max_ms=max_ms,
        queries=asked,
        k=k,
        nesting=nesting,
        metric=cast("Metric", metric),
        seed=seed,
    ) as made_index:
        _show_index(made_index, as_json)


@index.command("add")
def add(folder: Folder, source: More, wait: Wait = 0, as_json: AsJson = False) -> None:
    """Add vectors, or texts to a collection; they are on the disk when this returns.

    Example: nestling index add my-index more.npy
    """
    ids: Sequence[Any]
    if _is_collection(folder):
        from nestling.data import read_texts
        from nestling.domains.collection import Collection
        from nestling.domains.records import Record

        with Collection.open(folder, wait=wait) as texts:
            ids, rows = texts.add(list(map(Record.untitled, read_texts(source)))), len(texts)
    else:
        from nestling.encoders.stored import open_vectors

        stored = open_vectors(source)
        with _writable(folder, wait, stored.encoder) as vectors:
            ids, rows = vectors.add(stored.values, stored.ids).tolist(), len(vectors)
    say(f"{len(ids):,} added; {rows:,} in all")
    show_json({"added": len(ids), "rows": rows}) if as_json else show(str(rows))


@index.command("delete")
def delete(
    folder: Folder,
    ids: Annotated[list[str], typer.Argument(help="Of the rows to delete.")],
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Delete those that there are, and no error for others.")
    ] = False,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Delete rows by their ids.

    Example: nestling index delete my-index 17 23
    """
    if _is_collection(folder):
        from nestling.domains.collection import Collection

        with Collection.open(folder, wait=wait) as texts:
            count, rows = texts.delete(list(map(_number, ids)), missing_ok=missing_ok), len(texts)
    else:
        with _writable(folder, wait) as vectors:
            names = [_number(name) for name in ids] if vectors.info().id_kind == "int" else ids
            count, rows = vectors.delete(names, missing_ok=missing_ok), len(vectors)
    say(f"{count:,} deleted; {rows:,} left")
    show_json({"deleted": count, "rows": rows}) if as_json else show(str(rows))


@index.command("compact")
def compact(folder: Folder, wait: Wait = 0) -> None:
    """Merge all segments into one, without what was deleted.

    Example: nestling index compact my-index
    """
    with _writable(folder, wait) as opened:
        opened.compact()
        show(str(len(opened)))


@index.command("info")
def info(folder: Folder, as_json: AsJson = False) -> None:
    """Tell what an index holds, how it is searched, and what was measured of it.

    Example: nestling index info my-index
    """
    with _readable(folder) as opened:
        _show_index(opened, as_json)


@index.command("verify")
def verify(folder: Folder, as_json: AsJson = False) -> None:
    """Read and check every file of an index.

    Example: nestling index verify my-index
    """
    with _readable(folder) as opened:
        found = opened.verify()
    for message in found.messages:
        say(message)
    if as_json:
        show_json(asdict(found))
    else:
        show(f"{found.files} files, {readable_bytes(found.size_bytes)}, {found.rows:,} rows: all in order")


@index.command("tune")
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
    from nestling.encoders.stored import open_vectors
    from nestling.search.tune import retune

    asked = None if queries is None else open_vectors(queries).values
    with _writable(folder, wait) as opened:
        chosen, frontier = retune(
            opened, queries=asked, k=k, recall=recall, max_bytes=max_bytes, max_ms=max_ms, seed=seed
        )
    _show_frontier(chosen, frontier, as_json)


@index.command("export")
def export(
    folder: Folder,
    to: Annotated[
        str, typer.Option(help="Such as postgres://host/db/table; secrets come from the environment.")
    ],
    shortlist_dim: Annotated[
        int | None, typer.Option(help="Prefix that the database searches first.")
    ] = None,
) -> None:
    """Copy an index to a database, without encoding anything again.

    Example: nestling index export my-index --to lancedb:///data/vectors/items
    """
    from nestling.search.stores import export_index

    with _readable(folder) as opened:
        show(str(export_index(opened, to, shortlist_dim=shortlist_dim)))


def bench(
    source: Source,
    recall: Recall = 0.95,
    max_bytes: MaxBytes = None,
    max_ms: MaxMs = None,
    queries: Queries = None,
    k: K = 10,
    plans: Annotated[
        str | None, typer.Option(help="Plans to compare (all of them), with semicolons between.")
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
    from nestling.encoders.stored import open_vectors
    from nestling.search.tune import tune as measure

    stored = open_vectors(source)
    chosen, frontier = measure(
        stored.values,
        queries=None if queries is None else open_vectors(queries).values,
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
    _show_frontier(chosen, frontier, as_json)


def _rule(before: str | None, after: str | None) -> CutRule | None:
    """The cut rule of two flags; None, where neither is given, leaves it to the vectors."""
    if before is None and after is None:
        return None
    from nestling.cut import CutRule

    return CutRule(cast("Before", before or "none"), cast("After", after or "l2"))


def _is_collection(folder: Path) -> bool:
    from nestling.artifact import read_manifest

    return read_manifest(folder).kind == "collection"


def _writable(folder: Path, wait: float, encoder: str = "") -> AdaptiveIndex:
    """An index for vectors of an encoder, where that is known."""
    from nestling.search.index import AdaptiveIndex

    return AdaptiveIndex.open(_vectors_of(folder), encoder=encoder or None, wait=wait)


def _readable(folder: Path) -> AdaptiveIndex:
    from nestling.search.index import AdaptiveIndex

    return AdaptiveIndex.open(_vectors_of(folder), read_only=True)


def _vectors_of(folder: Path) -> Path:
    return folder / "index" if _is_collection(folder) else folder


def _number(name: str) -> int:
    try:
        return int(name)
    except ValueError as error:
        raise DataError(f"the ids of this index are numbers, not {name!r}") from error


def _show_index(opened: AdaptiveIndex, as_json: bool) -> None:
    found = opened.info()
    if as_json:
        show_json(found.to_json())
        return
    show(f"{found.rows:,} vectors of {found.dim} dims, {readable_bytes(found.size_bytes)}: {found.plan}")
    show(f"searched at {found.nesting}, with {readable_bytes(found.kept_bytes)} kept in memory")
    show(f"{len(found.segments)} segments, {found.in_memory:,} rows in no segment yet")
    if found.reason:
        show(f"the plan is {found.reason}")
    for row in found.table:
        mark = "*" if row["point"] == found.default_point else " "
        show(f"{mark} recall {row['recall']:.4f} in {row['latency_ms']:.3g} ms {row['point']}".rstrip())


def _show_frontier(chosen: Trial, frontier: Frontier, as_json: bool) -> None:
    if as_json:
        show_json({"chosen": chosen.to_json(), "trials": [trial.to_json() for trial in frontier]})
        return
    show(frontier.table())
    show(f"\nChosen: {chosen.plan} {chosen.point}".rstrip())
