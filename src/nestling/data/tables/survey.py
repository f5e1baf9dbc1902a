"""Infers the kind of each column from all of its values, one part of the file at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from nestling.data.tables.fields.kinds import FieldKind, Value, converted, kind_of, read_value
from nestling.data.tables.fields.words import said_by
from nestling.data.tables.table import Table
from nestling.errors import DataError

_Sort: TypeAlias = Literal["missing", "int", "long", "float", "infinite", "bool", "text"]
_SAMPLES: dict[str, Value] = {"int": 0, "long": 0, "float": 0.5, "bool": True, "text": ""}
_NUMBERS: tuple[_Sort, ...] = ("int", "long", "float")
_OTHERS: tuple[_Sort, ...] = ("bool", "text")


class ColumnSurvey:
    """The kind of a column whose parts are looked at one after the other.

    Args:
        path: of the file.
        name: of the column.
    """

    def __init__(self, path: Any, name: str) -> None:
        self._path, self._name = path, name
        self._counts: Counter[_Sort] = Counter()
        self._first: dict[_Sort, tuple[str, Any]] = {}

    def look(self, part: Table) -> None:
        """Take in the next part.

        Raises:
            DataError: for values that no field can hold (the first is named).
        """
        values = column_of(part, self._name)
        plain = [self._read(part, row, value) for row, value in enumerate(values)]
        sorts = _sorts_of_texts(plain) if part.is_untyped else [_sort(value) for value in plain]
        self._counts.update(sorts)
        for sort in {*sorts} - {*self._first}:
            row = sorts.index(sort)
            self._first[sort] = part.name_rows([row]), values[row]

    def kind(self, asked: FieldKind | None = None) -> FieldKind | None:
        """The kind that holds all values, or the declared one; None if all are missing.

        Raises:
            DataError: for an infinite number, or floats beside whole numbers with more digits than they have.
        """
        found = asked or kind_of(_SAMPLES[sort] for sort in self._counts if sort in _SAMPLES)
        if found != "text" and "infinite" in self._first:
            self._refuse("infinite", "is infinite; give finite numbers, or leave it blank")
        if found == "float" and "long" in self._first:
            self._refuse("long", "has more digits than a float, and there are floats too; give texts")
        return found

    @property
    def remark(self) -> str:
        """Reason the column is text although most values are numbers; "" where that is not so."""
        numbers, others = (sum(self._counts[sort] for sort in sorts) for sorts in (_NUMBERS, _OTHERS))
        if self.kind() != "text" or not others < numbers:
            return ""
        place, value = self._first.get("text") or self._first["bool"]
        return f"{place} holds {value!r} ({others:,} of {numbers + others:,} values say no number)"

    def _read(self, part: Table, row: int, value: Any) -> Value:
        try:
            return read_value(value)
        except DataError as error:
            place = part.name_rows([row])
            raise DataError(f"{part.path}, {place}: column {self._name!r}: {error}") from error

    def _refuse(self, sort: _Sort, why: str) -> None:
        place, value = self._first[sort]
        raise DataError(f"{self._path}, {place}: column {self._name!r} holds {value}, which {why}")


def column_of(part: Table, name: str) -> list[Any]:
    """The values of a column, missing where the part does not have it; blank texts are missing too."""
    given = part.columns.get(name, [None] * len(part.numbers))
    return [None if isinstance(value, str) and not value.strip() else value for value in given]


def read_column(part: Table, name: str, kind: FieldKind) -> list[Value]:
    """A column as values of its kind.

    Raises:
        DataError: for values that are of another one (the first is named).
    """
    given = column_of(part, name)
    try:
        return converted(given, kind, f"column {name!r}", name_rows=part.name_rows, missing="a blank")
    except DataError as error:
        raise DataError(f"{part.path}: {error}") from error


def _sorts_of_texts(texts: Sequence[Value]) -> list[_Sort]:
    """Types of values of a file without types."""
    known = {text: _sort(None if text is None else said_by(str(text))) for text in {*texts}}
    return [known[text] for text in texts]


def _sort(value: Value) -> _Sort:
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int):
        return "int" if int(float(value)) == value else "long"
    return "infinite" if math.isinf(value) else "float"
