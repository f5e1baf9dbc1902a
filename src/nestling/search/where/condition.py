"""Conditions on the fields of rows, as a tree that indexes and stores evaluate each in its own way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from nestling.data.tables.fields.kinds import Value

Operator: TypeAlias = Literal["eq", "in", "gt", "gte", "lt", "lte"]


@dataclass(frozen=True)
class Compare:
    """One field compared with values that are given; a missing value never meets it.

    Args:
        field: its name.
        op: ``eq``, ``in``, ``gt``, ``gte``, ``lt`` or ``lte``.
        values: one, or any number for ``in``; none of them is None.
    """

    field: str
    op: Operator
    values: tuple[Value, ...]


@dataclass(frozen=True)
class All:
    """Every part is met."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Either:
    """At least one part is met."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    """The part is not met: all other rows, those without a value among them."""

    part: Condition


Condition: TypeAlias = Compare | All | Either | Not


def meets(condition: Condition, row: Mapping[str, Value]) -> bool:
    """Whether one row meets a condition: the plain form, which every faster one is held to."""
    if isinstance(condition, Not):
        return not meets(condition.part, row)
    if isinstance(condition, All | Either):
        return (all if isinstance(condition, All) else any)(meets(part, row) for part in condition.parts)
    value = row.get(condition.field)
    if value is None:
        return False
    if condition.op in ("eq", "in"):
        return any(_is_alike(value, wanted) and value == wanted for wanted in condition.values)
    wanted = condition.values[0]
    return _is_alike(value, wanted) and _ORDERS[condition.op](value, wanted)


def _is_alike(value: Value, wanted: Value) -> bool:
    """Whether two values can be compared: texts, numbers, or truth values."""
    return family_of(value) == family_of(wanted)


def family_of(value: Value) -> str:
    """``"bool"``, ``"text"`` or ``"number"``: values of one family can be compared."""
    return "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda value, bound: bool(value > bound),
    "gte": lambda value, bound: bool(value >= bound),
    "lt": lambda value, bound: bool(value < bound),
    "lte": lambda value, bound: bool(value <= bound),
}
