"""Parser of delimited text: CSV and TSV."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

from nestling.data.tables.fields.words import MISSING_WORDS
from nestling.errors import DataError

Row = tuple[int, list[str]]
"""The number of a row's last line, and its fields."""

_LONGEST_HEADER_WORDS = 3
_LONGEST_FIELD = 1 << 27  # Python's csv stops at 131,072 characters: a chapter of a book
_LINES_TRIED = 50
_USUAL_NAMES = ("id", "_id", "sku", "text", "title", "content", "body", "document", "query", "question")
_DELIMITERS = (",", ";", "\t", "|")
_WITH_COMMA = re.compile(r"[-+]?\d+(,\d+)?", re.ASCII)
_DECLARED = re.compile(r"sep=(.)\r?\n?")


@dataclass(frozen=True)
class Fields:
    """The content of a file of fields.

    Args:
        names: of its columns.
        rows: below the names, each as long as they are.
        delimiter: between fields.
    """

    names: list[str]
    rows: Iterator[Row]
    delimiter: str


def names_columns(fields: Sequence[str]) -> bool:
    """Whether a first line names columns: none of its fields has more than three words."""
    return all(len(field.split()) <= _LONGEST_HEADER_WORDS for field in fields)


def header(*wanted: str | None) -> Callable[[Sequence[str]], bool]:
    """Tells whether a first line names columns: as :func:`names_columns`, or if one is called as wanted."""
    return lambda fields: names_columns(fields) or not {*wanted}.isdisjoint(fields)


def is_table(lines: Sequence[str]) -> bool:
    """Whether lines are rows of CSV or TSV by their looks: evenly divided below a usual name of a column."""
    delimiter = _delimiter(lines)
    widths = _widths(lines, delimiter)
    first = next(csv.reader(lines, delimiter=delimiter), [])
    names = {field.strip().lower() for field in first}
    return len(first) > 1 and len(set(widths)) == 1 and not names.isdisjoint(_USUAL_NAMES)


def read_fields(
    path: Path, stream: TextIO, delimiter: str | None, is_header: Callable[[Sequence[str]], bool]
) -> Fields:
    """The columns and rows of CSV or TSV.

    Rows whose fields are all blank are left out, and so are blank columns at the end that have no name, as
    workbooks write both. Another column without a name is called by its number.

    Args:
        path: name of the file in errors.
        stream: at its beginning.
        delimiter: a tab makes it TSV; None finds it: a comma, semicolon, tab or bar.
        is_header: tells of the fields of the first line whether they name the columns; if not, these are
            called ``1``, ``2``, ...

    Raises:
        DataError: for two columns of one name, and while rows are read for those with more or fewer fields
            than the first line, and quotes that are not closed (the line is named).
    """
    first = list(islice(stream, _LINES_TRIED))
    declared = _DECLARED.fullmatch(first[0]) if first else None
    found = delimiter or (declared[1] if declared else _delimiter(first))
    lines = chain(["\n"] if declared else [], first[1 if declared else 0 :], stream)
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    given = iter(_TabRows(lines)) if found == "\t" else _quoted_rows(path, lines, found)
    rows: Iterator[Row] = (row for row in given if _says_something(row[1]))
    opening = next(rows, None)
    if opening is None:
        return Fields([], rows, found)
    names = [name.strip() for name in opening[1]]
    if is_header(names):
        while not names[-1]:
            names.pop()
    else:
        names, rows = [""] * len(names), chain([opening], rows)
    names = [name or str(place) for place, name in enumerate(names, start=1)]
    if len(set(names)) < len(names):
        raise DataError(f"{path} names a column twice in its first line: {', '.join(names)}")
    return Fields(names, _even(path, rows, len(names), found), found)


def with_decimal_commas(fields: Fields) -> set[str]:
    """The columns of a file divided by semicolons that hold numbers such as ``3,5``, and nothing else.

    Three digits behind each comma may as well be thousands; those are none. Nor are ids and texts, which are
    known by their names.
    """
    behind: dict[int, set[int]] = {
        place: set() for place, name in enumerate(fields.names) if not _names_id_or_text(name)
    }
    for _, row in fields.rows:
        for place in [*behind]:
            value = row[place].strip()
            if value and value not in MISSING_WORDS and not _WITH_COMMA.fullmatch(value):
                del behind[place]
            elif "," in value:
                behind[place].add(len(value.partition(",")[2]))
    return {fields.names[place] for place, lengths in behind.items() if lengths - {3}}


def _names_id_or_text(name: str) -> bool:
    return name.lower() in _USUAL_NAMES or re.search(r"(^|[\W_])id$|[a-z]I[dD]$", name) is not None


def _even(path: Path, rows: Iterator[Row], width: int, delimiter: str) -> Iterator[Row]:
    for number, row in rows:
        if len(row) != width and not _fits(row, width):
            raise DataError(
                f"line {number} of {path} does not have {width} fields as the first line has, but "
                f"{len(row)}; put fields that hold {delimiter!r} in double quotes"
            )
        yield number, row


def _says_something(fields: Sequence[str]) -> bool:
    return any(map(str.strip, fields))


def _fits(fields: Sequence[str], width: int) -> bool:
    """Whether a row has as many fields as the first, not counting blank ones at the end."""
    return len(fields) >= width and not any(map(str.strip, fields[width:]))


def _delimiter(lines: Sequence[str]) -> str:
    """The delimiter that gives most fields, of those that divide the first lines evenly, if any does."""
    best, chosen = (False, 1), ","
    for delimiter in _DELIMITERS:
        widths = _widths(lines, delimiter)
        if widths and widths[0] > 1 and (found := (len(set(widths)) == 1, widths[0])) > best:
            best, chosen = found, delimiter
    return chosen


def _widths(lines: Sequence[str], delimiter: str) -> list[int]:
    """Numbers of fields of the first rows, as far as the delimiter makes rows of the lines."""
    if delimiter == "\t":
        return [line.count("\t") + 1 for line in lines if line.strip()]
    widths: list[int] = []
    with suppress(csv.Error):  # most often because the lines end within a quoted field
        widths.extend(len(row) for row in csv.reader(lines, delimiter=delimiter, strict=True) if row)
    return widths


def _quoted_rows(path: Path, lines: Iterator[str], delimiter: str) -> Iterator[Row]:
    """Rows of CSV (RFC 4180), with the numbers of their last lines."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"line {reader.line_num} of {path} is malformed: {error} (is a quote not closed?)"
        ) from error


class _TabRows:
    """Rows of TSV, with the numbers of their last lines.

    Most programs write quotes into TSV as they are; workbooks and data frames put fields that hold a quote,
    a tab or a line break into quotes. So a line with as many fields as the first is a row, where quotes
    are quotes unless they enclose a whole field. A line that has not, or whose quote is still open
    when the next line is none, is read as CSV, together with those that its quotes take in.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines, self._ahead = lines, deque[str]()
        self._number = self._width = 0

    def __iter__(self) -> Iterator[Row]:
        while (line := self._peek(0)) is not None:
            count, fields = self._row(line)
            for _ in range(count):
                self._ahead.popleft()
            self._number += count
            if not self._width:
                self._width = max(
                    (place for place, field in enumerate(fields, 1) if field.strip()), default=0
                )
            yield self._number, fields

    def _peek(self, place: int) -> str | None:
        while len(self._ahead) <= place:
            line = next(self._lines, None)
            if line is None:
                return None
            self._ahead.append(line)
        return self._ahead[place]

    def _row(self, line: str) -> tuple[int, list[str]]:
        """Number of lines of the next row, and its fields."""
        fields = line.rstrip("\r\n").split("\t")
        if '"' not in line:
            return 1, fields
        alone = 1, [_unquoted(field) for field in fields]
        if not self._width:
            return alone
        if _fits(fields, self._width) and not any(map(_is_open, fields)):
            return alone
        if len(fields) == self._width and self._next_is_row():
            return alone
        return self._joined() or alone

    def _next_is_row(self) -> bool:
        place = 1
        while (line := self._peek(place)) is not None and not line.strip():
            place += 1
        return line is None or _fits(line.split("\t"), self._width)

    def _joined(self) -> tuple[int, list[str]] | None:
        """The lines that make one row of CSV, if they do."""
        taken = 0

        def lines() -> Iterator[str]:
            nonlocal taken
            while (line := self._peek(taken)) is not None:
                taken += 1
                yield line

        try:
            fields = next(csv.reader(lines(), delimiter="\t", strict=True))
        except csv.Error:
            return None
        return (taken, fields) if _fits(fields, self._width) else None


def _unquoted(field: str) -> str:
    inner = field[1:-1]
    if len(field) < 2 or field[0] != '"' or field[-1] != '"' or '"' in inner.replace('""', ""):
        return field
    return inner.replace('""', '"')


def _is_open(field: str) -> bool:
    """Whether a field begins with a quote that none ends."""
    return field.startswith('"') and '"' not in field[1:].replace('""', "")
