"""Metadata of rows of a store: flat, checked on the way in and out, without missing values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nestling.data.tables.fields.kinds import FieldKind, Value, converted, read_value, widened
from nestling.errors import DataError, StoreError, unknown
from nestling.search.where.argument import read_where
from nestling.search.where.condition import Compare, Condition, Not

_LONGEST_NAME = 256
_TORN = re.compile("[\x00\ud800-\udfff]")


def read_metadata(given: Any, count: int, fields: Mapping[str, FieldKind]) -> list[dict[str, Value]]:
    """One flat dict for each of ``count`` rows, with plain values; missing ones are left out.

    Args:
        given: mappings from names of fields to values, numpy's among them; None is none for every row.
        count: number of rows.
        fields: the fields that rows may have, with their kinds; where there are none, all names will do.

    Raises:
        DataError: for another number of rows, names or values that cannot be kept, or a field that is not
            among those declared.
    """
    if given is None:
        return [{} for _ in range(count)]
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise DataError(f"metadata must be a list of one dict for each row, not {type(given).__name__}")
    if len(given) != count:
        raise DataError(f"{len(given)} metadata are given for {count} rows; give one for each")
    for row, tags in enumerate(given):
        if not isinstance(tags, Mapping):
            raise DataError(f"the metadata of row {row} are {type(tags).__name__}; give a dict of fields")
    for name in dict.fromkeys(name for tags in given for name in tags):
        _check_name(name)
        if fields and name not in fields:
            raise DataError(f"{unknown('metadata field', name, fields)}; the table was made for these")
    if fields:
        return _of_columns(given, fields)
    return [_of_row(tags, row) for row, tags in enumerate(given)]


def _of_columns(
    given: Sequence[Mapping[str, Any]], fields: Mapping[str, FieldKind]
) -> list[dict[str, Value]]:
    columns = {}
    for name, kind in fields.items():
        values = [tags.get(name) for tags in given]
        if widened(values, kind) != kind:
            raise DataError(
                f"the metadata field {name!r} holds whole numbers, as the table was made, and floats are "
                "given; make a new table for them: nestling index export INDEX --to URL, or "
                f"Layout(fields={{{name!r}: 'float'}})"
            )
        columns[name] = converted(values, kind, f"the metadata field {name!r}")
    return [
        {name: value for name, column in columns.items() if (value := column[row]) is not None}
        for row in range(len(given))
    ]


def _of_row(tags: Mapping[str, Any], row: int) -> dict[str, Value]:
    kept: dict[str, Value] = {}
    for name, given in tags.items():
        try:
            value = read_value(given)
        except DataError as error:
            raise DataError(f"the metadata field {name!r}, row {row}: {error}") from error
        if value is not None:
            kept[name] = value
    return kept


def read_condition(given: Any, fields: Mapping[str, FieldKind]) -> Condition | None:
    """The condition of an argument ``where``, held to the fields that are declared, if any are.

    Raises:
        DataError: as :func:`~nestling.search.where.argument.read_where`, and for names
            that no field can have and values that none can hold.
    """
    condition = read_where(given, fields or None)
    if condition is not None:
        for test in _tests(condition):
            _check_name(test.field)
            for value in test.values:
                read_value(value)  # whole numbers of more than 64 bits go into no database
    return condition


def _tests(condition: Condition) -> list[Compare]:
    if isinstance(condition, Compare):
        return [condition]
    parts = (condition.part,) if isinstance(condition, Not) else condition.parts
    return [test for part in parts for test in _tests(part)]


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_NAME or _TORN.search(name):
        raise DataError(
            f"a metadata field cannot be called {name!r}; use 1 to {_LONGEST_NAME} characters of Unicode, "
            "none of them a null character"
        )


def found_metadata(given: Any, name: str, where: str) -> dict[str, Value]:
    """The metadata of a row as a database gives them; somebody else may have written them.

    Raises:
        StoreError: if they are no mapping.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise StoreError(
            f"{where} holds a row {name!r} whose metadata are {type(given).__name__}, no mapping of fields; "
            "another program wrote it: mend it there, or delete it"
        )
    return {field: value for field, value in given.items() if value is not None}
