"""Metadata as columns of LanceDB, one for each kind of value of a field, and conditions on them as SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args
from urllib.parse import quote, unquote

from nestling.data.tables.fields.kinds import FieldKind, Value
from nestling.search.stores.numbers import LEAST, for_doubles, for_integers
from nestling.search.where.condition import All, Compare, Condition, Not

Column = tuple[str, FieldKind]
"""A field and the kind of the values that this column of it holds."""

_ORDERS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def column_name(column: Column) -> str:
    """The name of a column, such as ``int_year``; characters that LanceDB refuses are escaped as in URLs."""
    field, kind = column
    return f"{kind}_{quote(field, safe='').replace('.', '%2E')}"


def columns_of(names: Iterable[str]) -> dict[str, Column]:
    """The columns of metadata among all those of a table."""
    split = {name: name.partition("_") for name in names}
    return {
        name: (unquote(field), kind)  # type: ignore[misc]
        for name, (kind, _, field) in split.items()
        if kind in get_args(FieldKind) and field
    }


def arrow_field(arrow: Any, column: Column) -> Any:
    """A column as a field of a schema of Arrow."""
    kinds = {"int": arrow.int64(), "float": arrow.float64(), "bool": arrow.bool_(), "text": arrow.string()}
    return arrow.field(column_name(column), kinds[column[1]])


def kind_of_value(value: Value) -> FieldKind:
    """The kind of one value."""
    if isinstance(value, bool):
        return "bool"
    return "int" if isinstance(value, int) else "float" if isinstance(value, float) else "text"


def columns_needed(metadata: Iterable[Mapping[str, Value]]) -> list[Column]:
    """The columns that hold the values of these rows."""
    return list(
        dict.fromkeys((field, kind_of_value(value)) for row in metadata for field, value in row.items())
    )


def values_of(column: Column, metadata: Sequence[Mapping[str, Value]]) -> list[Value]:
    """The values of a column for these rows."""
    field, kind = column
    found = [row.get(field) for row in metadata]
    return [value if value is not None and kind_of_value(value) == kind else None for value in found]


def rows_of(columns: Mapping[str, Column], table: Any, count: int) -> list[dict[str, Value]]:
    """The metadata of the rows of an Arrow table, or of a batch of one."""
    rows: list[dict[str, Value]] = [{} for _ in range(count)]
    for name, (field, _) in columns.items():
        for row, value in zip(rows, table[name].to_pylist(), strict=True):
            if value is not None:
                row[field] = value
    return rows


def sql_of(condition: Condition, columns: Iterable[Column]) -> str:
    """The SQL of a condition on a table with these columns; where SQL says unknown, it is not met."""
    held = list(columns)
    if isinstance(condition, Not):
        return f"(({sql_of(condition.part, held)}) IS NOT TRUE)"
    if not isinstance(condition, Compare):
        parts = [sql_of(part, held) for part in condition.parts]
        return (
            _joined(" AND ", parts, "true") if isinstance(condition, All) else _joined(" OR ", parts, "false")
        )
    return _joined(
        " OR ", [_test(column, condition) for column in held if column[0] == condition.field], "false"
    )


def quoted(text: str) -> str:
    """A string literal of SQL, where only the quote itself has to be doubled."""
    return "'" + text.replace("'", "''") + "'"


def _joined(word: str, parts: list[str], none: str) -> str:
    return f"({word.join(parts)})" if parts else none


def _test(column: Column, asked: Compare) -> str:
    place, kind = f"`{column_name(column)}`", column[1]
    if kind in ("int", "float"):
        numbers = [v for v in asked.values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        return _joined(" OR ", _of_numbers(place, kind, asked.op, numbers), "false")
    if kind == "bool":
        truths = [
            f"{place} = {'true' if value else 'false'}" for value in asked.values if isinstance(value, bool)
        ]
        return _joined(" OR ", truths, "false")
    texts = [quoted(value) for value in asked.values if isinstance(value, str)]
    if not texts:
        return "false"
    return (
        f"{place} IN ({', '.join(texts)})" if asked.op == "in" else f"{place} {_ORDERS[asked.op]} {texts[0]}"
    )


def _of_numbers(place: str, kind: str, op: str, numbers: list[int | float]) -> list[str]:
    exact: Any = for_integers if kind == "int" else for_doubles
    tests = [exact("eq" if op == "in" else op, number) for number in numbers]
    equal = [_number(test[1]) for test in tests if not isinstance(test, bool) and test[0] == "eq"]
    found = [f"{place} IS NOT NULL" for test in tests if test is True]
    found += [f"{place} IN ({', '.join(equal)})"] if equal else []
    ordered = [test for test in tests if not isinstance(test, bool) and test[0] != "eq"]
    return found + [f"{place} {_ORDERS[order]} {_number(bound)}" for order, bound in ordered]


def _number(value: int | float) -> str:
    if value == LEAST and isinstance(value, int):
        return f"CAST('{value}' AS BIGINT)"  # as a literal it is the opposite of a number that is too large
    return repr(value)
