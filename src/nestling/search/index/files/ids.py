"""Ids of rows: whole numbers or strings, given by the user or counted."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.ids import LAST, LONGEST, as_ids, check_different
from nestling.errors import DataError, named

Ids: TypeAlias = NDArray[Any]
"""``Int64[n]`` or ``str_[n]``."""

IdKind: TypeAlias = Literal["int", "str"]

NO_ID: dict[IdKind, int | str] = {"int": -1, "str": ""}
"""The id of missing rows in results."""


def read_ids(given: Any, what: str = "ids", *, any_order: bool = False) -> Ids:
    """``given`` as ids: ``Int64[n]`` of at least 0, or strings of 1 to 256 characters.

    Args:
        given: a list, array, tensor or column.
        what: their name in errors.
        any_order: also take a set, where the order does not matter.

    Raises:
        DataError: as :func:`~nestling.arguments.ids.as_ids`, and for numbers below 0 and strings that are
            empty or too long.
    """
    array = as_ids(list(given) if any_order and isinstance(given, set | frozenset) else given, what)
    if array.dtype.kind == "U":
        lengths = np.strings.str_len(array)
        if len(array) and (lengths.min() < 1 or lengths.max() > LONGEST):
            row = int(np.flatnonzero((lengths < 1) | (lengths > LONGEST))[0])
            raise DataError(
                f"{what} must be strings of 1 to {LONGEST} characters; row {row} has {int(lengths[row])}"
            )
        return array
    if len(array) and (int(array.min()) < 0 or int(array.max()) > LAST):
        wrong = [int(number) for number in array if not 0 <= number <= LAST][:3]
        raise DataError(f"{what} must be whole numbers from 0 to 2**63 - 2, not {', '.join(map(str, wrong))}")
    return array.astype(np.int64)


def check_new_ids(given: Any, count: int) -> Ids:
    """``given`` as the different ids of ``count`` rows.

    Raises:
        DataError: as :func:`read_ids`, and for another number of them or repeated ones.
    """
    return check_different(read_ids(given), count)


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
        remedy = ", or build it again with texts as ids: --id-column NAME:text" if kind == "int" else ""
        raise DataError(
            f"the ids of this index are {words[kind]}, but {words[kind_of(ids)]} are given; "
            f"use ids of its kind{remedy}"
        )


def name_ids(ids: Ids, then: str = "") -> str:
    """Ids named for a message: ``id 7``, or ``12 ids (7, 9, 11, 14, 15, ...)``.

    Args:
        ids: of an index.
        then: words that follow, up to the verb; see :func:`~nestling.errors.named`.
    """
    return named("id", [repr(name.item()) for name in ids[:6]], len(ids), then)
