"""Reading files of vectors that others wrote: .npy, .fvecs and .parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nestling.cut import name_rows
from nestling.data.tables.input_file import InputFile, find_file
from nestling.data.tables.table import Table
from nestling.errors import DataError, unknown
from nestling.vectors.matrix import Vectors
from nestling.vectors.parquet import read_other_columns, read_parquet


class VectorFile(NamedTuple):
    """The content of a file: ``Float[n, dim]``, a memory map if the format allows it, and ids, if any."""

    values: Vectors
    ids: NDArray[np.generic] | None = None
    others: Callable[[], Iterator[Table]] | None = None


def read_vector_file(
    path: str | Path, *, column: str | None = None, id_column: str | None = None
) -> VectorFile:
    """Read a file by its suffix: ``.npy`` and ``.fvecs`` as memory maps, ``.parquet`` into memory.

    Args:
        path: of the file; ``~`` is a home; ``-`` is standard input, which may be ``.npy`` or ``.parquet``.
        column: of a parquet file, the one that holds lists of numbers or tensors, or what the names of
            numbered columns of floats begin with; needed if there are several.
        id_column: of a parquet file, the one that names the rows; by default ``id`` or ``_id``, if there;
            ``""`` is none.

    Raises:
        DataError: if the file does not exist, is of another kind, truncated or corrupt, or its rows are
            of different length (named).
        MissingExtraError: for parquet without pyarrow.
    """
    readers: dict[str, Callable[[InputFile], VectorFile]] = {
        ".npy": lambda file: VectorFile(_read_npy(file)),
        ".fvecs": lambda file: VectorFile(_read_fvecs(file)),
        ".parquet": lambda file: VectorFile(
            *read_parquet(file, column, id_column), partial(read_other_columns, path, column, id_column)
        ),
    }
    file = find_file(path)
    suffix = file.suffix if file.path == file.place else _KINDS.get(file.head()[:4], "")
    if suffix in _TABLES:
        raise DataError(
            f"{file.path} holds a table, and vectors are needed: {', '.join(readers)}, or a folder that "
            f"nestling saved; to encode its texts: nestling encode wordllama {file.path} -o vectors"
        )
    if suffix not in readers:
        raise DataError(f"{file.path}: {unknown('kind of vector file', suffix or file.path.name, readers)}")
    if (column or id_column) and suffix != ".parquet":
        raise DataError(f"{file.path} has no columns; column= and id_column= are for parquet files")
    return readers[suffix](file)


_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")
_KINDS = {b"\x93NUM": ".npy", b"PAR1": ".parquet"}
"""Kinds of piped files, by their first bytes."""


def _read_npy(file: InputFile) -> Vectors:
    try:
        found = np.load(file.place, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            found.close()
            raise ValueError("it is an archive of several arrays")
    except Exception as error:  # a damaged header is parsed as Python, which raises a dozen types of error
        raise DataError(
            f"{file.path} cannot be read as a matrix of numbers: {error}. It may be truncated, empty or of "
            "another kind; write it again with np.save(path, matrix)"
        ) from error
    return found


def _read_fvecs(file: InputFile) -> Vectors:
    """Each row is its length as int32, then so many float32 (corpus-texmex.irisa.fr)."""
    size_bytes = file.place.stat().st_size
    if size_bytes < 8:
        raise DataError(f"{file.path} holds {size_bytes} bytes and no vector; copy it again from its source")
    words = np.memmap(file.place, dtype="<i4", mode="r", shape=(size_bytes // 4,))
    dim = int(words[0])
    if dim < 1 or size_bytes % (4 * (dim + 1)):
        raise DataError(
            f"{file.path} is no valid .fvecs file: its first row says {dim} entries, and {size_bytes} bytes "
            f"are no whole number of such rows; it is truncated or of another kind, copy it again"
        )
    rows = words.reshape(-1, dim + 1)
    wrong = np.flatnonzero(rows[:, 0] != dim)
    if len(wrong):
        raise DataError(
            f"{file.path} is corrupt at {name_rows(wrong)}: not of {dim} entries like the first; copy it "
            "again"
        )
    return rows.view("<f4")[:, 1:]
