"""Metadata of rows: what a field may hold, and which kind a column of values is of."""

from __future__ import annotations

import datetime
import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from nestling.cut import name_rows
from nestling.errors import DataError

FieldKind: TypeAlias = Literal["int", "float", "bool", "text"]
Value: TypeAlias = str | int | float | bool | None
"""One value of a field; None where it is missing."""

_MOST = 2**63
_INT = re.compile(r"-?(0|[1-9]\d{0,18})", re.ASCII)
_FLOAT = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_BOOL = {"true": True, "false": False}
_TORN = re.compile("[\x00\ud800-\udfff]")


def read_value(given: Any) -> Value:
    """One value as a plain str, int, float, bool, or None where it is missing.

    Numbers of numpy become Python's, NaN and pandas' NA and NaT become None, dates their ISO 8601 text
    (which sorts as the dates do).

    Raises:
        DataError: for a list, bytes or another object, an infinite number, a whole number beyond 64 bits, or
            a text with a null character or half of a surrogate pair.
    """
    value: Value
    if hasattr(given, "dtype") and getattr(given, "shape", None) == ():
        return _read_scalar(given)
    if given is None or isinstance(given, bool):
        value = given
    elif isinstance(given, str):
        value = str.__str__(given)  # of a member of an enum too, what it stands for
    elif type(given).__name__ in ("NAType", "NaTType"):
        value = None
    elif isinstance(given, (datetime.date, datetime.time)):
        value = given.isoformat()
    elif isinstance(given, numbers.Integral):
        value = int(given)
    elif isinstance(given, numbers.Real) or type(given).__name__ == "Decimal":
        value = _float(given)
    else:
        raise DataError(
            f"a field holds a {type(given).__name__}; give a text, a number, True or False, a date, or None"
        )
    return _checked(value)


def _read_scalar(given: Any) -> Value:
    """A scalar of numpy or torch."""
    kind = getattr(given.dtype, "kind", "")
    if kind in ("m", "M"):
        text = str(given)
        return None if text == "NaT" else text
    plain = given.item()
    if not hasattr(plain, "dtype"):
        return read_value(plain)
    if kind != "f":  # Python has no such number
        raise DataError(f"a field holds a {type(given).__name__}; give a text, a number, a date, or None")
    return read_value(float(given))


def _float(given: Any) -> float:
    try:
        return float(given)
    except OverflowError:
        return math.inf


def _checked(value: Value) -> Value:
    if isinstance(value, float):
        if math.isinf(value):
            raise DataError("a field holds an infinite number; give a finite one, or None")
        return None if math.isnan(value) else value
    if isinstance(value, int) and not -_MOST <= value < _MOST:
        raise DataError(f"a field holds {value}, which takes more than 64 bits; give it as a text or a float")
    if isinstance(value, str) and _TORN.search(value):
        raise DataError(
            f"a field holds {value[:40]!r}, with a null character or half of a surrogate pair; remove it"
        )
    return value


def check_kinds(kinds: Any) -> None:
    """Fields by their names, and what each holds.

    Raises:
        DataError: for anything but a mapping of names to kinds.
    """
    allowed = get_args(FieldKind)
    if not isinstance(kinds, Mapping):
        raise DataError(
            f"kinds must map the names of fields to one of {', '.join(allowed)}; got {type(kinds).__name__}"
        )
    for name, kind in kinds.items():
        check_name(name)
        if kind not in allowed:
            raise DataError(f"the field {name!r} has the kind {kind!r}; give one of {', '.join(allowed)}")


def check_name(name: Any) -> None:
    """The name of a field.

    Raises:
        DataError: for what is no text, or blank, or has a null character or half of a surrogate pair.
    """
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"fields are named by texts; {name!r} is none")
    if _TORN.search(name):
        raise DataError(
            f"the field {name!r} has a null character or half of a surrogate pair in its name; remove it"
        )


def kind_of(values: Iterable[Value]) -> FieldKind | None:
    """The kind that holds all of ``values``; None if every one is missing.

    Whole numbers among floats are floats; where texts stand among numbers, all are texts.
    """
    found = {type(value) for value in values if value is not None}
    if not found:
        return None
    if found <= {int, float}:
        return "float" if float in found else "int"
    return "bool" if found == {bool} else "text"


def joined_kind(first: FieldKind | None, second: FieldKind | None) -> FieldKind | None:
    """The kind that holds the values of both."""
    if first is None or second is None or first == second:
        return first or second
    return "float" if {first, second} == {"int", "float"} else "text"


def kind_of_texts(texts: Iterable[str | None]) -> FieldKind | None:
    """The kind of a column that a file holds as texts, such as one of a CSV; blank ones are missing.

    ``007`` is a text, not a number: its zeros would be lost.
    """
    kinds = {_kind_of_text(text) for text in set(texts) if text is not None and text.strip()}
    kind: FieldKind | None = None
    for each in kinds:
        kind = joined_kind(kind, each)
    return kind


def _kind_of_text(text: str) -> FieldKind:
    word = text.strip()
    if _INT.fullmatch(word) and -_MOST <= int(word) < _MOST:
        return "int"
    if _FLOAT.fullmatch(word) and math.isfinite(float(word)):
        return "float"
    return "bool" if word.lower() in _BOOL else "text"


def converted(values: Sequence[Any], kind: FieldKind, what: str) -> list[Value]:
    """Values as those of one kind: None, or what the kind holds; texts that say a number become one.

    Args:
        values: as :func:`read_value` takes them.
        kind: what they are to be.
        what: how a message names them.

    Raises:
        DataError: for values that are of another kind (their rows are named).
    """
    found: list[Value] = []
    wrong: list[int] = []
    for row, given in enumerate(values):
        try:
            found.append(_convert(read_value(given), kind))
        except ValueError as error:
            if isinstance(error, DataError):
                raise DataError(f"{what}, {name_rows([row])}: {error}") from error
            wrong.append(row)
    if wrong:
        raise DataError(
            f"{what} holds {_NOUNS[kind]}, but {values[wrong[0]]!r} stands in {name_rows(wrong)}; "
            "give values of its kind, or None where there is none"
        )
    return found


_NOUNS = {"int": "whole numbers", "float": "numbers", "bool": "true or false", "text": "texts"}


def _convert(value: Value, kind: FieldKind) -> Value:
    if value is None or (isinstance(value, str) and kind != "text" and not value.strip()):
        return None
    if kind == "text":
        return value if isinstance(value, str) else _as_text(value)
    if isinstance(value, str):
        if _kind_of_text(value) not in (("int", "float") if kind == "float" else (kind,)):
            raise ValueError(value)
        return _BOOL[value.strip().lower()] if kind == "bool" else _number(value.strip(), kind)
    if (kind == "bool") != isinstance(value, bool) or (kind == "int" and value != int(value)):
        raise ValueError(value)
    return value if kind == "bool" else _number(value, kind)


def _number(value: Any, kind: FieldKind) -> int | float:
    if kind == "float":
        return float(value)
    number = int(value)
    if not -_MOST <= number < _MOST:
        raise ValueError(value)
    return number


def _as_text(value: int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
