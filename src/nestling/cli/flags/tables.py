"""Flags for the columns of a table, and the tables and vectors that they open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from nestling.cli.terminal.output import say
from nestling.data.tables.input_file import find_file
from nestling.errors import ConfigError, DataError, meant, unknown

if TYPE_CHECKING:
    from nestling.data.tables.description import TableFile
    from nestling.data.tables.fields.kinds import FieldKind
    from nestling.data.tables.table_ids import IdKind
    from nestling.search.index.index import AdaptiveIndex
    from nestling.vectors.stored import StoredVectors

_PANEL = "Columns"


@dataclass(frozen=True)
class ColumnFlags:
    """Roles of the columns of a table."""

    column: Annotated[
        str | None,
        typer.Option(help="The column that holds the texts or the vectors.", rich_help_panel=_PANEL),
    ] = None
    id_column: Annotated[
        str | None,
        typer.Option(
            help="The column that holds the ids, such as sku, or sku:text to read numbers as text; "
            "by default the one called id. If empty, rows are numbered.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    fields: Annotated[
        str | None,
        typer.Option(
            help="The columns to keep, such as year,price:float; by default all. If empty, none.",
            rich_help_panel=_PANEL,
        ),
    ] = None


TableOption = Annotated[
    Path | None,
    typer.Option(
        "--table", help="A table with ids and fields, one row for each row of a .npy or .fvecs file."
    ),
]


VECTOR_SUFFIXES = (".npy", ".fvecs", ".parquet")
"""Suffixes of files of vectors; other files are tables."""
VECTOR_MARKS = (b"\x93NUM", b"PAR1")
"""First bytes of such files, where they come through a pipe."""


def read_fields(given: str | None) -> dict[str, FieldKind | None] | None:
    """The fields named by a flag, each with its kind or None; None is all columns."""
    if given is None:
        return None
    from nestling.data.tables.fields.kinds import FieldKind

    parts = [_with_kind(part, get_args(FieldKind)) for part in given.split(",") if part.strip()]
    return {name: cast("FieldKind | None", kind) for name, kind in parts}


def read_id_column(given: str | None) -> tuple[str | None, IdKind | None]:
    """The column of ids named by a flag, and their kind if it is given."""
    if given is None:
        return None, None
    from nestling.data.tables.table_ids import IdKind

    name, kind = _with_kind(given, get_args(IdKind))
    return name, cast("IdKind | None", kind)


def _with_kind(given: str, kinds: tuple[str, ...]) -> tuple[str, str | None]:
    """``NAME:KIND`` in its parts; a colon that no kind follows belongs to the name."""
    name, sign, kind = (part.strip() for part in given.rpartition(":"))
    if sign and kind in kinds:
        return name, kind
    if sign and name and get_close_matches(kind, kinds):
        raise ConfigError(f"{given.strip()!r}: {unknown('kind of column', kind, kinds)}")
    return given.strip(), None


def open_table(path: Path, columns: ColumnFlags, *, has_texts: bool = True) -> TableFile:
    """A table as flags describe it; says which columns cannot be kept."""
    find_file(path)  # before what takes long to import
    from nestling.data.tables.description import TableFile

    name, kind = read_id_column(columns.id_column)
    fields = read_fields(columns.fields)
    table = TableFile.open(path, columns.column, name, fields, id_kind=kind, has_texts=has_texts)
    if has_texts and columns.column is None and len(table.kinds) > 1:
        ids = "rows are numbered" if table.id_column is None else f"ids from column {table.id_column!r}"
        say(f"texts from column {table.text!r}, {ids}; --column and --id-column choose others")
    if table.left_out:
        say(f"left out of {path}: " + "; ".join(f"{name} ({why})" for name, why in table.left_out.items()))
    for name, why in table.remarks.items():
        say(f"{name} is kept as text: {why}; --fields {name}:text confirms it")
    return table


def table_like(
    path: Path, index: AdaptiveIndex, *, has_texts: bool, replaces: bool, has_vectors: bool = False
) -> TableFile:
    """A table with the columns of the one that an index was built from.

    Args:
        path: of the table.
        index: to put its rows in.
        has_texts: whether the index belongs to a collection; an update may come without texts.
        replaces: whether rows of the same ids are replaced.
        has_vectors: whether a file of vectors comes with it.

    Raises:
        DataError: as :meth:`TableFile.like`, and for a table that would change nothing.
    """
    from nestling.data.tables.description import TableFile

    columns: dict[str, str | None] = {
        part: name for part, name in index.columns.items() if has_texts or part != "text"
    }
    if replaces:  # numbered rows are named by their numbers
        columns.setdefault("id", None)
    table = TableFile.like(path, index.fields, columns, has_texts=has_texts and not replaces)
    if table.id_column is not None and "id" not in index.columns:
        say(f"the index numbers its rows from 0; column {table.id_column!r} of {path} gives these numbers")
    absent = [name for name in index.fields if name not in table.kinds]
    missing = [name for name in absent if name != columns.get("text")]
    hints = {name: meant(name, absent) for name in table.left_out}
    strangers = [f"{name} ({hint})" if hint else name for name, hint in hints.items()]
    if replaces and table.text is None and not table.kinds and not has_vectors:
        raise DataError(
            f"{path} has no column for a field of the index, so nothing would change: "
            f"{', '.join(strangers) or 'it holds ids only'}; the fields are: {', '.join(index.fields)}"
        )
    if strangers:
        say(f"left out, since the index has no such fields: {', '.join(strangers)}")
    if missing:
        rest = "replaced rows keep their values" if replaces else "new rows have no value there"
        say(f"{path} has no column {', '.join(missing)}: {rest}")
    return table


def open_rows(source: Path, columns: ColumnFlags, table: Path | None, **about: Any) -> StoredVectors:
    """Vectors with the ids and fields that are in their own file, or in a table beside it."""
    from nestling.vectors.opening import open_vectors

    if table is None:
        if (columns.id_column or columns.fields) and source.suffix.lower() != ".parquet":
            raise ConfigError(f"{source} has no columns; give a table of its rows with --table")
        name, kind = read_id_column(columns.id_column)
        fields = read_fields(columns.fields)
        return open_vectors(
            source, column=columns.column, id_column=name, id_kind=kind, fields=fields, **about
        )
    described = open_table(table, replace(columns, column=None), has_texts=False)
    stored = open_vectors(source, column=columns.column, **about)
    if len(stored) != described.rows:
        raise DataError(
            f"{table} has {described.rows:,} rows, and {source} {len(stored):,} vectors; "
            "give one row for each"
        )
    return stored.with_table(described.ids, described.all_fields(), described.columns)


def is_table(source: Path) -> bool:
    """Whether a file, or what comes through a pipe, holds a table and no vectors."""
    if source.is_dir():
        return False
    file = find_file(source)
    is_named = file.path == file.place
    return file.suffix not in VECTOR_SUFFIXES if is_named else not file.head().startswith(VECTOR_MARKS)


def open_queries(path: Path | None) -> Any:
    """Queries to measure with: vectors, or a tuple of texts; None is none."""
    if path is None:
        return None
    if path.is_dir() or not is_table(path):
        from nestling.vectors.opening import open_vectors

        return open_vectors(path).values
    from nestling.data.texts import read_texts

    return read_texts(path)


def check_are_vectors(queries: Any, path: Path | None) -> Any:
    """``queries``, where there is no encoder for texts.

    Raises:
        ConfigError: for texts.
    """
    if isinstance(queries, tuple):
        raise ConfigError(
            f"{path} holds texts, and there is no encoder for them; encode them with the model of the "
            f"vectors: nestling encode MODEL {path} -o queries.npy, and give --queries queries.npy"
        )
    return queries


def read_names(names: list[str], kind: str | None) -> list[Any]:
    """Ids from the command line, of the kind of an index."""
    if kind != "int":
        return list(names)
    wrong = [name for name in names if not name.isdecimal()]
    if wrong:
        raise ConfigError(f"the ids of this index are whole numbers, not {wrong[0]!r}")
    return [int(name) for name in names]
