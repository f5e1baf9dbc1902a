"""What rows are called: whole numbers or strings, chosen by the user or counted."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.errors import DataError

Ids: TypeAlias = NDArray[Any]
"""``Int64[n]`` or ``str_[n]``."""

IdKind: TypeAlias = Literal["int", "str"]

NO_ID: dict[IdKind, int | str] = {"int": -1, "str": ""}
"""What stands in results where there is no row."""

# Strings are stored with one width, so that one long one would make all of them long.
_LONGEST = 256


def read_ids(given: Any, what: str = "ids") -> Ids:
    """``given`` as ids: ``Int64[n]`` of at least 0, or strings of 1 to 256 characters.

    Raises:
        DataError: for another type or shape, numbers below 0, strings that are empty, too long or hold a
            null character.
    """
    values = list(given) if isinstance(given, (set, frozenset)) else given
    array = values if isinstance(values, np.ndarray) else _array_of(values)
    if array.dtype.kind == "O" and all(isinstance(name, str) for name in array.flat):
        array = array.astype(np.str_)
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise DataError(
            f"{what} must be a list of whole numbers or of strings, not {array.dtype} of shape {array.shape}"
        )
    if array.dtype.kind == "U":
        return _check_strings(array, values, what)
    if len(array) and (int(array.min()) < 0 or int(array.max()) > np.iinfo(np.int64).max - 1):
        wrong = [int(number) for number in array if not 0 <= number < np.iinfo(np.int64).max][:3]
        raise DataError(f"{what} must be whole numbers from 0 to 2**63 - 2, but {wrong} are given")
    return array.astype(np.int64)


def _array_of(values: Any) -> NDArray[Any]:
    listed = list(values)
    if not listed:
        return np.zeros(0, np.int64)
    if len({isinstance(value, str) for value in listed}) > 1:
        raise DataError("ids must be all whole numbers or all strings, not some of each")
    return np.asarray(listed)


def _check_strings(array: Ids, given: Any, what: str) -> Ids:
    lengths = np.strings.str_len(array)
    # A null at the end is dropped by numpy, so it has to be looked for in what was given.
    if any("\0" in name for name in (given if not isinstance(given, np.ndarray) else array)):
        raise DataError(f"{what} must not hold null characters")
    if len(array) and (lengths.min() < 1 or lengths.max() > _LONGEST):
        row = int(np.flatnonzero((lengths < 1) | (lengths > _LONGEST))[0])
        raise DataError(
            f"{what} must be strings of 1 to {_LONGEST} characters; row {row} has {int(lengths[row])}"
        )
    return array


def check_new_ids(given: Any, count: int) -> Ids:
    """``given`` as the different ids of ``count`` rows.

    Raises:
        DataError: as :func:`read_ids`, and for another number of them or repeated ones.
    """
    ids = read_ids(given)
    if len(ids) != count:
        raise DataError(f"{len(ids)} ids are given for {count} rows; give one for each")
    names, counts = np.unique(ids, return_counts=True)
    if len(names) < count:
        repeated = ", ".join(map(str, names[counts > 1][:3]))
        raise DataError(f"ids must be different, but {repeated} occur more than once")
    return ids


def kind_of(ids: Ids) -> IdKind:
    """Whether ids are numbers or strings."""
    return "str" if ids.dtype.kind == "U" else "int"


def check_kind(ids: Ids, kind: IdKind | None) -> None:
    """Ids of an index are of one kind, which its first rows decide.

    Raises:
        DataError: for ids of the other kind.
    """
    if kind is not None and len(ids) and kind_of(ids) != kind:
        words = {"int": "whole numbers", "str": "strings"}
        raise DataError(
            f"the ids of this index are {words[kind]}, but {words[kind_of(ids)]} are given; "
            "use ids of its kind"
        )


def name_ids(ids: Ids, most: int = 3) -> str:
    """Ids named for a message: ``7``, or ``12 ids (7, 9, 11, ...)``."""
    shown = ", ".join(repr(name.item()) for name in ids[:most])
    return shown if len(ids) == 1 else f"{len(ids)} ids ({shown}{', ...' * (len(ids) > most)})"
