"""Flags that say what the columns of a table are, and the tables and vectors that they open."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from nestling.cli.terminal.output import say
from nestling.data.tables.input_file import find_file
from nestling.errors import ConfigError, DataError, meant, unknown

if TYPE_CHECKING:
    from nestling.cut import CutRule
    from nestling.data.tables.description import TableFile
    from nestling.data.tables.fields import FieldKind
    from nestling.data.tables.table_ids import IdKind
    from nestling.search.index.index import AdaptiveIndex
    from nestling.vectors.stored import StoredVectors

Column = Annotated[str | None, typer.Option(help="The column of texts or vectors.")]
IdColumn = Annotated[
    str | None,
    typer.Option(
        help="The column of ids, such as sku, or sku:text where they are texts; by default one called id. "
        "Empty: rows are counted."
    ),
]
Fields = Annotated[
    str | None,
    typer.Option(help="Columns to keep, such as year,price:float; all by default. Empty: none."),
]
TableOption = Annotated[
    Path | None, typer.Option("--table", help="A table whose rows belong to those of a .npy or .fvecs file.")
]


VECTOR_SUFFIXES = (".npy", ".fvecs", ".parquet")
"""Files of vectors; others are tables."""
VECTOR_MARKS = (b"\x93NUM", b"PAR1")
"""How they begin, where they come through a pipe."""


def read_fields(given: str | None) -> dict[str, FieldKind | None] | None:
    """The fields that a flag names, each with its kind or None; None is all columns."""
    if given is None:
        return None
    from nestling.data.tables.fields import FieldKind

    parts = [_with_kind(part, get_args(FieldKind)) for part in given.split(",") if part.strip()]
    return {name: cast("FieldKind | None", kind) for name, kind in parts}


def read_id_column(given: str | None) -> tuple[str | None, IdKind | None]:
    """The column of ids that a flag names, and what they are, if it says that too."""
    if given is None:
        return None, None
    from nestling.data.tables.table_ids import IdKind

    name, kind = _with_kind(given, get_args(IdKind))
    return name, cast("IdKind | None", kind)


def _with_kind(given: str, kinds: tuple[str, ...]) -> tuple[str, str | None]:
    """``NAME:KIND`` in its parts; a name with a colon in it is followed by its kind, or none of these."""
    name, sign, kind = (part.strip() for part in given.rpartition(":"))
    if sign and kind in kinds:
        return name, kind
    if sign and name and get_close_matches(kind, kinds):
        raise ConfigError(f"{given.strip()!r}: {unknown('kind of column', kind, kinds)}")
    return given.strip(), None


def open_table(
    path: Path, column: str | None, id_column: str | None, fields: str | None, *, has_texts: bool = True
) -> TableFile:
    """A table as flags describe it; columns that cannot be kept are told."""
    find_file(path)  # before what takes long to import
    from nestling.data.tables.description import TableFile

    name, kind = read_id_column(id_column)
    table = TableFile.open(path, column, name, read_fields(fields), id_kind=kind, has_texts=has_texts)
    if has_texts and column is None and len(table.kinds) > 1:
        rows = "rows are counted" if table.id_column is None else f"ids are those of {table.id_column!r}"
        say(f"texts are those of column {table.text!r}, {rows}; --column and --id-column say otherwise")
    if table.left_out:
        say(f"left out of {path}: " + "; ".join(f"{name} ({why})" for name, why in table.left_out.items()))
    for name, why in table.remarks.items():
        say(f"{name} is text: {why}; --fields {name}:text says so")
    return table


def table_like(
    path: Path, index: AdaptiveIndex, *, has_texts: bool, replaces: bool, has_vectors: bool = False
) -> TableFile:
    """A table whose columns are those of the one that an index was built from.

    Args:
        path: of the table.
        index: that its rows go to.
        has_texts: whether the index is that of a collection; where rows are replaced, the table may do
            without them.
        replaces: rows of the same ids.
        has_vectors: whether a file of vectors comes with it.

    Raises:
        DataError: as :meth:`TableFile.like`, and for a table by which nothing would be replaced.
    """
    from nestling.data.tables.description import TableFile

    columns: dict[str, str | None] = {
        part: name for part, name in index.columns.items() if has_texts or part != "text"
    }
    if replaces:  # rows that were counted are named by their numbers
        columns.setdefault("id", None)
    table = TableFile.like(path, index.fields, columns, has_texts=has_texts and not replaces)
    if table.id_column is not None and "id" not in index.columns:
        say(f"the ids of the index were counted, from 0: {table.id_column!r} of {path} is taken for them")
    absent = [name for name in index.fields if name not in table.kinds]
    missing = [name for name in absent if name != columns.get("text")]
    hints = {name: meant(name, absent) for name in table.left_out}
    strangers = [f"{name} ({hint})" if hint else name for name, hint in hints.items()]
    if replaces and table.text is None and not table.kinds and not has_vectors:
        raise DataError(
            f"{path} has no column that the index has a field for, so nothing changes: "
            f"{', '.join(strangers) or 'it holds ids alone'}; the fields are: {', '.join(index.fields)}"
        )
    if strangers:
        say(f"left out, as the index has no such fields: {', '.join(strangers)}")
    if missing:
        rest = "rows that are replaced keep theirs" if replaces else "its rows have no value there"
        say(f"{path} has no column {', '.join(missing)}: {rest}")
    return table


def open_rows(
    source: Path,
    *,
    column: str | None = None,
    id_column: str | None = None,
    fields: str | None = None,
    table: Path | None = None,
    **about: Any,
) -> StoredVectors:
    """Vectors with the ids and fields that lie in their own file, or in a table beside it."""
    from nestling.vectors.stored import open_vectors

    if table is None:
        if (id_column or fields) and source.suffix.lower() != ".parquet":
            raise ConfigError(f"{source} has no columns; give a table of its rows with --table")
        name, kind = read_id_column(id_column)
        return open_vectors(
            source, column=column, id_column=name, id_kind=kind, fields=read_fields(fields), **about
        )
    described = open_table(table, None, id_column, fields, has_texts=False)
    stored = open_vectors(source, column=column, **about)
    if len(stored) != described.rows:
        raise DataError(
            f"{table} has {described.rows:,} rows, and {source} {len(stored):,} vectors; give a row for each"
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
        from nestling.vectors.stored import open_vectors

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
            f"{path} holds texts, and there is no encoder for them; give vectors of them with --queries, by "
            f"what made the others: nestling encode MODEL {path} -o queries.npy"
        )
    return queries


def cut_rule(before: str | None, after: str | None) -> CutRule | None:
    """The cut rule of two flags; None, where neither is given, leaves it to the vectors."""
    if before is None and after is None:
        return None
    from nestling.cut import CutRule

    return CutRule(before or "none", after or "l2")  # type: ignore[arg-type]


def read_names(names: list[str], kind: str | None) -> list[Any]:
    """Ids as they stand on the command line, of the kind of an index."""
    if kind != "int":
        return list(names)
    wrong = [name for name in names if not name.isdecimal()]
    if wrong:
        raise ConfigError(f"the ids of this index are whole numbers, not {wrong[0]!r}")
    return [int(name) for name in names]
