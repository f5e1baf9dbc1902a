"""What the columns of a table are: its texts, its ids, and fields; read once where a file enters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.data.columns import Column, Columns, Kinds, read_columns, write_columns
from nestling.data.delimited import header
from nestling.data.fields import FieldKind, Value, converted, joined_kind, kind_of, kind_of_texts, read_value
from nestling.data.table import Table, read_in_parts
from nestling.data.texts import text_column
from nestling.errors import DataError, unknown

ID_COLUMNS = ("id", "_id")
"""Columns that hold ids unless something else is said."""

Read: TypeAlias = Callable[[str | Path], Iterator[Table]]

Wanted: TypeAlias = Mapping[str, FieldKind | None] | Sequence[str] | None
"""Fields that are asked for, with the kind of each where it is not to be found out; None is all columns."""


@dataclass(frozen=True)
class TableFile:
    """The texts, ids and fields of a file, read anew each time they are gone through.

    Made by :meth:`open`.

    Args:
        path: of the file.
        text: the column of the texts; None where it has none.
        id_column: that of the ids; None where rows are counted.
        kinds: the fields, and what each holds; the texts are the first of them.
        ids: of the rows, different; None where they are counted.
        rows: how many there are.
        left_out: columns that are no fields, and why.
        read: what reads the file.
    """

    path: str | Path
    text: str | None
    id_column: str | None
    kinds: Kinds
    ids: NDArray[Any] | None
    rows: int
    left_out: Mapping[str, str] = field(default_factory=dict)
    read: Read = read_in_parts

    @classmethod
    def open(
        cls,
        path: str | Path,
        text: str | None = None,
        id_column: str | None = None,
        fields: Wanted = None,
        *,
        has_texts: bool = True,
        read: Read = read_in_parts,
    ) -> TableFile:
        """Go through a file once: check its texts and ids, and find out what each field holds.

        Args:
            path: a file that :func:`~nestling.data.table.read_table` reads.
            text: the column of the texts; by default as :class:`~nestling.data.TextFile` finds it.
            id_column: the one that holds the ids; by default the one called ``id`` or ``_id``, if there is
                one; ``""`` is none.
            fields: the other columns to keep; by default all whose values a field can hold.
            has_texts: whether one of the columns holds texts.
            read: what reads the file, some thousands of records at a time.

        Raises:
            DataError: for a file or column that cannot be used, blank texts, ids that are missing or
                repeated, or values that a field cannot hold (their lines are named).
        """
        if read is read_in_parts:
            lines = has_texts and not (text or id_column or fields)
            named = header(text, id_column, *(fields or ()))
            read = partial(read_in_parts, is_header=named, piped=".txt" if lines else ".csv")
        return _Survey(path, text, id_column, fields, has_texts=has_texts, read=read).table()

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[str]:
        assert self.text is not None, "it was opened without texts"
        for part in self.read(self.path):
            yield from part.texts(self.text)

    def fields(self) -> Iterator[Columns]:
        """The fields of all rows, some thousands at a time."""
        for part in self.read(self.path):
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
        return part.texts(name) if name == self.text else _values(part, name, self.kinds[name])

    @property
    def columns(self) -> dict[str, str]:
        """What the columns of texts and ids are called."""
        named = {"text": self.text, "id": self.id_column}
        return {part: name for part, name in named.items() if name is not None}


class _Survey:
    """One pass over a file."""

    def __init__(
        self,
        path: str | Path,
        text: str | None,
        id_column: str | None,
        fields: Wanted,
        *,
        has_texts: bool,
        read: Read,
    ) -> None:
        self._has_texts, self._read = has_texts, read
        self._path, self._text, self._id, self._wanted = path, text, id_column, read_wanted(fields)
        self._kinds: dict[str, FieldKind | None] = {}
        self._left_out: dict[str, str] = {}
        self._names: list[Any] = []
        self._rows = 0

    def table(self) -> TableFile:
        part = None
        for part in self._read(self._path):
            if not self._rows:
                self._choose(part)
            self._look(part)
        assert part is not None, "an empty file is refused by its reader"
        kinds: dict[str, FieldKind] = {} if self._text is None else {self._text: "text"}
        kinds |= {name: kind or "text" for name, kind in self._kinds.items() if name not in self._left_out}
        missing = [name for name in self._wanted or () if name not in kinds and name != self._id]
        if missing:
            raise DataError(f"{self._path}: {unknown('column', missing[0], part.columns)}")
        ids = _ids(self._path, self._id, self._names) if self._id else None
        return TableFile(
            self._path, self._text, self._id or None, kinds, ids, self._rows, self._left_out, self._read
        )

    def _choose(self, part: Table) -> None:
        """The columns of texts and of ids, by the first records."""
        if self._id is None:
            self._id = next(
                (name for name in part.columns if name.lower() in ID_COLUMNS and name != self._text), ""
            )
        elif self._id and self._id not in part.columns:
            raise DataError(f"{part.path}: {unknown('column', self._id, part.columns)}")
        if self._has_texts and self._text is None:
            self._text = text_column(part, but=self._id)

    def _look(self, part: Table) -> None:
        if self._text is not None:
            part.texts(self._text)
        self._rows += len(part.numbers)
        if self._id:
            self._names += _known_ids(part, self._id)
        for name in part.columns:
            is_field = name not in (self._text, self._id) and (self._wanted is None or name in self._wanted)
            if is_field and name not in self._left_out:
                self._look_at(part, name)

    def _look_at(self, part: Table, name: str) -> None:
        """What a field holds so far; one that nobody named is left out if it holds what no field can."""
        asked = None if self._wanted is None else self._wanted[name]
        try:
            kind = asked or joined_kind(self._kinds.get(name), _kind(part, name))
            _values(part, name, kind or "text")
        except DataError as error:
            if self._wanted is not None:
                raise
            self._left_out[name] = str(error)
            return
        self._kinds[name] = kind


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


def kind_of_column(values: Sequence[Any]) -> FieldKind | None:
    """The kind of a column of a file: where all values are texts, as of a CSV, what these say.

    Raises:
        DataError: for values that no field can hold.
    """
    if all(value is None or isinstance(value, str) for value in values):
        return kind_of_texts(values)
    return kind_of(map(read_value, values))


def _kind(part: Table, name: str) -> FieldKind | None:
    try:
        return kind_of_column(part.columns[name])
    except DataError:
        _values(part, name, "text")  # says where
        raise


def _values(part: Table, name: str, kind: FieldKind) -> list[Value]:
    """A column as values of its kind; blank texts are missing values."""
    given = part.columns.get(name, [None] * len(part.numbers))
    given = [None if isinstance(value, str) and not value.strip() else value for value in given]
    try:
        return converted(given, kind, f"column {name!r}")
    except DataError as error:
        raise DataError(f"{part.path}, {_place(part, given, kind)}: {error}") from error


def _place(part: Table, given: Sequence[Any], kind: FieldKind) -> str:
    """Where the first value stands that is not of its kind, as found in an editor."""
    for row, value in enumerate(given):
        try:
            converted([value], kind, "")
        except DataError:
            return part.name_rows([row])
    raise AssertionError("a value was refused")


def _known_ids(part: Table, column: str) -> list[int | str]:
    found: list[int | str] = []
    blank, strange = [], []
    for row, value in enumerate(part.columns.get(column, [None] * len(part.numbers))):
        name = value.strip() if isinstance(value, str) else value
        if name is None or name == "":
            blank.append(row)
        elif isinstance(name, bool) or not isinstance(name, (int, str)):
            strange.append(row)
        else:
            found.append(name)
    what = f"{part.path}: column {column!r}, the ids,"
    if blank:
        raise DataError(f"{what} is blank in {part.name_rows(blank)}; fill or remove them")
    if strange:
        raise DataError(
            f"{what} must hold whole numbers or texts, as it does not in {part.name_rows(strange)}"
        )
    return found


def _ids(path: str | Path, column: str, names: Iterable[Any]) -> NDArray[Any]:
    """Whole numbers where all ids are such, and else texts.

    Raises:
        DataError: for ids that stand twice.
    """
    texts = [str(name) for name in names]
    are_numbers = kind_of_texts(texts) == "int" and not any(text.startswith("-") for text in texts)
    ids = np.array([int(text) for text in texts], np.int64) if are_numbers else np.array(texts, np.str_)
    found, counts = np.unique(ids, return_counts=True)
    if len(found) < len(ids):
        repeated = ", ".join(map(str, found[counts > 1][:3]))
        raise DataError(
            f"{path}: column {column!r}, the ids, names several rows alike ({repeated}); repair it, or name "
            'another column with id_column=, or none with id_column=""'
        )
    return ids
