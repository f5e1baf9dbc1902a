"""Conditions on metadata and ids as filters of Qdrant, for the server and for Edge."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, unquote

from nestling.data.tables.fields.kinds import FieldKind, Value
from nestling.search.stores.layout import Layout
from nestling.search.stores.numbers import EXACT, Number, Order, rounded_to
from nestling.search.where.condition import All, Compare, Condition, Not

ESCAPE = "%"
# An index of whole numbers would forget all other numbers of a field.
_INDEX_KINDS: dict[FieldKind, str] = {"int": "FLOAT", "float": "FLOAT", "bool": "BOOL", "text": "KEYWORD"}

_STRICT: dict[Order, Order] = {"gt": "gt", "gte": "gt", "lt": "lt", "lte": "lt"}


class Words(ABC):
    """The conditions that filters are made of, as one of the two clients writes them.

    Args:
        models: the module of the client that holds ``Filter``.
    """

    def __init__(self, models: Any) -> None:
        self._models = models

    def every(self, parts: list[Any]) -> Any:
        """All of the parts."""
        return self._models.Filter(must=parts)

    def some(self, parts: list[Any]) -> Any:
        """At least one of the parts."""
        return self._models.Filter(should=parts)

    def none(self, parts: list[Any]) -> Any:
        """None of the parts."""
        return self._models.Filter(must_not=parts)

    @abstractmethod
    def equal(self, key: str, value: Value) -> Any:
        """A text, a whole number or a truth value at a place of the payload."""

    @abstractmethod
    def one_of(self, key: str, values: list[Any]) -> Any:
        """One of several texts, or of several whole numbers."""

    @abstractmethod
    def ranged(self, key: str, op: str, bound: float) -> Any:
        """A number at a place of the payload, read as a double."""

    @abstractmethod
    def absent(self, key: str) -> Any:
        """No value at a place of the payload."""

    @abstractmethod
    def points(self, ids: Iterable[Any]) -> Any:
        """These points."""


def key_of(field: str) -> str:
    """The key of a field in a payload: its name; quotes and backslashes are escaped as in URLs."""
    return ESCAPE + quote(field, safe="") if set(field) & {'"', "\\"} or field.startswith(ESCAPE) else field


def field_of(key: str) -> str:
    """The field that is called so in a payload."""
    return unquote(key[len(ESCAPE) :]) if key.startswith(ESCAPE) else key


def path_of(field: str) -> str:
    """The place of a field in a payload."""
    key = key_of(field)
    return f"metadata.{key}" if key.isascii() and key.isidentifier() else f'metadata."{key}"'


def index_paths(layout: Layout | None) -> dict[str, str]:
    """The places of payloads that a table has indexes of, and their kinds."""
    fields = layout.fields if layout is not None else {}
    return {"id": "KEYWORD"} | {path_of(field): _INDEX_KINDS[kind] for field, kind in fields.items()}


class Where:
    """Conditions as filters.

    Args:
        words: of the client.
        texts: all different texts at a place of the payload; Qdrant does not order texts, so a bound becomes
            a list of the texts that it allows.
    """

    def __init__(self, words: Words, texts: Callable[[str], list[str]]) -> None:
        self._words, self._texts = words, texts

    def filter(self, condition: Condition) -> Any:
        """The filter of a condition."""
        words = self._words
        if isinstance(condition, Not):
            return words.none([self.filter(condition.part)])
        if not isinstance(condition, Compare):
            parts = [self.filter(part) for part in condition.parts]
            return words.every(parts) if isinstance(condition, All) else self._some(parts)
        path = path_of(condition.field)
        if condition.op in ("eq", "in"):
            return self._some(self._equal(path, condition.values))
        [bound] = condition.values
        if isinstance(bound, str):
            within = _WITHIN[condition.op]
            return self._one_of(path, [text for text in self._texts(path) if within(text, bound)])
        assert bound is not None  # a condition compares with no missing value
        return self._some(self._ordered(path, condition.op, bound))  # type: ignore[arg-type]

    def _some(self, parts: list[Any]) -> Any:
        """Qdrant takes an empty list of alternatives for no condition at all."""
        return self._words.some(parts) if parts else self._words.points([])

    def _one_of(self, path: str, values: list[Any]) -> Any:
        return self._words.one_of(path, values) if values else self._words.points([])

    def _equal(self, path: str, values: tuple[Value, ...]) -> list[Any]:
        texts = [value for value in values if isinstance(value, str)]
        found = [self._words.one_of(path, texts)] if texts else []
        for value in values:
            if isinstance(value, bool):
                found.append(self._words.equal(path, value))
            elif isinstance(value, (int, float)):
                found += self._ordered(path, "eq", value)
        return found

    def _ordered(self, path: str, op: Order, bound: Number) -> list[Any]:
        """Whole numbers beyond 2**53 are compared one by one where doubles cannot tell them apart."""
        words = self._words
        if abs(bound) < EXACT:
            near = float(bound)
            if op == "eq":
                return [words.every([words.ranged(path, "gte", near), words.ranged(path, "lte", near)])]
            return [words.ranged(path, op, near)]
        near = float(bound)
        alike = rounded_to(near)
        apart = [words.one_of(path, alike)] if alike else []
        found = []
        if op != "eq":
            found.append(words.every([words.ranged(path, _STRICT[op], near), words.none(apart)]))
        if chosen := [whole for whole in alike if _WITHIN[op](whole, bound)]:
            found.append(words.one_of(path, chosen))
        if _WITHIN[op](near, bound):
            exact = [words.ranged(path, "gte", near), words.ranged(path, "lte", near)]
            found.append(words.every([*exact, words.none(apart)]))
        return found


_WITHIN: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, bound: bool(value == bound),
    "gt": lambda value, bound: bool(value > bound),
    "gte": lambda value, bound: bool(value >= bound),
    "lt": lambda value, bound: bool(value < bound),
    "lte": lambda value, bound: bool(value <= bound),
}


def called(words: Words, names: list[str]) -> Any:
    """The points of these rows, whoever wrote them.

    A row is called by the ``id`` in the payload of its point; a point without one is called by its own id.
    """
    own = [point for name in names if (point := _own_id(name)) is not None]
    unnamed = [words.every([words.points(own), words.absent("id")])] if own else []
    return words.some([words.one_of("id", names), *unnamed])


def _own_id(name: str) -> int | str | None:
    """The id of a point that is written so, a UUID or a number; None if it is no id of a point."""
    if name.isdecimal() and name.isascii():
        number = int(name)
        return number if str(number) == name and number < 2**64 else None
    try:
        return name if str(uuid.UUID(name)) == name else None
    except ValueError:
        return None
