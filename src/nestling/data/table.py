"""Files of records (CSV, TSV, JSON lines, parquet, plain lines) as columns; faults are named by line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nestling.errors import DataError, require, unknown

_LONGEST_HEADER_WORDS = 3


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
    source = Path(path).expanduser()
    if not source.is_file():
        problem = "is a folder; name the file in it" if source.is_dir() else "does not exist"
        raise DataError(f"{source} {problem}")
    suffix = source.suffix.lower()
    if suffix == ".parquet":
        table = _read_parquet(source)
    elif suffix in (".csv", ".tsv"):
        table = _read_csv(source, tab=suffix == ".tsv")
    elif suffix in (".jsonl", ".ndjson"):
        table = _as_table(source, list(read_json_lines(source)))
    elif suffix == ".txt":
        lines = [
            (number, line) for number, line in enumerate(read_text(source).split("\n"), 1) if line.strip()
        ]
        table = Table(source, {"text": [line for _, line in lines]}, [number for number, _ in lines])
    else:
        raise DataError(f"{source}: {unknown('kind of file', suffix or source.name, _SUFFIXES)}")
    if not table.columns or not table.numbers:
        raise DataError(f"{source} is empty: it holds no records")
    return table


_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")


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
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
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


def _as_table(path: Path, records: list[tuple[int, dict[str, Any]]]) -> Table:
    names = dict.fromkeys(name for _, record in records for name in record)
    columns = {name: [record.get(name) for _, record in records] for name in names}
    return Table(path, columns, [number for number, _ in records])


def _read_csv(path: Path, *, tab: bool) -> Table:
    text = read_text(path)
    first = text.partition("\n")[0]
    delimiter = "\t" if tab else ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise DataError(
            f"line {reader.line_num} of {path} is malformed: {error} (is a quote not closed?)"
        ) from error
    if not rows:
        return Table(path, {}, [])
    header = [name.strip() for name in rows[0][1]]
    if any(len(name.split()) > _LONGEST_HEADER_WORDS for name in header):
        header = [str(number) for number in range(1, len(header) + 1)]
    else:
        rows = rows[1:]
    if len(set(header)) < len(header):
        raise DataError(f"{path} names a column twice in its first line: {', '.join(header)}")
    uneven = [number for number, row in rows if len(row) != len(header)]
    if uneven:
        raise DataError(
            f"line {uneven[0]} of {path} does not have {len(header)} fields as the first line has "
            f"({len(uneven)} such lines); put fields that hold {delimiter!r} in double quotes"
        )
    columns = {name: [row[place] for _, row in rows] for place, name in enumerate(header)}
    return Table(path, columns, [number for number, _ in rows])


def _read_parquet(path: Path) -> Table:
    parquet = require("pyarrow.parquet", "parquet")
    arrow = require("pyarrow", "parquet")
    try:
        data = parquet.read_table(path)
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file: {error}") from error
    return Table(path, data.to_pydict(), range(1, data.num_rows + 1), unit="row")
