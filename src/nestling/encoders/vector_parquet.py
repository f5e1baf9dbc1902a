"""Vectors in a column of lists of a parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import name_rows
from nestling.encoders.matrix import Vectors
from nestling.errors import DataError, require, unknown

_ROWS_AT_A_TIME = 1 << 14


def read_parquet(
    file: Path, column: str | None, id_column: str | None
) -> tuple[Vectors, NDArray[np.generic] | None]:
    """The vectors and, with ``id_column``, the ids of a parquet file.

    Raises:
        DataError: if the file cannot be read, has no such column, or rows that are missing or of another
            length (named).
        MissingExtraError: without pyarrow.
    """
    parquet, arrow = require("pyarrow.parquet", "parquet"), require("pyarrow", "parquet")
    try:
        with parquet.ParquetFile(file) as source:
            name = _vector_column(file, source.schema_arrow, column)
            if id_column is not None and id_column not in source.schema_arrow.names:
                raise DataError(f"{file}: " + unknown("column", id_column, source.schema_arrow.names))
            return _read_columns(file, source, name, id_column)
    except (arrow.ArrowException, OSError) as error:
        raise DataError(
            f"{file} cannot be read as parquet: {error}. It may be truncated or corrupt; copy it again"
        ) from error


def _read_columns(
    file: Path, source: Any, name: str, id_column: str | None
) -> tuple[Vectors, NDArray[np.generic] | None]:
    count, values = source.metadata.num_rows, None
    ids: list[NDArray[np.generic]] = []
    for start, batch in _batches(source, [name] if id_column is None else [name, id_column]):
        block = _matrix(file, batch.column(name), start, None if values is None else values.shape[1])
        values = np.empty((count, block.shape[1]), block.dtype) if values is None else values
        values[start : start + len(block)] = block
        if id_column is not None:
            ids.append(_ids(file, batch.column(id_column), start))
    if values is None:
        raise DataError(f"{file} holds no rows; give at least one")
    return values, np.concatenate(ids) if ids else None


def _vector_column(file: Path, schema: Any, column: str | None) -> str:
    types = require("pyarrow.types", "parquet")
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    lists = [
        field.name
        for field in schema
        if any(test(field.type) for test in tests)
        and (types.is_floating(field.type.value_type) or types.is_integer(field.type.value_type))
    ]
    if column is not None and column in lists:
        return column
    if column is not None:
        raise DataError(f"{file}: " + unknown("column of vectors", column, lists))
    if len(lists) != 1:
        raise DataError(
            f"{file} has {len(lists)} columns of lists of numbers ({', '.join(lists) or 'none'}) among "
            f"{', '.join(schema.names)}; name the one that holds the vectors with column="
        )
    return str(lists[0])


def _batches(source: Any, columns: list[str]) -> Iterator[tuple[int, Any]]:
    """Record batches, each with the number of its first row."""
    start = 0
    for batch in source.iter_batches(columns=columns, batch_size=_ROWS_AT_A_TIME):
        yield start, batch
        start += len(batch)


def _matrix(file: Path, column: Any, start: int, dim: int | None) -> Vectors:
    """The lists of one batch as a matrix, or an error that names the rows that do not fit."""
    lengths = require("pyarrow.compute", "parquet").list_value_length(column)
    lengths = lengths.fill_null(0).to_numpy(zero_copy_only=False)
    dim = max(1, int(lengths[0])) if dim is None else dim
    wrong = np.flatnonzero(lengths != dim)
    if len(wrong):
        raise DataError(
            f"{file}: the vectors in {name_rows(wrong + start)} are missing or not of {dim} entries; all "
            "must be of one length"
        )
    flat = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), dim)
    matrix: Vectors = flat if flat.dtype.kind == "f" else flat.astype(np.float32)
    return matrix


def _ids(file: Path, column: Any, start: int) -> NDArray[np.generic]:
    missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
    if len(missing):
        raise DataError(f"{file}: the ids of {name_rows(missing + start)} are missing; fill them")
    ids: NDArray[np.generic] = column.to_numpy(zero_copy_only=False)
    return ids
