"""Validation of row ids: whole numbers or strings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isnan
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.arrays import as_array
from nestling.arguments.formatting import type_of
from nestling.errors import DataError, named

Ids = NDArray[Any]
"""``Int[n]`` or ``str_[n]``."""

# Strings are stored at fixed width: one long id would make all of them long.
LONGEST = 256
"""Characters of the longest id of an index."""

LAST = 2**63 - 2
"""The largest number that is an id of an index."""

_LARGEST = 2**63 - 1
_TORN = re.compile("[\x00\ud800-\udfff]")


def fault_of(name: int | str) -> str:
    """Reason an id cannot be used in an index, as a verb and its object; "" if it can."""
    if isinstance(name, int):
        return "" if 0 <= name <= LAST else f"holds {name}, which is not from 0 to 2**63 - 2,"
    if not 1 <= len(name) <= LONGEST:
        return f"holds a text of {len(name)} characters, where 1 to {LONGEST} make an id,"
    if name.isascii() and "\0" not in name:
        return ""
    return "holds a null character or half of a surrogate pair" if _TORN.search(name) else ""


def as_ids(given: Any, what: str = "ids") -> Ids:
    """``given`` as ids: a list, array, tensor or column of whole numbers, or of strings.

    Raises:
        DataError: for another type or shape, sets, numbers among strings, ids that are missing, numbers from
            2**63, and strings with a null character or half of a surrogate pair (the first row is named).
    """
    if isinstance(given, set | frozenset):
        raise DataError(f"{what} must have an order, and {type_of(given)} has none; give a list")
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise DataError(f"{what} must be a list of whole numbers or of strings, not {type_of(given)}")
    array = as_array(given, what) if hasattr(given, "detach") else given
    if not isinstance(array, np.ndarray) or array.dtype.kind in "OU":
        values = array.to_pylist() if hasattr(array, "to_pylist") else list(array)
        _check_values(values, what)
        if not isinstance(array, np.ndarray) or array.dtype.kind == "O":
            array = as_array(values, what) if values else np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise DataError(
            f"{what} must be a list of whole numbers or of strings, not {array.dtype} of shape {array.shape}"
        )
    if array.dtype.kind == "u" and len(array) and int(array.max()) > _LARGEST:
        _refuse_number(int(array.argmax()), int(array.max()), what)
    return array


def _check_values(values: list[Any], what: str) -> None:
    for row, value in enumerate(values):
        if value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and isnan(value)):
            raise DataError(
                f"{what} must be a list of whole numbers or of strings, but row {row} has none; fill it"
            )
        if isinstance(value, bool | np.bool_):
            raise DataError(f"{what} must be whole numbers or strings, not bool, but row {row} has {value!r}")
        if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
            _refuse_number(row, value, what)
        if isinstance(value, str) != isinstance(values[0], str):
            raise DataError(
                f"{what} must be all whole numbers or all strings, not some of each: row 0 has "
                f"{values[0]!r}, row {row} has {value!r}"
            )
        # Numpy drops a null at the end, and no file or database holds half of a character.
        if isinstance(value, str) and ("\0" in value or (not value.isascii() and _TORN.search(value))):
            raise DataError(
                f"{what} must not hold null characters or half of a surrogate pair, but row {row} has "
                f"{value!r}"
            )


def _refuse_number(row: int, value: int, what: str) -> NoReturn:
    raise DataError(
        f"{what} must be whole numbers below 2**63, but row {row} has {value}; give those as strings"
    )


def check_different(ids: Ids, count: int) -> Ids:
    """``ids``, one for each of ``count`` rows, all different.

    Raises:
        DataError: for another number of ids, or some that occur twice (said which).
    """
    if len(ids) != count:
        raise DataError(f"{len(ids)} ids are given for {count} rows; give one for each")
    names, counts = np.unique(ids, return_counts=True)
    if len(names) < count:
        twice = names[counts > 1]
        repeated = named("id", list(map(str, twice[:6])), len(twice), "occur")
        raise DataError(f"ids must be different, but {repeated} more than once")
    return ids
