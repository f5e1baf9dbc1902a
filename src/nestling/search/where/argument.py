"""The argument ``where``: a condition on the fields of rows, as a mapping or a text."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, get_args

from nestling.arguments.formatting import shown
from nestling.data.tables.fields.kinds import FieldKind, Value, read_value
from nestling.errors import DataError, unknown
from nestling.search.where.condition import All, Compare, Condition, Either, Not, Operator, family_of
from nestling.search.where.text import Parser

_NEGATED: dict[str, Operator] = {"ne": "eq", "not_in": "in"}
_OPERATORS = (*get_args(Operator), *_NEGATED, "not")
_DEEPEST = 64
_EXAMPLE = 'such as {"year": {"gte": 2020}, "brand": ["a", "b"]} or "year>=2020 and brand in (a, b)"'


def read_where(
    given: Any, fields: Mapping[str, FieldKind] | None = None, *, id_column: str | None = None
) -> Condition | None:
    """The condition that an argument ``where`` names; None is none.

    A mapping names fields: each with a value (equal), a list (one of these), or a mapping of ``eq``, ``ne``,
    ``in``, ``not_in``, ``gt``, ``gte``, ``lt``, ``lte`` and ``not``; all of them must be met. The keys
    ``"and"`` and ``"or"`` take lists of such mappings, ``"not"`` takes one. A text says the same in the way
    of SQL: ``year>=2020 and brand in (acme, "big corp") and not colour=red``.

    Args:
        given: a mapping, a text, or a condition.
        fields: the kind of each field, where that is known: names and values are then held to it.
        id_column: the name of the column of ids, which is no field.

    Raises:
        DataError: for anything else, a field that is not among ``fields`` (the nearest are named), or a
            value of another kind than its field, and for more than 64 levels of parts in parts.

    >>> read_where({"year": {"gte": 2020}, "tag": ["a", "b"]}) == read_where("year>=2020 and tag in (a, b)")
    True
    """
    try:
        condition = _read(given, fields or {})
        if condition is not None and _depth(condition) > _DEEPEST:
            raise DataError(f"where is nested more than {_DEEPEST} levels deep; say it with fewer")
        return condition if condition is None or fields is None else check_where(condition, fields, id_column)
    except RecursionError:
        raise DataError(f"where is nested too deeply; {_DEEPEST} levels are the most") from None


def _read(given: Any, fields: Mapping[str, FieldKind]) -> Condition | None:
    if given is None:
        return None
    if isinstance(given, Compare | All | Either | Not):
        return given
    if isinstance(given, str):
        return Parser(given, fields).read()
    if isinstance(given, Mapping):
        return _of_mapping(given, fields)
    raise DataError(f"where must be a mapping or a text, {_EXAMPLE}; got {type(given).__name__}")


def _depth(condition: Condition) -> int:
    if isinstance(condition, Compare):
        return 0
    parts = (condition.part,) if isinstance(condition, Not) else condition.parts
    return 1 + max(map(_depth, parts), default=0)


def check_where(
    condition: Condition, fields: Mapping[str, FieldKind], id_column: str | None = None
) -> Condition:
    """``condition`` with its values of the kinds of ``fields``.

    Raises:
        DataError: for a field that is not among them (the nearest are named), or a value of another kind.
    """
    if isinstance(condition, Not):
        return Not(check_where(condition.part, fields, id_column))
    if isinstance(condition, All | Either):
        return type(condition)(tuple(check_where(part, fields, id_column) for part in condition.parts))
    if condition.field not in fields:
        if condition.field == id_column:
            raise DataError(
                f"where: {id_column!r} holds the ids of the rows, which are no field; give filter=, "
                "or build the index from a table that has them in a second column too"
            )
        known = unknown("field", condition.field, fields) if fields else "there are no fields to filter by"
        raise DataError(f"where: {known}")
    kind = fields[condition.field]
    values = tuple(_fitting(value, kind, condition) for value in condition.values)
    if kind == "bool" and condition.op not in ("eq", "in"):
        raise DataError(f"the field {condition.field!r} is true or false and has no order; compare with =")
    return Compare(condition.field, condition.op, values)


def _of_mapping(given: Mapping[Any, Any], fields: Mapping[str, FieldKind]) -> Condition:
    parts = [_of_entry(name, wanted, fields) for name, wanted in given.items()]
    if not parts:
        raise DataError(f"where is empty; name at least one field, {_EXAMPLE}, or leave it out")
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _of_entry(name: Any, wanted: Any, fields: Mapping[str, FieldKind]) -> Condition:
    if not isinstance(name, str) or not name:
        raise DataError(f"where names fields by their names, {_EXAMPLE}; got {shown(name)}")
    if name in ("and", "or"):
        if isinstance(wanted, (str, Mapping)) or not hasattr(wanted, "__iter__"):
            raise DataError(f'"{name}" in where takes a list of mappings; got {type(wanted).__name__}')
        parts = tuple(_part(part, fields) for part in wanted)
        if not parts:
            raise DataError(f'"{name}" in where has no parts; give at least one')
        return All(parts) if name == "and" else Either(parts)
    if name == "not":
        return Not(_part(wanted, fields))
    if isinstance(wanted, Mapping):
        if not wanted:
            raise DataError(f"where says nothing of the field {name!r}; use {', '.join(_OPERATORS)}")
        tests = [_of_operator(name, op, value) for op, value in wanted.items()]
        return tests[0] if len(tests) == 1 else All(tuple(tests))
    return _of_value(name, wanted)


def _part(given: Any, fields: Mapping[str, FieldKind]) -> Condition:
    found = _read(given, fields)
    if found is None:
        raise DataError(f"a part of where is None; give a mapping or a text, {_EXAMPLE}")
    return found


def _of_operator(field: str, op: Any, value: Any) -> Condition:
    if op not in _OPERATORS:
        raise DataError(f"the field {field!r} in where: {unknown('operator', op, _OPERATORS)}")
    if op == "not":
        return Not(_of_entry(field, value, {}))
    if op in _NEGATED:
        return Not(_of_operator(field, _NEGATED[op], value))
    if op == "in":
        if not _is_list(value):
            raise DataError(f'"in" for the field {field!r} takes a list; got {shown(value)}')
        return _of_value(field, value)
    if op == "eq":
        return _of_value(field, value, may_list=False)
    found = _value(field, value)
    if isinstance(found, bool):
        raise DataError(
            f"the field {field!r} cannot be ordered against {shown(value)}; give a number or a text"
        )
    return Compare(field, op, (found,))


def _of_value(field: str, wanted: Any, *, may_list: bool = True) -> Compare:
    """Equal to a value, or to one of several."""
    if may_list and _is_list(wanted):
        values = wanted.tolist() if hasattr(wanted, "tolist") else wanted
        return Compare(field, "in", tuple(dict.fromkeys(_value(field, value) for value in values)))
    return Compare(field, "eq", (_value(field, wanted),))


def _value(field: str, given: Any) -> Value:
    if not isinstance(given, bool) and isinstance(given, numbers.Integral):
        return int(given)  # of any size: one that no field holds is a bound still
    try:
        value = read_value(given)
    except DataError as error:
        raise DataError(f"the field {field!r} in where: {error}") from error
    if value is None:
        raise DataError(
            f"the field {field!r} in where is compared with a missing value, which equals none; leave it out"
        )
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset)) or getattr(value, "ndim", 0) == 1


def _fitting(value: Value, kind: FieldKind, asked: Compare) -> Value:
    """A value of a condition as one of the kind of its field: in ``sku=007`` the text, not the number."""
    family = "number" if kind in ("int", "float") else kind
    if family_of(value) == family:
        return value
    raise DataError(
        f"the field {asked.field!r} holds {_NOUNS[family]}, so it cannot be compared with {value!r} in where"
    )


_NOUNS = {"number": "numbers", "text": "texts", "bool": "true or false"}
