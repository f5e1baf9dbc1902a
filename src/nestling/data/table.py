"""Files of records (CSV, TSV, JSON lines, parquet, plain lines) as columns; faults are named by line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from nestling.errors import DataError, require, unknown

_LONGEST_HEADER_WORDS = 3
_RECORDS_AT_A_TIME = 1 << 13


@dataclass(frozen=True)
class Table:
    """The columns of a file.

    Args:
        path: where it was read.
        columns: values by column name, all equally many.
        numbers: for each record, where it stands in the file.
        unit: what ``numbers`` count: ``"line"`` or ``"row"``.
    """

    path: Path
    columns: dict[str, list[Any]]
    numbers: Sequence[int]
    unit: str = "line"

    def texts(self, column: str) -> list[str]:
        """The values of one column, stripped; whole numbers are taken as their digits.

        Raises:
            DataError: for an unknown column, and for blank values or values that are no texts (named).
        """
        if column not in self.columns:
            raise DataError(f"{self.path}: {unknown('column', column, self.columns)}")
        values = [str(v) if type(v) is int else v for v in self.columns[column]]
        wrong = [row for row, value in enumerate(values) if not isinstance(value, str | None)]
        if wrong:
            kind = type(values[wrong[0]]).__name__
            raise DataError(
                f"{self.path}: column {column!r} holds a {kind}, not text, in {self.name_rows(wrong)}"
            )
        blank = [row for row, value in enumerate(values) if value is None or not value.strip()]
        if blank:
            raise DataError(
                f"{self.path}: column {column!r} is blank in {self.name_rows(blank)}; fill or remove them"
            )
        return [value.strip() for value in values]

    def name_rows(self, rows: Sequence[int]) -> str:
        """Records as they are found in an editor: ``line 3``, or ``12 lines (3, 4, 5, 9, 11, ...)``."""
        shown = ", ".join(str(self.numbers[row]) for row in rows[:5])
        return (
            f"{self.unit} {shown}"
            if len(rows) == 1
            else f"{len(rows)} {self.unit}s ({shown}{', ...' * (len(rows) > 5)})"
        )


def read_table(path: str | Path) -> Table:
    """Read a ``.csv``, ``.tsv``, ``.jsonl``, ``.parquet`` or ``.txt`` file.

    The first line of a CSV or TSV file names its columns, unless one of its fields has more than three
    words; then it is data, and the columns are called ``1``, ``2``, ... A ``.txt`` file has the column
    ``text``, one record a line, blank lines left out. Text is UTF-8.

    Raises:
        DataError: for a file that is missing, of another kind, damaged, empty, or not UTF-8.
        MissingExtraError: for parquet without pyarrow.
    """
    parts = list(read_in_parts(path))
    columns: dict[str, list[Any]] = {name: [] for name in parts[-1].columns}
    for part in parts:
        missing = [None] * len(part.numbers)
        for name, values in columns.items():
            values.extend(part.columns.get(name, missing))
    numbers = [number for part in parts for number in part.numbers]
    return Table(parts[0].path, columns, numbers, parts[0].unit)


def read_in_parts(path: str | Path) -> Iterator[Table]:
    """:func:`read_table`, some thousands of records at a time, so that memory does not grow with the file.

    A column that a file of JSON lines names for the first time in a later part is unknown before.
    """
    source = Path(path).expanduser()
    if not source.is_file():
        problem = "is a folder; name the file in it" if source.is_dir() else "does not exist"
        raise DataError(f"{source} {problem}")
    suffix = source.suffix.lower()
    if suffix not in _SUFFIXES:
        raise DataError(f"{source}: {unknown('kind of file', suffix or source.name, _SUFFIXES)}")
    is_empty = True
    for part in _SUFFIXES[suffix](source):
        is_empty = False
        yield part
    if is_empty:
        raise DataError(f"{source} is empty: it holds no records")


def read_text(path: Path) -> str:
    """A UTF-8 file (a byte order mark is left out).

    Raises:
        DataError: if it cannot be opened or is in another encoding; the line is named.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not UTF-8 (line {line} holds the byte 0x{raw[error.start]:02x}); save it as UTF-8, "
            f"for instance with: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > new{path.suffix}"
        ) from error


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for each line that is not blank.

    Raises:
        DataError: for a line that is not a JSON object; the line is named.
    """
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"line {number} of {path} is not JSON ({error}); write one object a line"
            ) from error
        if not isinstance(record, dict):
            raise DataError(
                f"line {number} of {path} is a JSON {type(record).__name__}; "
                'write an object a line, such as {"query": "...", "document": "..."}'
            )
        yield number, record


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    with _opened(path, newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, line.removesuffix("\n")


@contextmanager
def _opened(path: Path, newline: str) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as stream:
            yield stream
    except (UnicodeDecodeError, OSError):
        read_text(path)  # finds the line, or why it cannot be read, and says so
        raise


def _of_lines(path: Path) -> Iterator[Table]:
    return _as_tables(path, ((number, {"text": line}) for number, line in _lines(path)))


def _of_objects(path: Path) -> Iterator[Table]:
    return _as_tables(path, read_json_lines(path))


def _as_tables(path: Path, records: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[Table]:
    names: dict[str, None] = {}
    for part in _parts(records):
        names |= dict.fromkeys(name for _, record in part for name in record)
        columns = {name: [record.get(name) for _, record in part] for name in names}
        yield Table(path, columns, [number for number, _ in part])


def _parts(records: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(records)
    return iter(lambda: list(islice(left, _RECORDS_AT_A_TIME)), [])


def _of_fields(path: Path) -> Iterator[Table]:
    """A CSV or TSV file."""
    with _opened(path, newline="") as stream:
        first = stream.readline()
        stream.seek(0)
        tab, semicolon = path.suffix.lower() == ".tsv", ";" in first and "," not in first
        delimiter = "\t" if tab else ";" if semicolon else ","
        rows = _rows(path, csv.reader(stream, delimiter=delimiter, strict=True))
        opening = next(rows, None)
        if opening is None:
            return
        header = [name.strip() for name in opening[1]]
        if any(len(name.split()) > _LONGEST_HEADER_WORDS for name in header):
            header = [str(number) for number in range(1, len(header) + 1)]
            rows = chain([opening], rows)
        if len(set(header)) < len(header):
            raise DataError(f"{path} names a column twice in its first line: {', '.join(header)}")
        for part in _parts(rows):
            uneven = [number for number, row in part if len(row) != len(header)]
            if uneven:
                raise DataError(
                    f"line {uneven[0]} of {path} does not have {len(header)} fields as the first line has; "
                    f"put fields that hold {delimiter!r} in double quotes"
                )
            columns = {name: [row[place] for _, row in part] for place, name in enumerate(header)}
            yield Table(path, columns, [number for number, _ in part])


def _rows(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows of a ``csv.reader`` that are not blank, with the numbers of their lines."""
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"line {reader.line_num} of {path} is malformed: {error} (is a quote not closed?)"
        ) from error


def _of_parquet(path: Path) -> Iterator[Table]:
    parquet = require("pyarrow.parquet", "parquet")
    arrow = require("pyarrow", "parquet")
    try:
        with parquet.ParquetFile(path) as source:
            start = 1
            for batch in source.iter_batches(batch_size=_RECORDS_AT_A_TIME):
                yield Table(path, batch.to_pydict(), range(start, start + batch.num_rows), unit="row")
                start += batch.num_rows
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file: {error}") from error


_SUFFIXES: dict[str, Callable[[Path], Iterator[Table]]] = {
    ".csv": _of_fields,
    ".tsv": _of_fields,
    ".jsonl": _of_objects,
    ".ndjson": _of_objects,
    ".parquet": _of_parquet,
    ".txt": _of_lines,
}
