"""``nestling index build``, ``add``, ``update`` and ``delete``: the rows of an index on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from nestling.cli.folders import is_collection, show_index, writable
from nestling.cli.options import (
    VECTORS,
    AsJson,
    At,
    Folder,
    K,
    MaxBytes,
    MaxMs,
    Queries,
    Recall,
    Seed,
    Wait,
    Where,
)
from nestling.cli.output import say, show, show_json
from nestling.cli.tables import (
    Column,
    Fields,
    IdColumn,
    TableOption,
    check_are_vectors,
    cut_rule,
    is_table,
    open_queries,
    open_rows,
    open_table,
    read_names,
    table_like,
)
from nestling.cli.upkeep import compact, export, info, tune, verify
from nestling.errors import ConfigError

if TYPE_CHECKING:
    from nestling.data.tables.description import TableFile
    from nestling.domains.text.collection import Collection
    from nestling.search.exact.neighbours import Metric
    from nestling.search.index.index import AdaptiveIndex

index = typer.Typer(name="index", help="Build, change and check an index on the disk.", no_args_is_help=True)

SourceOrTexts = Annotated[
    Path, typer.Argument(metavar="SOURCE", help=f"{VECTORS} or, with --encoder, a table of texts.")
]
More = Annotated[Path, typer.Argument(metavar="SOURCE", help=f"{VECTORS}, or texts for a collection.")]


@index.command("build")
def build(
    source: SourceOrTexts,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    encoder: Annotated[
        str | None,
        typer.Option(help="A model that encodes texts: wordllama, minilm, a folder, or a name on the hub."),
    ] = None,
    column: Column = None,
    id_column: IdColumn = None,
    fields: Fields = None,
    table: TableOption = None,
    at: At = None,
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
        str | None,
        typer.Option(help="How it is searched, such as 'int4@full > rerank@full'; measured by default."),
    ] = None,
    recall: Recall = 0.95,
    max_bytes: MaxBytes = None,
    max_ms: MaxMs = None,
    queries: Queries = None,
    k: K = 10,
    seed: Seed = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="With --encoder, replace a collection that exists.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build an index: the fastest plan that finds enough, chosen by measuring.

    The ids and the other columns of a table are kept: answers carry them, and searches filter by them. Texts
    that were encoded when the command was interrupted are not encoded again when it is repeated.

    Example: nestling index build products.csv --encoder wordllama --column title --id-column sku -o products
    """
    targets: dict[str, Any] = {
        "recall": recall,
        "max_bytes": max_bytes,
        "max_ms": max_ms,
        "k": k,
        "seed": seed,
    }
    _check_targets(plan, recall)
    if encoder is not None:
        if (made_by, before, after, table) != (None, None, None, None):
            raise ConfigError(
                "--made-by, --before, --after and --table are for vectors; texts get theirs from --encoder"
            )
        if (metric, nesting) != ("dot", None):
            raise ConfigError("--metric and --nesting are for vectors; of texts they are those of --encoder")
        how = {"plan": plan, "queries": open_queries(queries), **targets}
        described = open_table(source, column, id_column, fields)
        from nestling.domains.text.collection import Collection, check_target
        from nestling.encoders.text.opening import check_model, open_encoder

        check_target(output, overwrite=overwrite)
        check_model(encoder, at)
        model = open_encoder(encoder)
        with Collection.create(output, model, described, at=at, overwrite=overwrite, **how) as made:
            show_index(made.index, as_json)
        return
    if at is not None:
        raise ConfigError(
            "--at is for texts; vectors are cut with --nesting, such as --nesting dim=32,64,128"
        )
    if is_table(source):
        raise ConfigError(
            f"{source} holds no vectors; to encode the texts of a table: nestling index build {source} "
            f"--encoder wordllama -o {output}; or give the vectors of its rows, and the table beside them: "
            f"nestling index build vectors.npy --table {source} -o {output}"
        )
    if overwrite:
        raise ConfigError("--overwrite is for collections, made with --encoder; give an index a new folder")
    from nestling.search.tuning.planner import build as build_index

    asked = check_are_vectors(open_queries(queries), queries)
    stored = open_rows(
        source,
        column=column,
        id_column=id_column,
        fields=fields,
        table=table,
        nesting=nesting,
        rule=cut_rule(before, after),
        encoder=made_by,
    )
    with build_index(
        output, stored, plan=plan, queries=asked, nesting=nesting, metric=cast("Metric", metric), **targets
    ) as made_index:
        show_index(made_index, as_json)


def _check_targets(plan: str | None, recall: float) -> None:
    """Refuse a plan that is none, and a recall that is no share, before anything is read."""
    from nestling.search.plan.frontier import check_targets
    from nestling.search.plan.plan import Plan

    check_targets(recall)
    if plan is not None:
        Plan.parse(plan)


@index.command("add")
def add(
    folder: Folder, source: More, table: TableOption = None, wait: Wait = 0, as_json: AsJson = False
) -> None:
    """Add vectors, or texts to a collection; they are on the disk when this returns.

    Their columns are those of the table that the index was built from.

    Example: nestling index add products more.csv
    """
    _put(folder, source, table, wait, as_json, replaces=False)


@index.command("update")
def update(
    folder: Folder, source: More, table: TableOption = None, wait: Wait = 0, as_json: AsJson = False
) -> None:
    """Replace rows by their ids, and add those that are new; they are on the disk when this returns.

    Columns that the table does not have are kept.

    Example: nestling index update products changed.csv
    """
    _put(folder, source, table, wait, as_json, replaces=True)


def _put(
    folder: Path, source: Path, table: Path | None, wait: float, as_json: bool, *, replaces: bool
) -> None:
    if is_collection(folder):
        if table is not None:
            raise ConfigError("--table is for vectors; a collection takes one table with the texts in it")
        from nestling.domains.text.collection import Collection

        with Collection.open(folder, wait=wait) as texts:
            before, kinds, rows = len(texts), texts.index.fields, _put_texts(texts, source, replaces)
            after, later = len(texts), texts.index.fields
    else:
        with writable(folder, wait=wait) as vectors:
            before, kinds, rows = len(vectors), vectors.fields, _put_vectors(vectors, source, table, replaces)
            after, later = len(vectors), vectors.fields
    if wider := [name for name, kind in kinds.items() if later[name] != kind]:
        say(f"{', '.join(wider)} held whole numbers, and holds floats from now on")
    added = after - before
    say(f"{added:,} added, {rows - added:,} replaced; {after:,} in all")
    answer = {"added": added, "replaced": rows - added, "rows": after}
    show_json(answer) if as_json else show(str(after))


def _put_texts(texts: Collection, source: Path, replaces: bool) -> int:
    """Add or replace texts; a table without them changes fields alone. How many rows it has."""
    rows = table_like(source, texts.index, has_texts=True, replaces=replaces)
    if rows.text is None:
        return _put_fields(texts.index, rows)
    put = texts.update if replaces else texts.add
    return len(put(rows))


def _put_vectors(vectors: AdaptiveIndex, source: Path, table: Path | None, replaces: bool) -> int:
    """Add or replace vectors; a table alone changes fields. How many rows it has."""
    from nestling.vectors.stored import open_vectors

    if replaces and table is None and is_table(source):
        return _put_fields(vectors, table_like(source, vectors, has_texts=False, replaces=True))
    # Of a table beside the vectors, the columns are not those of their file.
    columns = {} if table else vectors.columns
    stored = open_vectors(source, column=columns.get("vector"), id_column=columns.get("id"))
    vectors.check_encoder(stored.encoder)
    names, found = stored.ids, stored.fields
    if table is not None:
        described = table_like(table, vectors, has_texts=False, replaces=replaces, has_vectors=True)
        names, found = described.ids, described.all_fields()
    put = vectors.update if replaces else vectors.add
    return len(put(stored.values, vectors.ids_like(names), found))


def _put_fields(index: AdaptiveIndex, rows: TableFile) -> int:
    if rows.ids is None:
        raise ConfigError(f"{rows.path} has no column of ids, which say whose fields change; call it id")
    return len(index.update(None, index.ids_like(rows.ids), rows.all_fields()))


@index.command("delete")
def delete(
    folder: Folder,
    ids: Annotated[list[str] | None, typer.Argument(metavar="IDS", help="Ids of the rows to delete.")] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="A table whose ids are to be deleted.")
    ] = None,
    where: Where = None,
    missing_ok: Annotated[
        bool,
        typer.Option(
            "--missing-ok", help="Pass over ids that are not there; without it nothing is deleted then."
        ),
    ] = False,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Delete rows by their ids, by the ids of a table, or by what their fields hold.

    Example: nestling index delete products 17 23
    """
    if sum(given is not None and given != [] for given in (ids, table, where)) != 1:
        raise ConfigError("say which rows to delete by one of: ids, --table FILE, --where CONDITION")
    with writable(folder, wait=wait) as opened:
        count = opened.delete(_named(opened, ids, table, where), missing_ok=missing_ok)
        rows = len(opened)
    say(f"{count:,} deleted; {rows:,} left")
    show_json({"deleted": count, "rows": rows}) if as_json else show(str(rows))


def _named(opened: AdaptiveIndex, ids: list[str] | None, table: Path | None, where: str | None) -> Any:
    """The ids of the rows that are to go."""
    if where is not None:
        return opened.ids_where(where)
    if table is None:
        return read_names(list(ids or []), opened.info().id_kind)
    from nestling.data.tables.description import TableFile

    id_column = opened.columns.get("id")
    described = TableFile.open(table, None, id_column, [], has_texts=False)
    if described.ids is None:
        raise ConfigError(f"{table} has no column of ids; call it id")
    return opened.ids_like(described.ids)


for verb in (compact, info, verify, tune, export):
    index.command()(verb)
