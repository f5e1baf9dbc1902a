"""Conditions on metadata as SQL over a jsonb column; values are parameters, never part of the text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from nestling.data.tables.fields.kinds import FieldKind, Value
from nestling.errors import require
from nestling.search.stores.numbers import EXACT
from nestling.search.where.condition import All, Compare, Condition, Not, family_of

_LETTERS = 64  # of a text in an index: an entry of a B-tree may not be longer than 2,700 bytes
_ORDERS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_LOOSE = {"gt": ">=", "gte": ">=", "lt": "<=", "lte": "<="}


def json_of(metadata: Mapping[str, Value]) -> str:
    """Metadata as JSON in which large floats stand with all their digits, as PostgreSQL compares them."""
    return "{" + ", ".join(f"{_text(name)}: {_json(value)}" for name, value in metadata.items()) + "}"


def _json(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= EXACT else repr(value)
    return _text(value)


def _text(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False)


class Where:
    """A condition as SQL; the parameters that it refers to are gathered in ``values``.

    Args:
        fields: the declared ones, which :func:`index_of` makes an index of.
    """

    def __init__(self, fields: Mapping[str, FieldKind]) -> None:
        self._sql = require("psycopg.sql", "postgres")
        self._fields = fields
        self.values: dict[str, Any] = {}

    def text(self, condition: Condition) -> Any:
        """The SQL of a condition, true or not; where it is unknown to SQL, it is not."""
        sql = self._sql
        if isinstance(condition, Not):
            return sql.SQL("({}) IS NOT TRUE").format(self.text(condition.part))
        if not isinstance(condition, Compare):
            word, none = (" AND ", "TRUE") if isinstance(condition, All) else (" OR ", "FALSE")
            parts = [self.text(part) for part in condition.parts]
            return sql.SQL("({})").format(sql.SQL(word).join(parts)) if parts else sql.SQL(none)
        if condition.op in ("eq", "in"):
            return self._one_of(condition)
        return self._ordered(condition)

    def _one_of(self, asked: Compare) -> Any:
        sql, values = self._sql, list(asked.values)
        if not values:
            return sql.SQL("FALSE")
        if self._fields.get(asked.field) == "text":
            place = self._place([value for value in values if isinstance(value, str)])
            starts = self._place([value[:_LETTERS] for value in values if isinstance(value, str)])
            return sql.SQL(
                "(jsonb_typeof({json}) = 'string' AND {start} = ANY({starts}) AND {text} = ANY({}))"
            ).format(place, starts=starts, **self._parts(asked.field))
        if len(values) == 1 and asked.field not in self._fields:  # the index of all metadata serves it
            place = self._place(json_of({asked.field: values[0]}))
            return sql.SQL("metadata @> {}::jsonb").format(place)
        place = self._place([_json(value) for value in values])
        return sql.SQL("{json} = ANY({}::jsonb[])").format(place, **self._parts(asked.field))

    def _ordered(self, asked: Compare) -> Any:
        [bound] = asked.values
        sql, parts = self._sql, self._parts(asked.field)
        parts |= {"order": sql.SQL(_ORDERS[asked.op]), "loose": sql.SQL(_LOOSE[asked.op])}
        if family_of(bound) == "number":
            text = "(jsonb_typeof({json}) = 'number' AND {json} {order} {}::jsonb)"
            return sql.SQL(text).format(self._place(_json(bound)), **parts)
        start = self._place(str(bound)[:_LETTERS])
        text = "(jsonb_typeof({json}) = 'string' AND {start} {loose} {} AND {text} {order} {})"
        return sql.SQL(text).format(start, self._place(bound), **parts)

    def _parts(self, field: str) -> dict[str, Any]:
        name = _literal(self._sql, field)
        return {key: self._sql.SQL(text).format(name) for key, text in _PLACES.items()}

    def _place(self, value: Any) -> Any:
        name = f"where{len(self.values)}"
        self.values[name] = value
        return self._sql.Placeholder(name)


_PLACES = {
    "json": "(metadata -> {})",
    "text": '((metadata ->> {}) COLLATE "C")',
    "start": f'(left(metadata ->> {{}}, {_LETTERS}) COLLATE "C")',
}


def _literal(sql: Any, field: str) -> Any:
    """A name within the text of a statement with parameters, in which a percent sign is written twice."""
    return sql.Literal(field.replace("%", "%%"))


def index_of(sql: Any, table: str, field: str, kind: FieldKind) -> tuple[str, Any]:
    """The name and the expression of the index that serves conditions on a declared field."""
    name = f"{table}_{hashlib.sha256(field.encode()).hexdigest()[:8]}"
    place = _PLACES["start" if kind == "text" else "json"]
    return name, sql.SQL(place).format(sql.Literal(field))
