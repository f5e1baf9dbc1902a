"""``nestling index add``, ``update``, ``delete`` and ``compact``: changes of an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestling.cli.flags.options import VECTORS, AsJson, Folder, Wait, Where
from nestling.cli.flags.tables import TableOption, is_table, read_names, table_like
from nestling.cli.index.folder import is_collection, writable
from nestling.cli.terminal.output import say, show, show_json
from nestling.errors import ConfigError

if TYPE_CHECKING:
    from nestling.data.tables.description import TableFile
    from nestling.domains.text.collection import Collection
    from nestling.search.index.index import AdaptiveIndex

More = Annotated[Path, typer.Argument(metavar="SOURCE", help=f"{VECTORS}, or texts for a collection.")]


def add(
    folder: Folder, source: More, table: TableOption = None, wait: Wait = 0, as_json: AsJson = False
) -> None:
    """Add vectors, or texts to a collection.

    They are on disk when the command ends. A table needs the same columns as the one that the index was
    built from.

    Example: nestling index add products more.csv
    """
    _put(folder, source, table, wait, as_json, replaces=False)


def update(
    folder: Folder, source: More, table: TableOption = None, wait: Wait = 0, as_json: AsJson = False
) -> None:
    """Replace rows by their ids, and add new ones.

    They are on disk when the command ends. Fields that the table does not have keep their values.

    Example: nestling index update products changed.csv
    """
    _put(folder, source, table, wait, as_json, replaces=True)


def _put(
    folder: Path, source: Path, table: Path | None, wait: float, as_json: bool, *, replaces: bool
) -> None:
    if is_collection(folder):
        if table is not None:
            raise ConfigError("leave out --table: a collection takes one table with the texts in it")
        from nestling.domains.text.collection import Collection

        with Collection.open(folder, wait=wait) as texts:
            before, kinds, rows = len(texts), texts.index.fields, _put_texts(texts, source, replaces)
            after, later = len(texts), texts.index.fields
    else:
        with writable(folder, wait=wait) as vectors:
            before, kinds, rows = len(vectors), vectors.fields, _put_vectors(vectors, source, table, replaces)
            after, later = len(vectors), vectors.fields
    if wider := [name for name, kind in kinds.items() if later[name] != kind]:
        say(f"{', '.join(wider)}: changed from whole numbers to floats")
    added = after - before
    say(f"{added:,} added, {rows - added:,} replaced; {after:,} in all")
    answer = {"added": added, "replaced": rows - added, "rows": after}
    show_json(answer) if as_json else show(str(after))


def _put_texts(texts: Collection, source: Path, replaces: bool) -> int:
    """Add or replace texts; a table without texts changes fields only. Returns its number of rows."""
    rows = table_like(source, texts.index, has_texts=True, replaces=replaces)
    if rows.text is None:
        return _put_fields(texts.index, rows)
    put = texts.update if replaces else texts.add
    return len(put(rows))


def _put_vectors(vectors: AdaptiveIndex, source: Path, table: Path | None, replaces: bool) -> int:
    """Add or replace vectors; a table alone changes fields only. Returns the number of rows."""
    from nestling.vectors.opening import open_vectors

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
        raise ConfigError(f"{rows.path} has no column of ids; rename the one with the ids of the rows to id")
    return len(index.update(None, index.ids_like(rows.ids), rows.all_fields()))


def delete(
    folder: Folder,
    ids: Annotated[list[str] | None, typer.Argument(metavar="IDS", help="Ids of the rows to delete.")] = None,
    table: Annotated[Path | None, typer.Option("--table", help="A table with the ids to delete.")] = None,
    where: Where = None,
    missing_ok: Annotated[
        bool,
        typer.Option(
            "--missing-ok",
            help="Ignore unknown ids; by default they are an error.",
        ),
    ] = False,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Delete rows by id, by a table of ids, or by a condition.

    Example: nestling index delete products 17 23
    """
    if sum(given is not None and given != [] for given in (ids, table, where)) != 1:
        raise ConfigError("name the rows to delete by one of: ids, --table FILE, --where CONDITION")
    with writable(folder, wait=wait) as opened:
        count = opened.delete(_named(opened, ids, table, where), missing_ok=missing_ok)
        rows = len(opened)
    say(f"{count:,} deleted; {rows:,} left")
    show_json({"deleted": count, "rows": rows}) if as_json else show(str(rows))


def _named(opened: AdaptiveIndex, ids: list[str] | None, table: Path | None, where: str | None) -> Any:
    """The ids of the rows to delete."""
    if where is not None:
        return opened.ids_where(where)
    if table is None:
        return read_names(list(ids or []), opened.info().id_kind)
    from nestling.data.tables.description import TableFile

    id_column = opened.columns.get("id")
    described = TableFile.open(table, None, id_column, [], has_texts=False)
    if described.ids is None:
        raise ConfigError(f"{table} has no column of ids; name it id")
    return opened.ids_like(described.ids)


def compact(folder: Folder, wait: Wait = 0) -> None:
    """Merge all segments into one, without the deleted rows.

    Example: nestling index compact my-index
    """
    with writable(folder, wait=wait) as opened:
        opened.compact()
        show(str(len(opened)))
