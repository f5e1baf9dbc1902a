"""Kinds of metadata values, and the kind inferred for a column."""

from __future__ import annotations

import datetime
import decimal
import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from nestling.arguments.formatting import shown, type_of
from nestling.cut import name_rows
from nestling.data.tables.fields.times import time_text, time_texts
from nestling.data.tables.fields.words import INT_END, said_by
from nestling.errors import DataError

FieldKind: TypeAlias = Literal["int", "float", "bool", "text"]
Value: TypeAlias = str | int | float | bool | None
"""One value of a field; None where it is missing."""

_TORN = re.compile("[\x00\ud800-\udfff]")


def read_value(given: Any) -> Value:
    """One value as a plain str, int, float, bool, or None where it is missing.

    Numbers of numpy become Python's, decimals whole numbers if they have no places behind the point and else
    floats. NaN and pandas' NA and NaT are None. Dates and times become their ISO 8601 text, which sorts as
    they do; times with a zone are those of UTC.

    Raises:
        DataError: for a list, bytes or another object, an infinite number, a whole number beyond 64 bits, or
            a text with a null character or half of a surrogate pair.
    """
    return _checked(_plain(given))


def _plain(given: Any) -> Value:
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
        value = time_text(given)
    elif isinstance(given, numbers.Integral) or _is_whole(given):
        value = int(given)
    elif isinstance(given, (numbers.Real, decimal.Decimal)):
        value = _float(given)
    else:
        raise _refused(given)
    return value


def _is_whole(given: Any) -> bool:
    """Whether it is a decimal without places behind the point, as databases write their whole numbers."""
    return isinstance(given, decimal.Decimal) and given.is_finite() and given.as_tuple().exponent == 0


def _refused(given: Any) -> DataError:
    return DataError(f"a field holds {type_of(given)}; give a text, a number, True or False, a date, or None")


def _read_scalar(given: Any) -> Value:
    """A scalar of numpy or torch."""
    kind = getattr(given.dtype, "kind", "")
    if kind == "M":
        found = time_texts(np.asarray([given]))[0]
        if not isinstance(found, str | None):
            raise DataError(f"a field holds the time {given}, whose year is not from 1 to 9999")
        return found
    plain = given.item()
    if kind != "m" and not hasattr(plain, "dtype"):
        return _plain(plain)
    if kind != "f":  # Python has no such number
        raise _refused(given)
    return float(given)


def _float(given: Any) -> float:
    try:
        return float(given)
    except OverflowError:
        return math.inf


def _checked(value: Value) -> Value:
    if isinstance(value, float):
        if math.isinf(value):
            raise DataError(
                "a field holds an infinite number, which has no place in JSON and in some databases; give a "
                "finite one, or none"
            )
        return None if math.isnan(value) else value
    if isinstance(value, int) and not -INT_END <= value < INT_END:
        raise DataError(f"a field holds {value}, which takes more than 64 bits; give it as a text or a float")
    if isinstance(value, str) and _TORN.search(value):
        raise DataError(
            f"a field holds {value[:40]!r}, with a null character or half of a surrogate pair; remove it"
        )
    return value


def check_kinds(kinds: Any) -> None:
    """Check a mapping of names of fields to their types.

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
        raise DataError(f"fields are named by texts; {shown(name)} is none")
    if _TORN.search(name):
        raise DataError(
            f"the field {name!r} has a null character or half of a surrogate pair in its name; remove it"
        )


def kind_of(values: Iterable[Value]) -> FieldKind | None:
    """The kind that holds all of ``values``; None if every one is missing.

    Whole numbers among floats are floats; where there are texts among numbers, all are texts.
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


def converted(
    values: Sequence[Any],
    kind: FieldKind,
    what: str,
    *,
    name_rows: Callable[[Sequence[int]], str] = name_rows,
    missing: str = "None",
) -> list[Value]:
    """Values as those of one kind: None, or what the kind holds.

    Among numbers and truth values, texts are what ``said_by`` reads in them.

    Args:
        values: as :func:`read_value` takes them.
        kind: the declared kind.
        what: their name in messages.
        name_rows: names their rows, such as lines of a file.
        missing: the advice in errors on how to leave a value out.

    Raises:
        DataError: for values that are of another kind (their rows are named).
    """
    found: list[Value] = []
    wrong: list[int] = []
    for row, given in enumerate(values):
        try:
            found.append(_convert(given, kind))
        except ValueError as error:
            if isinstance(error, DataError):
                raise DataError(f"{what}, {name_rows([row])}: {error}") from error
            wrong.append(row)
    if wrong:
        raise DataError(
            f"{what} holds {NOUNS[kind]}, but {values[wrong[0]]!r} is in {name_rows(wrong)}; "
            f"give values of its kind, or {missing} where there is none"
        )
    return found


NOUNS = {"int": "whole numbers", "float": "numbers", "bool": "true or false", "text": "texts"}
"""Names of kinds in messages."""


def _convert(given: Any, kind: FieldKind) -> Value:
    value = _plain(given)
    if kind == "text":
        is_beyond = isinstance(value, int) and not isinstance(value, bool)  # no text is too long for it
        value = _checked(str(value) if is_beyond else value)
        return value if value is None or isinstance(value, str) else _as_text(value)
    value = _checked(said_by(value) if isinstance(value, str) else value)
    if value is None:
        return None
    if isinstance(value, str) or (kind == "bool") != isinstance(value, bool):
        raise ValueError(value)
    if kind == "float":
        return _as_float(value)
    return value if kind == "bool" else _as_whole(value)


def _as_whole(value: float) -> int:
    number = int(value)
    if value != number or not -INT_END <= number < INT_END:
        raise ValueError(value)
    return number


def _as_float(value: float) -> float:
    found = float(value)
    if isinstance(value, int) and int(found) != value:
        raise DataError(f"{value} has more digits than a float, which would become {int(found)}; give a text")
    return found


def _as_text(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def widened(values: Sequence[Any], kind: FieldKind) -> FieldKind:
    """The kind that a field of one kind needs for more values: whole numbers widen to floats, if one comes.

    A float that is whole, as data frames write whole numbers beside missing ones, is none.
    """
    return "float" if kind == "int" and any(map(_is_fraction, values)) else kind


def _is_fraction(given: Any) -> bool:
    value = _plain(given)
    value = said_by(value) if isinstance(value, str) else value
    if not isinstance(value, float) or not math.isfinite(value):
        return False
    return not (-INT_END <= value < INT_END and value == int(value))
