"""Typed columns of metadata fields, in memory or memory-mapped.

Numbers are ``Int64`` or ``Float64``, texts UTF-8 bytes one after the other with their offsets, so that
columns of millions of rows are filtered by a few operations of numpy and never read whole into memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.data.tables.fields.kinds import (
    FieldKind,
    Value,
    check_kinds,
    converted,
    joined_kind,
    kind_of,
    read_value,
    widened,
)
from nestling.data.tables.fields.lists import field_lists
from nestling.errors import ArtifactError, DataError, unknown
from nestling.process.blocks import blocks

Kinds: TypeAlias = Mapping[str, FieldKind]
"""The fields of a table in order, each with its type."""

Mask: TypeAlias = NDArray[np.bool_]
_DTYPES: dict[FieldKind, str] = {"int": "<i8", "float": "<f8", "bool": "|b1", "text": "<i8"}
_ROWS_AT_A_TIME = 1 << 16
_EXACT = 2**53  # up to here all whole numbers are floats


@dataclass(frozen=True, eq=False)
class Column:
    """The values of one field.

    Args:
        kind: type of the values.
        values: ``Int64[n]``, ``Float64[n]`` or ``Bool[n]``; of texts ``Int64[n + 1]``, where each begins in
            ``data`` and the last one ends.
        missing: ``Bool[n]``, true where there is no value.
        data: of texts, their UTF-8 bytes.
    """

    kind: FieldKind
    values: NDArray[Any]
    missing: Mask
    data: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.missing)

    @classmethod
    def of(cls, values: Sequence[Value], kind: FieldKind) -> Column:
        """A column of plain values of its kind."""
        missing = np.fromiter((value is None for value in values), np.bool_, len(values))
        if kind != "text":
            dense = [0 if value is None else value for value in values]
            return cls(kind, np.array(dense, _DTYPES[kind]), missing)
        parts = [b"" if value is None else str(value).encode() for value in values]
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return cls(kind, offsets, missing, np.frombuffer(b"".join(parts), np.uint8))

    def as_kind(self, kind: FieldKind) -> Column:
        """The column as one of ``kind``, which is its own, or ``float`` where it holds whole numbers."""
        if (self.kind, kind) != ("int", "float"):
            return self
        return Column("float", np.asarray(self.values, np.float64), self.missing)

    def first_inexact(self, chosen: Mask) -> int | None:
        """The first whole number among chosen rows that no float is equal to; None where there is none."""
        if self.kind != "int":
            return None
        rows = np.flatnonzero(chosen & ~self.missing & (np.abs(self.values) > _EXACT))
        held: list[int] = np.asarray(self.values[rows]).tolist()
        return next((value for value in held if int(float(value)) != value), None)

    def take(self, rows: NDArray[np.int64]) -> Column:
        """The column of some rows, in their order."""
        if self.data is None:
            return Column(self.kind, np.asarray(self.values[rows]), self.missing[rows])
        starts = np.asarray(self.values[rows])
        lengths = np.asarray(self.values[rows + 1]) - starts
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        places = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Column(self.kind, offsets, self.missing[rows], np.asarray(self.data[places]))

    def tolist(self, rows: NDArray[np.int64] | None = None) -> list[Value]:
        """The values of some rows (all by default) as plain ones."""
        part = self if rows is None else self.take(rows)
        if part.data is None:
            found: list[Value] = np.asarray(part.values).tolist()
        else:
            raw, ends = part.data.tobytes(), part.values.tolist()
            found = [raw[start:end].decode() for start, end in pairwise(ends)]
        for row in np.flatnonzero(part.missing):
            found[row] = None
        return found


@dataclass(frozen=True, eq=False)
class Columns:
    """The fields of some rows.

    Args:
        by_name: a column for each field, in order, all of ``rows`` values.
        rows: number of rows, also where there is no field.
    """

    by_name: dict[str, Column]
    rows: int

    def __len__(self) -> int:
        return self.rows

    @property
    def kinds(self) -> dict[str, FieldKind]:
        """The kind of each field."""
        return {name: column.kind for name, column in self.by_name.items()}

    @classmethod
    def read(cls, given: Any, rows: int, kinds: Kinds | None = None, *, may_widen: bool = False) -> Columns:
        """The columns that an argument ``fields`` gives, of which there may be fewer than ``kinds``.

        Args:
            given: a mapping of names to ``rows`` values, a data frame, one mapping per row, or None.
            rows: number of rows.
            kinds: the fields that there may be; found from the values by default.
            may_widen: a column of floats may be given for a field of whole numbers.

        Raises:
            DataError: for other kinds, another number of values, a field that is not of ``kinds`` (the
                nearest are named), or values that it cannot hold (their rows are named).
        """
        if kinds is not None:
            check_kinds(kinds)
        if isinstance(given, Columns) and given.rows == rows and given.has_kinds_of(kinds):
            return given
        if isinstance(given, Columns):
            given = {name: column.tolist() for name, column in given.by_name.items()}
        lists = field_lists(given, rows)
        for name, values in lists.items():
            if len(values) != rows:
                raise DataError(
                    f"the field {name!r} has {len(values)} values for {rows} rows; give one for each"
                )
        if kinds is None:
            kinds = {name: _kind(name, values) for name, values in lists.items()}
        strangers = [name for name in lists if name not in kinds]
        if strangers:
            known = unknown("field", strangers[0], kinds) if kinds else f"unknown field {strangers[0]!r}"
            raise DataError(
                f"{known}; the fields were settled by the first rows, so give these or leave the others out"
            )
        found = {}
        for name in (name for name in kinds if name in lists):
            kind = widened(lists[name], kinds[name]) if may_widen else kinds[name]
            found[name] = Column.of(converted(lists[name], kind, f"the field {name!r}"), kind)
        return cls(found, rows)

    @classmethod
    def empty(cls, kinds: Kinds, rows: int = 0) -> Columns:
        """Rows whose fields are all missing."""
        return cls({name: Column.of([None] * rows, kind) for name, kind in kinds.items()}, rows)

    @classmethod
    def joined(cls, parts: Sequence[Columns], kinds: Kinds) -> Columns:
        """Rows one after the other; a field that a part does not have is missing there."""
        growing = GrowingColumns(kinds)
        for part in parts:
            growing.append(part)
        return growing.view()

    def take(self, rows: NDArray[np.int64]) -> Columns:
        """Some rows, in their order."""
        return Columns({name: column.take(rows) for name, column in self.by_name.items()}, len(rows))

    def records(self, rows: NDArray[np.int64] | None = None) -> list[dict[str, Value]]:
        """Some rows (all by default), each as its fields by name."""
        count = self.rows if rows is None else len(rows)
        lists = [column.tolist(rows) for column in self.by_name.values()]
        if not lists:
            return [{} for _ in range(count)]
        return [dict(zip(self.by_name, values, strict=True)) for values in zip(*lists, strict=True)]

    def has_kinds_of(self, kinds: Kinds | None) -> bool:
        """Whether every field is in ``kinds`` and of the kind given there; None allows any."""
        return kinds is None or all(kinds.get(name) == kind for name, kind in self.kinds.items())

    def with_kinds(self, kinds: Kinds) -> Columns:
        """These rows with exactly the fields of ``kinds``, those that they do not have missing.

        Whole numbers become floats where these are wanted; all other kinds are those of the rows.
        """
        nothing = Columns.empty({name: k for name, k in kinds.items() if name not in self.by_name}, self.rows)
        found = self.by_name | nothing.by_name
        return Columns({name: found[name].as_kind(kind) for name, kind in kinds.items()}, self.rows)


class GrowingColumns:
    """Columns in memory that rows are added to; views of them stay as they are.

    Args:
        kinds: of the fields.
    """

    def __init__(self, kinds: Kinds) -> None:
        self._kinds, self._rows = dict(kinds), 0
        self._values = {name: _Growing(_DTYPES[kind]) for name, kind in kinds.items()}
        self._missing = {name: _Growing("|b1") for name in kinds}
        self._data = {name: _Growing("|u1") for name, kind in kinds.items() if kind == "text"}
        for name in self._data:
            self._values[name].append(np.zeros(1, np.int64))

    def append(self, part: Columns) -> None:
        """Add rows behind those that are there."""
        for name, column in part.with_kinds(self._kinds).by_name.items():
            self._missing[name].append(column.missing)
            if column.data is None:
                self._values[name].append(column.values)
            else:
                first, last = int(column.values[0]), int(column.values[-1])
                moved = np.asarray(column.values[1:]) + (self._data[name].length - first)
                self._values[name].append(moved)
                self._data[name].append(column.data[first:last])
        self._rows += part.rows

    def view(self) -> Columns:
        """The rows as they are now."""
        return Columns(
            {
                name: Column(
                    kind,
                    self._values[name].view(),
                    self._missing[name].view(),
                    self._data[name].view() if name in self._data else None,
                )
                for name, kind in self._kinds.items()
            },
            self._rows,
        )


class _Growing:
    """An array that is added to at its end."""

    def __init__(self, dtype: str) -> None:
        self._array, self.length = np.empty(16, dtype), 0

    def append(self, more: NDArray[Any]) -> None:
        end = self.length + len(more)
        if end > len(self._array):
            wider = np.empty(max(end, 2 * len(self._array)), self._array.dtype)
            wider[: self.length] = self._array[: self.length]
            self._array = wider
        self._array[self.length : end] = more
        self.length = end

    def view(self) -> NDArray[Any]:
        return self._array[: self.length]


def write_columns(folder: Path, parts: Iterable[Columns], kinds: Kinds) -> None:
    """Write the rows of all parts into the files of a new folder; the caller flushes them."""
    folder.mkdir()
    with ExitStack() as stack:
        files = [
            tuple(stack.enter_context(path.open("wb")) for path in _paths(folder, place, kind))
            for place, kind in enumerate(kinds.values())
        ]
        ends = [0] * len(files)
        for kind, opened in zip(kinds.values(), files, strict=True):
            if kind == "text":
                opened[0].write(np.zeros(1, "<i8").tobytes())
        for part in parts:
            for place, column in enumerate(part.with_kinds(kinds).by_name.values()):
                ends[place] = _write(files[place], column, ends[place])


def _write(files: tuple[BinaryIO, ...], column: Column, end: int) -> int:
    """Add a column to its files; where its texts end in theirs."""
    if column.data is None:
        files[0].write(np.ascontiguousarray(column.values, _DTYPES[column.kind]).tobytes())
    else:
        first, last = int(column.values[0]), int(column.values[-1])
        files[0].write((np.asarray(column.values[1:]) + (end - first)).astype("<i8").tobytes())
        files[2].write(column.data[first:last].tobytes())
        end += last - first
    files[1].write(column.missing.tobytes())
    return end


def read_columns(folder: Path, kinds: Kinds, rows: int) -> Columns:
    """Columns as memory maps, from files that were verified.

    Raises:
        ArtifactError: if the files have another number of rows.
    """
    found = {}
    for place, (name, kind) in enumerate(kinds.items()):
        paths = _paths(folder, place, kind)
        values, missing = _mapped(paths[0], _DTYPES[kind]), _mapped(paths[1], "|b1")
        data = _mapped(paths[2], "|u1") if kind == "text" else None
        fits = len(missing) == rows and len(values) == rows + (kind == "text")
        if not fits or (data is not None and int(values[-1]) != len(data)):
            raise ArtifactError(f"{folder} does not hold {rows} values of the field {name!r}; copy it again")
        found[name] = Column(kind, values, missing, data)
    return Columns(found, rows)


def _paths(folder: Path, place: int, kind: FieldKind) -> list[Path]:
    """The files of a field, which are named for its place: its name may hold anything."""
    parts = ("values", "missing", *(("bytes",) if kind == "text" else ()))
    return [folder / f"{place:03d}-{part}.bin" for part in parts]


def _mapped(path: Path, dtype: str) -> NDArray[Any]:
    if not path.stat().st_size:
        return np.zeros(0, dtype)
    found = np.memmap(path, dtype, "r")
    return np.asarray(found)


def parts_of(columns: Columns, rows: NDArray[np.int64] | None = None) -> Iterable[Columns]:
    """Some rows (all by default), a part at a time, so that memory does not grow with them."""
    count = columns.rows if rows is None else len(rows)
    for some in blocks(count, _ROWS_AT_A_TIME):
        yield columns.take(np.arange(some.start, some.stop) if rows is None else rows[some])


def _kind(name: str, values: Sequence[Any]) -> FieldKind:
    """The kind of a column; of nothing but missing values, text."""
    kind: FieldKind | None = None
    for some in blocks(len(values), _ROWS_AT_A_TIME):
        try:
            kind = joined_kind(kind, kind_of(map(read_value, values[some])))
        except DataError:
            converted(values, "text", f"the field {name!r}")  # says in which row
            raise
    return kind or "text"
