"""Roles of a table's columns: text, ids and metadata fields, resolved once when a file is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, get_args

from numpy.typing import NDArray

from nestling.data.tables.delimited import header
from nestling.data.tables.fields.columns import Column, Columns, Kinds, read_columns, write_columns
from nestling.data.tables.fields.kinds import FieldKind, Value, widened
from nestling.data.tables.survey import ColumnSurvey, column_of, read_column
from nestling.data.tables.table import Table, counted, read_in_parts, text_column
from nestling.data.tables.table_ids import IdKind, check_id_kind, known_ids, table_ids
from nestling.errors import DataError, unknown
from nestling.process.progress import Progress

ID_COLUMNS = ("id", "_id")
"""Columns that hold ids by default."""

Read: TypeAlias = Callable[[str | Path], Iterator[Table]]

Wanted: TypeAlias = Mapping[str, FieldKind | None] | Sequence[str] | None
"""Fields that are asked for, with the kind of each where it is not to be found out; None is all columns."""


@dataclass(frozen=True)
class TableFile:
    """The texts, ids and fields of a file, read again on each iteration.

    Made by :meth:`open`.

    Args:
        path: of the file.
        text: the column of the texts; None where it has none.
        id_column: that of the ids; None where rows are counted.
        kinds: the fields, each with its type; the texts are the first of them.
        ids: of the rows, different; None where they are counted.
        rows: number of rows.
        left_out: columns that are no fields, and why.
        remarks: columns that are text because of few of their values, and the row of the first.
        read: reader of the file.
    """

    path: str | Path
    text: str | None
    id_column: str | None
    kinds: Kinds
    ids: NDArray[Any] | None
    rows: int
    left_out: Mapping[str, str] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)
    read: Read = read_in_parts

    @classmethod
    def open(
        cls,
        path: str | Path,
        text: str | None = None,
        id_column: str | None = None,
        fields: Wanted = None,
        *,
        id_kind: IdKind | None = None,
        has_texts: bool = True,
        read: Read = read_in_parts,
    ) -> TableFile:
        """Go through a file once: check its texts and ids, and find out what each field holds.

        Parquet and JSON say types. In CSV, a column holds numbers (or true and false) if all its values say
        them, but for those that are blank or stand for missing ones, such as ``n/a``; see
        ``said_by``.

        Args:
            path: a file that :func:`~nestling.data.tables.table.read_table` reads.
            text: the column of the texts; by default as :class:`~nestling.data.texts.TextFile` finds it.
            id_column: the one that holds the ids; by default the one called ``id`` or ``_id``, if there is
                one; ``""`` is none.
            fields: the other columns to keep; by default all whose values a field can hold.
            id_kind: type of the ids, ``"int"`` or ``"text"``; by default whole numbers if all of them are.
            has_texts: whether one of the columns holds texts.
            read: reader of the file, some thousands of records at a time.

        Raises:
            DataError: for a file or column that cannot be used, blank texts, ids that are missing or
                repeated, or values that a field cannot hold (their lines are named).
        """
        check_id_kind(id_kind)
        if read is read_in_parts:
            lines = has_texts and not (text or id_column or fields)
            named = header(text, id_column, *(fields or ()))
            read = partial(read_in_parts, is_header=named, piped=".txt" if lines else ".csv")
        return _Survey(path, text, id_column, fields, has_texts=has_texts, read=read, id_kind=id_kind).table()

    @classmethod
    def like(
        cls, path: str | Path, fields: Kinds, columns: Mapping[str, str | None], *, has_texts: bool
    ) -> TableFile:
        """A further table of those that an index was built from: its fields, as far as the file has them.

        Args:
            path: of the file.
            fields: of the index; those of whole numbers become floats where the file has such.
            columns: names of the columns of texts and ids; None of ids is ``id`` or ``_id``.
            has_texts: whether the column of texts must be there.

        Raises:
            DataError: as :meth:`open`, and for values that are not of the kinds of the index.
        """
        text, id_column = columns.get("text"), columns.get("id", "")
        named = header(text, id_column, *fields)
        read = partial(read_in_parts, is_header=named)
        return _Survey(
            path, text, id_column, dict(fields), has_texts=has_texts, read=read, settled=True
        ).table()

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[str]:
        assert self.text is not None, "it was opened without texts"
        for part in self.read(self.path):
            yield from part.texts(self.text)

    def fields(self) -> Iterator[Columns]:
        """The fields of all rows, some thousands at a time."""
        for part in counted(self.read(self.path), "reading fields", self.rows):
            made = {name: Column.of(self._column(part, name), kind) for name, kind in self.kinds.items()}
            yield Columns(made, len(part.numbers))

    def spooled_fields(self, folder: Path) -> Columns:
        """The fields of all rows as memory maps of files in a new folder: memory does not limit them."""
        write_columns(folder, self.fields(), self.kinds)
        return read_columns(folder, self.kinds, self.rows)

    def all_fields(self) -> Columns:
        """The fields of all rows, in memory."""
        return Columns.joined(list(self.fields()), self.kinds)

    def _column(self, part: Table, name: str) -> Sequence[Value]:
        return part.texts(name) if name == self.text else read_column(part, name, self.kinds[name])

    @property
    def columns(self) -> dict[str, str]:
        """The names of the columns of texts and ids."""
        named = {"text": self.text, "id": self.id_column}
        return {part: name for part, name in named.items() if name is not None}


class _Survey:
    """One pass over a file; ``settled`` fields are those of an index, and may be missing here."""

    def __init__(
        self,
        path: str | Path,
        text: str | None,
        id_column: str | None,
        fields: Wanted,
        *,
        has_texts: bool,
        read: Read,
        id_kind: IdKind | None = None,
        settled: bool = False,
    ) -> None:
        self._has_texts, self._read, self._settled, self._id_kind = has_texts, read, settled, id_kind
        self._path, self._text, self._id, self._wanted = path, text, id_column, read_wanted(fields)
        self._columns: dict[str, ColumnSurvey] = {}
        self._asked: dict[str, FieldKind] = {}
        self._left_out: dict[str, str] = {}
        self._names: list[int | str] = []
        self._rows, self._are_texts = 0, False

    def table(self) -> TableFile:
        part = None
        for part in counted(self._read(self._path)):
            if not self._rows:
                self._choose(part)
            self._look(part)
        assert part is not None, "an empty file is refused by its reader"
        kinds: dict[str, FieldKind] = {} if self._text is None else {self._text: "text"}
        for name in [*self._columns]:
            with self._leaving_out(name):
                kinds[name] = self._columns[name].kind(self._asked.get(name)) or "text"
        missing = [name for name in self._wanted or () if name not in kinds and name != self._id]
        if missing and not self._settled:
            raise DataError(f"{self._path}: {unknown('column', missing[0], part.columns)}")
        found = {name: survey.remark for name, survey in self._columns.items() if kinds.get(name) == "text"}
        with Progress("comparing ids"):
            ids = self._ids() if self._id else None
        return TableFile(
            self._path,
            self._text,
            self._id or None,
            kinds,
            ids,
            self._rows,
            self._left_out,
            {name: why for name, why in found.items() if why and name not in self._asked},
            self._read,
        )

    def _choose(self, part: Table) -> None:
        """The columns of texts and of ids, by the first records."""
        if self._id is None:
            others = {self._text, *(self._wanted or () if self._settled else ())}  # fields are not ids
            self._id = next(
                (name for name in part.columns if name.lower() in ID_COLUMNS and name not in others), ""
            )
        elif self._id and self._id not in part.columns:
            raise DataError(f"{part.path}: {unknown('column', self._id, part.columns)}")
        if not self._has_texts and self._settled and self._text not in part.columns:
            self._text = None
        if self._has_texts and self._text is None:
            self._text = text_column(part, but=self._id)

    def _look(self, part: Table) -> None:
        if self._text is not None:
            part.texts(self._text)
        self._rows += len(part.numbers)
        self._are_texts = part.is_untyped
        if self._id:
            self._names += known_ids(part, self._id, self._id_kind)
        for name in part.columns:
            if name in (self._text, self._id) or name in self._left_out:
                continue
            if self._wanted is None or name in self._wanted:
                with self._leaving_out(name):
                    self._look_at(part, name)
            elif self._settled:
                self._left_out[name] = "the index has no such field"

    def _look_at(self, part: Table, name: str) -> None:
        asked = None if self._wanted is None else self._wanted[name]
        survey = self._columns.setdefault(name, ColumnSurvey(self._path, name))
        if asked is not None:
            before = self._asked.get(name, asked)
            self._asked[name] = widened(column_of(part, name), before) if self._settled else before
            read_column(part, name, self._asked[name])
        if asked is None or self._settled:
            survey.look(part)

    @contextmanager
    def _leaving_out(self, name: str) -> Iterator[None]:
        """A column that nobody named is left out if it holds what no field can."""
        try:
            yield
        except DataError as error:
            if self._wanted is not None:
                raise
            self._left_out[name] = str(error)
            self._columns.pop(name, None)

    def _ids(self) -> NDArray[Any]:
        assert self._id, "rows are counted"
        return table_ids(self._path, self._id, self._names, self._id_kind, are_texts=self._are_texts)


def read_wanted(fields: Wanted) -> dict[str, FieldKind | None] | None:
    """The fields that an argument asks for, each with its kind or None.

    Raises:
        DataError: for a kind that there is not.
    """
    if fields is None:
        return None
    if isinstance(fields, str):
        raise DataError(f"fields must be a list of names, not one text; write [{fields!r}]")
    wanted = dict(fields) if isinstance(fields, Mapping) else dict.fromkeys(fields)
    for kind in wanted.values():
        if kind is not None and kind not in get_args(FieldKind):
            raise DataError(unknown("kind of field", kind, get_args(FieldKind)))
    return wanted
