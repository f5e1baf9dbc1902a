"""The rows that meet a condition: numpy operations on columns, tested against ``condition.meets``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nestling.data.tables.fields.columns import Column, Columns, Mask
from nestling.data.tables.fields.kinds import FieldKind
from nestling.process.blocks import blocks
from nestling.search.where.condition import All, Compare, Condition, Either, Not, Operator, family_of

_INT64 = np.iinfo(np.int64)
_KEY_BYTES = 8
_FEW = 4  # texts that are looked for one by one
_ROWS_AT_A_TIME = 1 << 17


def rows_meeting(condition: Condition, columns: Columns) -> Mask:
    """``Bool[rows]``, true for the rows that meet a condition; a field that they do not have is missing."""
    if isinstance(condition, Not):
        return ~rows_meeting(condition.part, columns)
    if isinstance(condition, All | Either):
        combine = np.logical_and if isinstance(condition, All) else np.logical_or
        found: Mask = combine.reduce([rows_meeting(part, columns) for part in condition.parts])
        return found
    column = columns.by_name.get(condition.field)
    if column is None:
        return np.zeros(len(columns), np.bool_)
    return _compare(column, condition) & ~column.missing


def _compare(column: Column, asked: Compare) -> Mask:
    values = [value for value in asked.values if family_of(value) == _FAMILIES[column.kind]]
    if asked.op in ("eq", "in"):
        return _among(column, values)
    if not values:
        return np.zeros(len(column), np.bool_)
    order = _ordered_texts if column.kind == "text" else _ordered
    return order(column, asked.op, values[0])


_FAMILIES = {"int": "number", "float": "number", "bool": "bool", "text": "text"}


def _among(column: Column, values: Sequence[Any]) -> Mask:
    """Rows equal to one of some values."""
    if column.kind == "text":
        if len(values) > _FEW:
            return _among_texts(column, values)
        masks = [_equal_texts(column, value.encode()) for value in values]
        found: Mask = np.logical_or.reduce([np.zeros(len(column), np.bool_), *masks])
        return found
    nearest = [_near(value, column.kind) for value in values]
    # Where no number of this kind is equal to a value, no row is.
    equal = [near for near, value in zip(nearest, values, strict=True) if near == value]
    return np.isin(column.values, np.array(equal, column.values.dtype))


def _near(value: Any, kind: FieldKind) -> Any:
    """The number of a kind that is equal to a value, if one is."""
    if kind == "int":
        whole = int(value)
        return whole if _INT64.min <= whole <= _INT64.max else None
    return value if kind == "bool" else _as_float(value)


def _as_float(value: Any) -> float:
    """The float next to a number; infinite beyond all of them."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _ordered(column: Column, op: Operator, bound: Any) -> Mask:
    """Numbers in order, as exactly as Python compares whole numbers with floats."""
    if column.kind == "int":
        # x > 2.5 is x > 2, and x >= 2.5 is x >= 3, of whole numbers.
        whole = math.floor(bound) if op in ("gt", "lte") else math.ceil(bound)
        if not _INT64.min <= whole <= _INT64.max:
            is_met = (op in ("lt", "lte")) == (whole > 0)
            return np.full(len(column), is_met, np.bool_)
        return _apply(op, column.values, whole)
    near = _as_float(bound)
    if near > bound:  # the float lies above the whole number that is meant, and none between the two
        op = {"gt": "gte", "lte": "lt"}.get(op, op)  # type: ignore[assignment]
    elif near < bound:
        op = {"lt": "lte", "gte": "gt"}.get(op, op)  # type: ignore[assignment]
    return _apply(op, column.values, near)


def _apply(op: Operator, values: Any, bound: Any) -> Mask:
    compare = {"gt": np.greater, "gte": np.greater_equal, "lt": np.less, "lte": np.less_equal}[op]
    return np.asarray(compare(values, bound))


def _equal_texts(column: Column, word: bytes) -> Mask:
    """Texts of the right length, then byte by byte those that are still alike."""
    assert column.data is not None
    starts = np.asarray(column.values)
    rows = np.flatnonzero(np.diff(starts) == len(word))
    for place, byte in enumerate(word):
        if not len(rows):
            break
        rows = rows[column.data[starts[rows] + place] == byte]
    found = np.zeros(len(column), np.bool_)
    found[rows] = True
    return found


def _among_texts(column: Column, texts: Sequence[str]) -> Mask:
    """Texts whose first bytes are those of one of some texts, and whole where these are alike."""
    wanted = frozenset(texts)
    keys = np.array([_key(text.encode()) for text in wanted], np.uint64)
    found = np.zeros(len(column), np.bool_)
    for some in blocks(len(column), _ROWS_AT_A_TIME):
        rows = np.arange(some.start, some.stop)
        alike = rows[np.isin(_first_bytes(column, rows), keys)]
        found[alike] = [text in wanted for text in column.tolist(alike)]
    return found


def _key(word: bytes) -> int:
    """The result of ``_first_bytes`` for one text."""
    return int.from_bytes(word[:_KEY_BYTES].ljust(_KEY_BYTES, b"\0"))


def _ordered_texts(column: Column, op: Operator, bound: Any) -> Mask:
    """Texts by their bytes, which is by their code points: by the first bytes, and whole where these tie."""
    word = str(bound).encode()
    found = np.empty(len(column), np.bool_)
    for some in blocks(len(column), _ROWS_AT_A_TIME):
        rows = np.arange(some.start, some.stop)
        keys, key = _first_bytes(column, rows), _key(word)
        found[rows] = _apply(op, keys, np.uint64(key))
        ties = rows[keys == np.uint64(key)]
        texts = column.tolist(ties)
        found[ties] = [text is not None and bool(_PLAIN[op](text.encode(), word)) for text in texts]  # type: ignore[union-attr]
    return found


def _first_bytes(column: Column, rows: Any) -> Any:
    """The first bytes of texts as numbers in the order of the texts; shorter ones are filled with zeros."""
    assert column.data is not None
    starts, ends = np.asarray(column.values[rows]), np.asarray(column.values[rows + 1])
    keys = np.zeros(len(rows), np.uint64)
    for place in range(_KEY_BYTES):
        keys <<= np.uint64(8)
        inside = starts + place < ends
        keys[inside] |= column.data[starts[inside] + place]
    return keys


_PLAIN = {
    "gt": lambda text, bound: text > bound,
    "gte": lambda text, bound: text >= bound,
    "lt": lambda text, bound: text < bound,
    "lte": lambda text, bound: text <= bound,
}
