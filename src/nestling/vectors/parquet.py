"""Vectors in parquet files: a column of lists or tensors, or one column of floats for each entry."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import name_rows
from nestling.data.tables.description import ID_COLUMNS
from nestling.data.tables.fields.arrow import day_columns, lists_of
from nestling.data.tables.input_file import InputFile, find_file
from nestling.data.tables.table import Table
from nestling.errors import DataError, require, unknown
from nestling.vectors.matrix import Vectors

_ROWS_AT_A_TIME = 1 << 14
_NUMBERED = re.compile(r"(.*?)(\d+)", re.DOTALL)


@dataclass(frozen=True)
class Columns:
    """Roles of the columns of a file.

    Args:
        vectors: one of lists or tensors, or as many of floats as the vectors have entries.
        ids: column of ids, if any.
        others: all other columns.
    """

    vectors: tuple[str, ...]
    ids: str | None
    others: tuple[str, ...]


def read_parquet(
    source: InputFile, column: str | None, id_column: str | None
) -> tuple[Vectors, NDArray[np.generic] | None]:
    """The vectors and, where there is a column of them, the ids of a parquet file.

    Raises:
        DataError: if the file cannot be read, has no such column, or rows that are missing or of another
            length (named).
        MissingExtraError: without pyarrow.
    """
    with _opened(source) as file:
        columns = _choose(source.path, file.schema_arrow, column, id_column)
        return _read_columns(source.path, file, columns)


def read_other_columns(
    path: str | Path, column: str | None = None, id_column: str | None = None
) -> Iterator[Table]:
    """The other columns of a parquet file of vectors, some thousands of rows at a time.

    Args:
        path: of the file.
        column: its column of vectors, as :func:`~nestling.vectors.opening.open_vectors` takes it.
        id_column: its column of ids.

    Raises:
        DataError: as :func:`~nestling.vectors.opening.open_vectors`.
        MissingExtraError: without pyarrow.
    """
    source = find_file(path)
    with _opened(source) as file:
        others = list(_choose(source.path, file.schema_arrow, column, id_column).others)
        schema = file.schema_arrow
        kept = require("pyarrow", "parquet").schema([schema.field(name) for name in others])
        days = day_columns(kept, lambda names: file.iter_batches(columns=names))
        for start, batch in _batches(file, others):
            numbers = range(start + 1, start + 1 + batch.num_rows)
            yield Table(source.path, lists_of(batch, days), numbers, unit="row")


@contextmanager
def _opened(source: InputFile) -> Iterator[Any]:
    parquet, arrow = require("pyarrow.parquet", "parquet"), require("pyarrow", "parquet")
    try:
        with parquet.ParquetFile(source.place) as file:
            yield file
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{source.path} cannot be read as parquet: {error}. It may be truncated or corrupt; copy it again"
        ) from error


def _choose(path: Path, schema: Any, column: str | None, id_column: str | None) -> Columns:
    names = list(schema.names)
    if id_column is None:
        id_column = next((name for name in names if name.lower() in ID_COLUMNS), None)
    elif id_column and id_column not in names:
        raise DataError(f"{path}: " + unknown("column", id_column, names))
    vectors = _vector_columns(path, schema, column, id_column)
    return Columns(
        vectors, id_column or None, tuple(name for name in names if name != id_column and name not in vectors)
    )


def _vector_columns(path: Path, schema: Any, column: str | None, id_column: str | None) -> tuple[str, ...]:
    """The column of lists or tensors; or else the floats that are numbered, or that are all there is."""
    types = require("pyarrow.types", "parquet")
    whole = [field.name for field in schema if _is_matrix(field.type)]
    floats = [field.name for field in schema if types.is_floating(field.type) and field.name != id_column]
    found = {name: (name,) for name in whole} | _numbered(floats)
    if column is not None:
        if column not in found:
            raise DataError(f"{path}: " + unknown("column of vectors", column, found))
        return found[column]
    candidates = whole or list(found)
    if len(candidates) == 1:
        return found[candidates[0]]
    if not candidates and len(floats) > 1 and set(schema.names) <= {*floats, id_column}:
        return tuple(floats)
    raise DataError(
        f"{path} has {len(candidates)} columns of vectors ({', '.join(candidates) or 'none'}) among "
        f"{', '.join(schema.names)}; give one column of lists of numbers or tensors, or of floats that are "
        "numbered (v0, v1, ...), or say which with column="
    )


def _is_matrix(kind: Any) -> bool:
    """Whether a column of this type holds a list of numbers, or a tensor of a fixed shape, in each row."""
    types = require("pyarrow.types", "parquet")
    kind = getattr(kind, "storage_type", kind)
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(is_list and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)))


def _numbered(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Sets of names that count from 0 or 1, such as ``v0`` to ``v31``, by what they begin with."""
    sets: dict[str, dict[int, str]] = defaultdict(dict)
    for name in names:
        if parts := _NUMBERED.fullmatch(name):
            sets[parts[1]][int(parts[2])] = name
    return {
        prefix: tuple(each[number] for number in sorted(each))
        for prefix, each in sets.items()
        if len(each) > 1 and sorted(each) in (list(range(len(each))), list(range(1, len(each) + 1)))
    }


def _read_columns(path: Path, file: Any, columns: Columns) -> tuple[Vectors, NDArray[np.generic] | None]:
    count, values = file.metadata.num_rows, None
    ids: list[NDArray[np.generic]] = []
    wanted = [*columns.vectors, *([] if columns.ids is None else [columns.ids])]
    for start, batch in _batches(file, wanted):
        if len(columns.vectors) > 1:
            block = _joined([batch.column(name) for name in columns.vectors])
        else:
            dim = None if values is None else values.shape[1]
            block = _matrix(path, batch.column(columns.vectors[0]), start, dim)
        values = np.empty((count, block.shape[1]), block.dtype) if values is None else values
        values[start : start + len(block)] = block
        if columns.ids is not None:
            ids.append(_ids(path, batch.column(columns.ids), start))
    if values is None:
        raise DataError(f"{path} holds no rows; give at least one")
    return values, np.concatenate(ids) if ids else None


def _batches(file: Any, columns: list[str]) -> Iterator[tuple[int, Any]]:
    """Record batches, each with the number of its first row."""
    start = 0
    for batch in file.iter_batches(columns=columns, batch_size=_ROWS_AT_A_TIME):
        yield start, batch
        start += len(batch)


def _joined(columns: Sequence[Any]) -> Vectors:
    """Columns of floats side by side; a missing one is NaN."""
    return np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)


def _matrix(path: Path, column: Any, start: int, dim: int | None) -> Vectors:
    """The lists of one batch as a matrix, or an error that names the rows that do not fit."""
    column = getattr(column, "storage", column)
    lengths = require("pyarrow.compute", "parquet").list_value_length(column)
    lengths = lengths.fill_null(0).to_numpy(zero_copy_only=False)
    dim = max(1, int(lengths[0])) if dim is None else dim
    wrong = np.flatnonzero(lengths != dim)
    if len(wrong):
        raise DataError(
            f"{path}: the vectors in {name_rows(wrong + start)} are missing or not of {dim} entries; all "
            "must be of one length"
        )
    flat = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), dim)
    matrix: Vectors = flat if flat.dtype.kind == "f" else flat.astype(np.float32)
    return matrix


def _ids(path: Path, column: Any, start: int) -> NDArray[np.generic]:
    missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
    if len(missing):
        raise DataError(f"{path}: the ids of {name_rows(missing + start)} are missing; fill them")
    ids: NDArray[np.generic] = column.to_numpy(zero_copy_only=False)
    return ids
