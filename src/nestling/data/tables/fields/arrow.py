"""Arrow columns as lists of Python values; times become texts, date columns keep no hours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from nestling.data.tables.fields.times import are_days, time_texts
from nestling.errors import require


def lists_of(table: Any, days: Iterable[str] = ()) -> dict[str, list[Any]]:
    """The columns of a table or record batch as lists, by name.

    Args:
        table: of Arrow.
        days: names of columns of times that are written without hours.
    """
    dates = set(days)
    return {
        name: _values(column, name in dates)
        for name, column in zip(table.schema.names, table.columns, strict=True)
    }


def day_columns(schema: Any, read: Any) -> set[str]:
    """The columns of times that are dates: without a zone, and midnight in all rows, as in data frames.

    Args:
        schema: of the columns.
        read: gives record batches of some of them, by their names.
    """
    types = require("pyarrow.types", "parquet")
    kinds = {each.name: getattr(each.type, "value_type", each.type) for each in schema}  # of a dictionary
    dates = {name for name, kind in kinds.items() if types.is_timestamp(kind) and kind.tz is None}
    dates -= {each.name for each in schema if types.is_nested(each.type)}
    batches: Iterator[Any] = read(sorted(dates)) if dates else iter(())
    for batch in batches:
        dates -= {name for name in dates if not are_days(_times(_decoded(batch.column(name))))}
        if not dates:
            break
    return dates


def _times(column: Any) -> Any:
    """``Datetime64[n]``; of a column with a zone in UTC."""
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _decoded(column: Any) -> Any:
    types = require("pyarrow.types", "parquet")
    return column.cast(column.type.value_type) if types.is_dictionary(column.type) else column


def _values(column: Any, days: bool) -> list[Any]:
    types, column = require("pyarrow.types", "parquet"), _decoded(column)
    kind = column.type
    if types.is_timestamp(kind):
        return time_texts(_times(column), is_utc=kind.tz is not None, days=days)
    if types.is_date(kind):
        return time_texts(_times(column), days=True)
    if types.is_time64(kind) and kind.unit == "ns":  # Python's times know no billionths
        texts = column.cast("string").to_pylist()
        return [None if text is None else text.removesuffix("000").removesuffix(".000000") for text in texts]
    if types.is_duration(kind):
        return list(_times(column))
    return list(column.to_pylist())
