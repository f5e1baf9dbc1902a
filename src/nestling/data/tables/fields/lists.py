"""Converts ``fields`` (a mapping, a data frame or a list of rows) to lists by field name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nestling.data.tables.fields.arrow import day_columns, lists_of
from nestling.data.tables.fields.kinds import check_name
from nestling.data.tables.fields.times import are_days, time_texts
from nestling.errors import DataError


def field_lists(given: Any, rows: int) -> dict[str, Sequence[Any]]:
    """The values of each field, by its name.

    Args:
        given: a mapping of names to columns, a data frame of pandas, a table of Arrow, a list of one mapping
            a row, or None.
        rows: number of rows.

    Raises:
        DataError: for anything else, another number of rows in a list, two columns of one name, or a name
            that no field can have.
    """
    if given is None:
        return {}
    if hasattr(given, "columns") and hasattr(given, "to_dict"):  # a data frame of pandas
        _check_once(list(given.columns))
        given = {name: given[name] for name in given.columns}
    elif hasattr(given, "to_pydict"):  # a table of Arrow
        _check_once(list(given.column_names))
        given = lists_of(given, day_columns(given.schema, lambda names: given.select(names).to_batches()))
    if isinstance(given, Mapping):
        lists = {name: _as_list(name, values) for name, values in given.items()}
    elif isinstance(given, Sequence) and all(isinstance(row, Mapping) for row in given):
        if len(given) != rows:
            raise DataError(
                f"fields are given for {len(given)} rows, and there are {rows}; give them for each"
            )
        names = dict.fromkeys(name for row in given for name in row)
        lists = {name: [row.get(name) for row in given] for name in names}
    else:
        raise DataError(
            "fields must be a mapping of names to columns, a data frame, or a list of one mapping per row, "
            f"not {type(given).__name__}"
        )
    for name in lists:
        check_name(name)
    return lists


def _check_once(names: Sequence[Any]) -> None:
    """The columns of a table have different names.

    Raises:
        DataError: for two of one name.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"the table has {names.count(twice[0])} columns named {twice[0]!r}; rename or drop them"
        )


def _as_list(name: Any, values: Any) -> Sequence[Any]:
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise DataError(f"the field {name!r} must be a list of values, one a row, not {values!r}")
    kind = getattr(values, "dtype", None)
    if getattr(kind, "kind", "") == "M" and getattr(kind, "tz", None) is None:
        times = np.asarray(values)
        return time_texts(times, days=are_days(times))
    return values.tolist() if hasattr(values, "tolist") else list(values)
