"""Conditions on metadata as expressions of Milvus over a JSON field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from nestling.data.tables.fields.kinds import FieldKind, Value
from nestling.search.where.condition import All, Compare, Condition, Not, family_of

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_ORDERS = {"eq": "==", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_OPPOSITES = {"gt": "lte", "gte": "lt", "lt": "gte", "lte": "gt"}
_FAMILIES: dict[FieldKind, str] = {"int": "number", "text": "text", "bool": "bool", "float": "number"}
NEVER, ALWAYS = 'id == ""', 'id != ""'


def literal(value: Value) -> str:
    """A value as an expression has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value.translate(_ESCAPES)}"' if isinstance(value, str) else repr(value)


def one_of(field: str, values: Iterable[str]) -> str:
    """The expression for a field of texts that is one of several."""
    return f"{field} in [{', '.join(map(literal, values))}]"


class Where:
    """Conditions as expressions.

    Milvus takes missing values and values of another type for unknown, and so their negation too. So
    ``not`` is carried down to the comparisons, and each opposite says what there may be instead.

    Args:
        fields: the declared ones, which hold values of their kind only.
        lite: for Milvus Lite, to which ``true`` is 1 and ``false`` is 0: there the text of the JSON, which a
            server does not show, tells them apart.
    """

    def __init__(self, fields: Mapping[str, FieldKind], *, lite: bool) -> None:
        self._fields, self._lite = fields, lite

    def text(self, condition: Condition, *, met: bool = True) -> str:
        """The expression for rows that meet a condition, or for all that do not."""
        if isinstance(condition, Not):
            return self.text(condition.part, met=not met)
        if not isinstance(condition, Compare):
            parts = [self.text(part, met=met) for part in condition.parts]
            return _every(parts) if isinstance(condition, All) == met else _some(parts)
        return self._is(condition) if met else self._is_not(condition)

    def _is(self, asked: Compare) -> str:
        op = "eq" if asked.op == "in" else asked.op
        if self._lite or len(asked.values) == 1:  # Lite knows no lists of values of JSON
            return _some([self._test(asked.field, op, each) for each in asked.values])
        kinds = dict.fromkeys(map(type, asked.values))
        alike = [[literal(value) for value in asked.values if type(value) is kind] for kind in kinds]
        return _some([f"{_place(asked.field)} in [{', '.join(values)}]" for values in alike])

    def _is_not(self, asked: Compare) -> str:
        others = [f"not exists {_place(asked.field)}"]
        kind = self._fields.get(asked.field)
        for family in dict.fromkeys(_FAMILIES.values()) if kind is None else (_FAMILIES[kind],):
            held = [value for value in asked.values if family_of(value) == family]
            others.append(self._differs(asked.field, family, held, asked.op))
        return _some(others)

    def _differs(self, field: str, family: str, held: list[Value], op: str) -> str:
        """The expression for values of one family that do not meet a comparison with those ``held``."""
        if family == "bool":
            return _some([self._test(field, "eq", each) for each in (True, False) if each not in held])
        if not held:
            if family == "text":
                return self._test(field, "gte", "")
            return _some([self._test(field, "gte", 0), self._test(field, "lt", 0)])
        if op in _OPPOSITES:
            return self._test(field, _OPPOSITES[op], held[0])
        return _every(_some([self._test(field, op, each) for op in ("lt", "gt")]) for each in held)

    def _test(self, field: str, op: str, value: Value) -> str:
        text = f"{_place(field)} {_ORDERS[op]} {literal(value)}"
        if not self._lite or isinstance(value, str) or field in self._fields:
            return text
        marks = [literal(f"%{json.dumps(field, ensure_ascii=False)}: {word}%") for word in ("true", "false")]
        if isinstance(value, bool):
            return f"({text} and metadata like {marks[not value]})"
        return f"({text} and not (metadata like {marks[0]} or metadata like {marks[1]}))"


def _place(field: str) -> str:
    return f"metadata[{literal(field)}]"


def _every(parts: Iterable[str]) -> str:
    given = list(parts)
    return f"({' and '.join(given)})" if given else ALWAYS


def _some(parts: Iterable[str]) -> str:
    given = list(parts)
    return f"({' or '.join(given)})" if given else NEVER
