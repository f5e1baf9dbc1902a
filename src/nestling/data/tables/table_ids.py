"""Row ids of a file, validated as they are read, before any long work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.ids import fault_of
from nestling.data.tables.fields.words import said_by
from nestling.data.tables.table import Table
from nestling.errors import ConfigError, DataError, unknown

IdKind: TypeAlias = Literal["int", "text"]
"""Types of ids in a file."""


def check_id_kind(kind: Any) -> None:
    """The declared kind of the ids of a file.

    Raises:
        ConfigError: for a kind that there is not.
    """
    if kind not in (None, "int", "text"):
        raise ConfigError(unknown("kind of ids", kind, ("int", "text")))


def known_ids(part: Table, column: str, kind: IdKind | None) -> list[int | str]:
    """The ids of some rows as read from a file.

    Raises:
        DataError: for rows that cannot be called so; they are named.
    """
    names = [_stripped(value) for value in part.columns.get(column, [None] * len(part.numbers))]
    what = f"{part.path}: column {column!r}, the ids,"
    if blank := [row for row, name in enumerate(names) if name is None or name == ""]:
        raise DataError(f"{what} is blank in {part.name_rows(blank)}; fill or remove them")
    if strange := [row for row, name in enumerate(names) if type(name) not in (int, str)]:
        raise DataError(
            f"{what} must hold whole numbers or texts, as it does not in {part.name_rows(strange)}"
        )
    if kind == "int" and (other := [row for row, name in enumerate(names) if number_of(name) is None]):
        raise DataError(
            f"{what} holds {names[other[0]]!r} in {part.name_rows(other)}, which is no whole number from 0 "
            'on; call them texts with id_kind="text"'
        )
    for row, name in enumerate(names):
        if fault := fault_of(str(name)):
            raise DataError(
                f"{what} {fault} in {part.name_rows([row])}; shorten or repair it, or name another column "
                'with id_column=, or none with id_column=""'
            )
    return names


def table_ids(
    path: str | Path, column: str, names: Sequence[int | str], kind: IdKind | None, *, are_texts: bool
) -> NDArray[Any]:
    """The ids of all rows: whole numbers where all are such, and else texts.

    Args:
        path: of the file.
        column: of the ids.
        names: as :func:`known_ids` gives them.
        kind: the declared kind; None infers it.
        are_texts: in the file all are texts, and may say numbers.

    Raises:
        DataError: for ids that occur twice.
    """
    may_be = kind is None and (are_texts or all(type(name) is int for name in names))
    are_numbers = kind == "int" or (may_be and all(number_of(name) is not None for name in names))
    ids = np.array([int(name) for name in names], np.int64) if are_numbers else np.array(names, np.str_)
    found, counts = np.unique(ids, return_counts=True)
    if len(found) < len(ids):
        repeated = ", ".join(map(str, found[counts > 1][:3]))
        raise DataError(
            f"{path}: column {column!r}, the ids, names several rows alike ({repeated}); repair it, or name "
            'another column with id_column=, or none with id_column=""'
        )
    return ids


def ids_as(ids: NDArray[Any] | None, kind: IdKind | None) -> NDArray[Any] | None:
    """Ids of a file with types as what they are to be.

    Raises:
        DataError: for texts that are no whole numbers, where numbers are wanted.
    """
    is_number = ids is not None and ids.dtype.kind in "iu"
    if ids is None or kind is None or (kind == "int") == is_number:
        return ids
    if kind == "text":
        return np.array([str(name) for name in ids.tolist()], np.str_)
    numbers = [number_of(name) if isinstance(name, str) else None for name in ids.tolist()]
    if None in numbers:
        other = ids.tolist()[numbers.index(None)]
        raise DataError(f'the ids are to be whole numbers, and {other!r} is none; leave out id_kind="int"')
    return np.array(numbers, np.int64)


def _stripped(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value).strip()
    return int(value) if isinstance(value, np.integer) else value


def number_of(name: int | str) -> int | None:
    """The integer value of an id, or None if it has none; ``007`` is a text."""
    said = said_by(name) if isinstance(name, str) else name
    if not isinstance(said, int) or isinstance(said, bool) or str(said) != str(name):
        return None
    return said if fault_of(said) == "" else None
