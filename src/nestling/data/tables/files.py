"""Columns that name files, such as those of pictures or recordings."""

from __future__ import annotations

from pathlib import Path

from nestling.data.tables.table import Table
from nestling.errors import DataError


def files_of(table: Table, column: str) -> tuple[Path, ...]:
    """The files that a column names, from the folder of the table.

    Raises:
        DataError: for an unknown column, blank names, or files that do not exist (their rows are named).
    """
    folder = table.path.parent
    paths = tuple(folder / Path(name).expanduser() for name in table.texts(column))
    absent = [row for row, path in enumerate(paths) if not path.is_file()]
    if absent:
        raise DataError(
            f"{table.path} names files in {table.name_rows(absent)} that do not exist, such as "
            f"{paths[absent[0]]}; write names as seen from the folder of the table"
        )
    return paths


def role_column(table: Table, role: str, given: str | None, usual: tuple[str, ...]) -> str:
    """The column of a role: the one given, or the first with a usual name.

    Raises:
        DataError: if there is none; those that there are, are named.
    """
    found = given or table.find_column(usual)
    if found is None:
        raise DataError(
            f"{table.path} has no column known to hold the {role}, but: {', '.join(table.columns)}; name it "
            f"with columns='{role}=NAME', or call it {role!r} in the file"
        )
    return found
