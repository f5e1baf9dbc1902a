"""Reads files of records (CSV, TSV, JSON lines, parquet, plain lines) as columns; errors give the line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nestling.data.tables.delimited import is_table, names_columns, read_fields, with_decimal_commas
from nestling.data.tables.fields.arrow import day_columns, lists_of
from nestling.data.tables.input_file import InputFile, find_file
from nestling.data.tables.text_checks import check_texts
from nestling.errors import DataError, named, require, unknown
from nestling.process.blocks import batches
from nestling.process.progress import Progress

_TEXT_COLUMNS = ("text", "content", "body", "document", "passage", "sentence", "description", "abstract")

_RECORDS_AT_A_TIME = 1 << 13
_LINES_LOOKED_AT = 50

IsHeader = Callable[[Sequence[str]], bool]
"""Whether the fields of a first line name columns."""


@dataclass(frozen=True)
class Table:
    """The columns of a file.

    Args:
        path: path of the file.
        columns: values by column name, all equally many.
        numbers: the line of each record in the file.
        unit: unit of ``numbers``: ``"line"`` or ``"row"``.
        is_untyped: whether all values are texts, as in CSV, which may say numbers.
    """

    path: Path
    columns: dict[str, list[Any]]
    numbers: Sequence[int]
    unit: str = "line"
    is_untyped: bool = False

    def texts(self, column: str, *, may_be_blank: bool = False) -> list[str]:
        """The values of one column, stripped; whole numbers are taken as their digits.

        Args:
            column: its name.
            may_be_blank: take blank and missing ones too, as ``""``.

        Raises:
            DataError: for an unknown column, and for values that are blank, no texts or no whole Unicode
                (named).
        """
        values = ["" if v is None else str(v) if type(v) is int else v for v in self._values(column)]
        what = f"{self.path}: texts of column {column!r}"
        found = check_texts(values, what, self.name_rows, may_be_blank=may_be_blank)
        return [text.strip() for text in found]

    def floats(self, column: str) -> list[float]:
        """The values of one column as finite numbers.

        Raises:
            DataError: for an unknown column, and for values that are missing or no finite numbers (named).
        """
        values = [_number(value) for value in self._values(column)]
        wrong = [row for row, value in enumerate(values) if not math.isfinite(value)]
        if wrong:
            raise DataError(
                f"{self.path}: column {column!r} must hold finite numbers, but holds "
                f"{self.columns[column][wrong[0]]!r} in {self.name_rows(wrong)}"
            )
        return values

    def find_column(self, usual: Iterable[str]) -> str | None:
        """The first of the usual names that a column has; case and what is between letters do not count."""
        names = {plain_name(name): name for name in reversed(self.columns)}
        return next((names[plain_name(name)] for name in usual if plain_name(name) in names), None)

    def _values(self, column: str) -> list[Any]:
        if column not in self.columns:
            raise DataError(f"{self.path}: {unknown('column', column, self.columns)}")
        return self.columns[column]

    def name_rows(self, rows: Sequence[int]) -> str:
        """Records as they are found in an editor: ``line 3``, or ``12 lines (3, 4, 5, 9, 11, ...)``."""
        return named(self.unit, [str(self.numbers[row]) for row in rows[:6]], len(rows))


def read_table(path: str | Path, is_header: IsHeader = names_columns, *, kind: str | None = None) -> Table:
    """Read a ``.csv``, ``.tsv``, ``.jsonl`` (or ``.ndjson``), ``.parquet`` or ``.txt`` file.

    All but parquet may be packed (``.csv.gz``, also ``.bz2`` and ``.xz``). Text is UTF-8, or what a byte
    order mark at its beginning says. ``-`` is standard input. The first line of a CSV or TSV file names its
    columns, unless one of its fields has more than three words; then it is data, and the columns are called
    ``1``, ``2``, ... A ``.txt`` file has the column ``text``, one record per line, blank lines left out.
    Lines end with LF, CR LF or CR.

    In a file divided by semicolons, a column of numbers with decimal commas becomes one with points
    (``3,5`` is ``3.5``) if all its values, to the end of the file, are such numbers. Columns with the usual
    names of ids and texts, and those whose names end in ``id``, stay as they are.

    Args:
        path: of the file. Piped data are JSON lines or parquet if they begin like that, else
            CSV or TSV.
        is_header: tells otherwise whether the fields of a first line name columns.
        kind: the suffix as which to read it, whatever its name says.

    Raises:
        DataError: for a file that is missing, of another kind, damaged, empty, or in another encoding.
        MissingExtraError: for parquet without pyarrow.
    """
    parts = list(counted(read_in_parts(path, is_header, kind=kind)))
    columns: dict[str, list[Any]] = {name: [] for name in parts[-1].columns}
    for part in parts:
        missing = [None] * len(part.numbers)
        for name, values in columns.items():
            values.extend(part.columns.get(name, missing))
    numbers = [number for part in parts for number in part.numbers]
    return Table(parts[0].path, columns, numbers, parts[0].unit, parts[0].is_untyped)


def read_in_parts(
    path: str | Path, is_header: IsHeader = names_columns, *, piped: str = ".csv", kind: str | None = None
) -> Iterator[Table]:
    """:func:`read_table`, some thousands of records at a time, so that memory does not grow with the file.

    A column that a file of JSON lines names for the first time in a later part is unknown before.

    Args:
        path: of the file.
        is_header: as of :func:`read_table`.
        piped: kind of piped data that does not begin like JSON lines, parquet or a table with one of
            the usual names of columns: ``".csv"`` (or TSV) or ``".txt"``.
        kind: as of :func:`read_table`.
    """
    source = find_file(path)
    suffix = kind or (source.suffix if source.path == source.place else _guess(source, piped))
    if suffix not in _SUFFIXES:
        raise DataError(f"{source.path}: {unknown('kind of file', suffix or source.path.name, _SUFFIXES)}")
    is_empty = True
    for part in _SUFFIXES[suffix](source, is_header):
        is_empty = False
        yield part
    if is_empty:
        raise DataError(f"{source.path} is empty: it holds no records")


def counted(parts: Iterable[Table], what: str = "reading", total: int | None = None) -> Iterator[Table]:
    """The parts of a file, for a reader that goes through all of them at once; its progress is shown."""
    with Progress(what, total, "rows") as progress:
        for part in parts:
            yield part
            progress.update(len(part.numbers))


def _guess(source: InputFile, otherwise: str) -> str:
    """The kind of what came through a pipe, from its first bytes."""
    if source.head().startswith(b"PAR1"):
        return ".parquet"
    lines = [line for _, line in islice(_lines(source), _LINES_LOOKED_AT)]
    with suppress(ValueError, IndexError):
        if isinstance(json.loads(lines[0]), dict):
            return ".jsonl"
    return ".csv" if is_table(lines) else otherwise


def read_json_lines(source: InputFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for each line that is not blank.

    Raises:
        DataError: for a line that is not a JSON object; the line is named.
    """
    for number, line in _lines(source):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"line {number} of {source.path} is not JSON ({error}); write one object per line"
            ) from error
        if not isinstance(record, dict):
            raise DataError(
                f"line {number} of {source.path} is a JSON {type(record).__name__}; "
                'write one object per line, such as {"query": "...", "document": "..."}'
            )
        yield number, record


def _lines(source: InputFile) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    with source.open_text(newline="") as stream:  # CR, LF and both end a line, as in CSV
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, line.rstrip("\r\n")


def _of_lines(source: InputFile, _: IsHeader) -> Iterator[Table]:
    return _as_tables(source, ((number, {"text": line}) for number, line in _lines(source)))


def _of_objects(source: InputFile, _: IsHeader) -> Iterator[Table]:
    return _as_tables(source, read_json_lines(source))


def _as_tables(source: InputFile, records: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[Table]:
    names: dict[str, None] = {}
    for part in batches(records, _RECORDS_AT_A_TIME):
        names |= dict.fromkeys(name for _, record in part for name in record)
        columns = {name: [record.get(name) for _, record in part] for name in names}
        yield Table(source.path, columns, [number for number, _ in part])


def _of_fields(source: InputFile, is_header: IsHeader) -> Iterator[Table]:
    tab = "\t" if source.suffix == ".tsv" else None
    with source.open_text(newline="") as stream:
        fields = read_fields(source.path, stream, tab, is_header)
        decimals = set[str]()
        if fields.delimiter == ";":
            # All rows decide, so that no column changes its form on the way: the file is read twice.
            with source.open_text(newline="") as again:
                decimals = with_decimal_commas(read_fields(source.path, again, tab, is_header))
        for part in batches(fields.rows, _RECORDS_AT_A_TIME):
            columns = {name: [row[place] for _, row in part] for place, name in enumerate(fields.names)}
            for name in decimals:
                columns[name] = [value.replace(",", ".") for value in columns[name]]
            yield Table(source.path, columns, [number for number, _ in part], is_untyped=True)


def _of_parquet(source: InputFile, _: IsHeader) -> Iterator[Table]:
    parquet = require("pyarrow.parquet", "parquet")
    arrow = require("pyarrow", "parquet")
    try:
        with parquet.ParquetFile(source.place) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise DataError(f"{source.path} names a column twice: {', '.join(names)}; rename one")
            # All rows decide, so that no column changes its form on the way: times are read twice.
            days = day_columns(file.schema_arrow, lambda names: file.iter_batches(columns=names))
            start = 1
            for batch in file.iter_batches(batch_size=_RECORDS_AT_A_TIME):
                numbers = range(start, start + batch.num_rows)
                yield Table(source.path, lists_of(batch, days), numbers, unit="row")
                start += batch.num_rows
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source.path} is not a readable parquet file: {error}") from error


def plain_name(name: str) -> str:
    """``name`` as it is compared: ``Sentence_1`` is ``sentence1``."""
    return re.sub(r"[\W_]", "", name.lower())


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


_SUFFIXES: dict[str, Callable[[InputFile, IsHeader], Iterator[Table]]] = {
    ".csv": _of_fields,
    ".tsv": _of_fields,
    ".jsonl": _of_objects,
    ".ndjson": _of_objects,
    ".parquet": _of_parquet,
    ".txt": _of_lines,
}


def text_column(table: Table, but: str = "") -> str:
    """The column of texts: the first of the usual names, or the only one there is besides ``but``.

    Raises:
        DataError: if there is no such column; those that there are, are named.
    """
    others = [name for name in table.columns if name != but]
    known = table.find_column([name for name in _TEXT_COLUMNS if name != but])
    if known is None and len(others) != 1:
        raise DataError(
            f"{table.path} has no column called {', '.join(_TEXT_COLUMNS[:3])} or the like, but "
            f"{', '.join(table.columns)}; name the one that holds the texts with text="
        )
    return known or others[0]
