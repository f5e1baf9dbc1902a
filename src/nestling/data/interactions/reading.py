"""Reads interactions from files: RecBole's ``.inter``, tables, or one line a user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nestling.arguments.paths import home_path
from nestling.data.interactions.interactions import Interactions
from nestling.data.tables.input_file import PACKED
from nestling.data.tables.table import Table, read_table
from nestling.data.tables.table_ids import number_of
from nestling.errors import DataError, unknown

_USERS, _ITEMS = ("user_id", "user", "uid"), ("item_id", "item", "iid", "product_id", "asin")
_TIMES = ("timestamp", "time", "date")


def read_interactions(
    path: str | Path,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    first_is_user: bool = False,
) -> Interactions:
    """Read interactions from a file.

    ``.inter`` is RecBole's format: a table divided by tabs, whose header types the columns
    (``user_id:token item_id:token timestamp:float``). ``.csv``, ``.tsv``, ``.jsonl`` and ``.parquet`` have
    one event a row. ``.txt`` has one line a user, item ids in order, divided by blanks. All but parquet may
    be packed (``.gz``).

    Args:
        path: of the file.
        user: the column of user ids; one of the usual names by default.
        item: that of item ids.
        time: that of times; without one, rows are in order.
        first_is_user: the first word of a line of ``.txt`` is the user.

    Returns:
        Interactions; ids are whole numbers where all are such, and else texts.

    Raises:
        DataError: for a file that cannot be read, columns that are missing, or blank ids.

    Warns:
        EvaluationWarning: for equal times of one user.
    """
    suffixes = [each for each in home_path(path).suffixes if each.lower() not in PACKED]
    kind = suffixes[-1].lower() if suffixes else ""
    if kind == ".txt":
        return _of_lines(read_table(path), first_is_user=first_is_user)
    table = read_table(path, kind=".tsv" if kind == ".inter" else None)
    columns = {name.partition(":")[0] if kind == ".inter" else name: name for name in table.columns}
    names = [
        _find(table, columns, *each)
        for each in ((user, _USERS, "users", "user"), (item, _ITEMS, "items", "item"))
    ]
    when = _find(table, columns, time, _TIMES, "", "time")
    who, what = (_ids(table.texts(name)) for name in names if name is not None)
    return Interactions.from_columns(who, what, None if when is None else table.floats(when))


def _find(
    table: Table, columns: dict[str, str], asked: str | None, usual: tuple[str, ...], what: str, argument: str
) -> str | None:
    """The column that is asked for, or one of the usual names; None if ``what`` is "" and there is none."""
    if asked is not None:
        if asked not in columns:
            raise DataError(f"{table.path}: {unknown('column', asked, columns)}")
        return columns[asked]
    found = next((columns[name] for name in usual if name in columns), None)
    if found is None and what:
        raise DataError(
            f"{table.path} has no column of {what} ({', '.join(usual)}), but {', '.join(columns)}; name it "
            f"with {argument}="
        )
    return found


def _of_lines(table: Table, *, first_is_user: bool) -> Interactions:
    lines = [line.split() for line in table.texts("text")]
    if not first_is_user:
        return Interactions.from_sequences(_like(lines))
    short = [row for row, line in enumerate(lines) if len(line) < 2]
    if short:
        raise DataError(f"{table.path}: a user without items in {table.name_rows(short)}")
    items = _like([line[1:] for line in lines])
    return Interactions.from_sequences(items, _ids([line[0] for line in lines]))


def _like(lines: list[list[str]]) -> list[list[Any]]:
    """The words of lines as numbers, if all are such."""
    flat = _ids([word for line in lines for word in line]).tolist()
    ends = np.cumsum([len(line) for line in lines]).tolist()
    return [flat[end - len(line) : end] for line, end in zip(lines, ends, strict=True)]


def _ids(words: list[str]) -> Any:
    """Whole numbers where all words are such, and else texts."""
    numbers = [number_of(word) for word in dict.fromkeys(words)]
    return np.array(words, np.str_) if None in numbers else np.array(list(map(int, words)), np.int64)
