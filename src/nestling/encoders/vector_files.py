"""Files of vectors as others write them: .npy, .fvecs and .parquet; and .npy written in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nestling.cut import name_rows
from nestling.encoders.matrix import Vectors
from nestling.encoders.vector_parquet import read_parquet
from nestling.errors import DataError, unknown
from nestling.progress import Progress


class VectorFile(NamedTuple):
    """What a file holds: ``Float[n, dim]``, a memory map where the format allows it, and its ids, if any."""

    values: Vectors
    ids: NDArray[np.generic] | None = None


def read_vector_file(
    path: str | Path, *, column: str | None = None, id_column: str | None = None
) -> VectorFile:
    """Read a file by its suffix: ``.npy`` and ``.fvecs`` as memory maps, ``.parquet`` into memory.

    Args:
        path: of the file.
        column: of a parquet file, the one that holds lists of numbers; needed if there are several.
        id_column: of a parquet file, the one that names the rows; None is none.

    Raises:
        DataError: if the file does not exist, is of another kind, truncated or corrupt, or its rows are
            of different length (named).
        MissingExtraError: for parquet without pyarrow.
    """
    file = Path(path)
    readers: dict[str, Callable[[], VectorFile]] = {
        ".npy": lambda: VectorFile(_read_npy(file)),
        ".fvecs": lambda: VectorFile(_read_fvecs(file)),
        ".parquet": lambda: VectorFile(*read_parquet(file, column, id_column)),
    }
    if file.suffix not in readers:
        raise DataError(unknown("kind of vector file", file.suffix or file.name, readers))
    if not file.is_file():
        raise DataError(f"{file} does not exist or is no file")
    if (column or id_column) and file.suffix != ".parquet":
        raise DataError(f"{file} has no columns; column= and id_column= are for parquet files")
    return readers[file.suffix]()


def write_npy(path: Path, blocks: Iterable[Vectors], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    """Write a ``.npy`` file of ``shape`` from blocks of rows.

    It is written as a stream: a full disk is then an error that can be caught, where writing to a memory
    map would end the process.

    Raises:
        DataError: if the blocks hold another number of rows.
    """
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    written = 0
    with path.open("wb") as stream, Progress("writing vectors", shape[0], "rows") as progress:
        np.lib.format.write_array_header_2_0(stream, header)
        for block in blocks:
            stream.write(np.ascontiguousarray(block, dtype).data)
            written += len(block)
            progress.update(len(block))
    if written != shape[0]:
        raise DataError(f"{written} rows came where {shape[0]} were promised; nothing was kept")


def _read_npy(file: Path) -> Vectors:
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            found.close()
            raise ValueError("it is an archive of several arrays")
    except Exception as error:  # a damaged header is parsed as Python, which fails in a dozen ways
        raise DataError(
            f"{file} cannot be read as a matrix of numbers: {error}. It may be truncated, empty or of "
            "another kind; write it again with np.save(path, matrix)"
        ) from error
    return found


def _read_fvecs(file: Path) -> Vectors:
    """Each row is its length as int32, then so many float32 (corpus-texmex.irisa.fr)."""
    size_bytes = file.stat().st_size
    if size_bytes < 8:
        raise DataError(f"{file} holds {size_bytes} bytes and no vector; copy it again from its source")
    words = np.memmap(file, dtype="<i4", mode="r", shape=(size_bytes // 4,))
    dim = int(words[0])
    if dim < 1 or size_bytes % (4 * (dim + 1)):
        raise DataError(
            f"{file} is no whole .fvecs file: its first row says {dim} entries, and {size_bytes} bytes are "
            f"no whole number of such rows; it is truncated or of another kind, copy it again"
        )
    rows = words.reshape(-1, dim + 1)
    wrong = np.flatnonzero(rows[:, 0] != dim)
    if len(wrong):
        raise DataError(
            f"{file} is corrupt at {name_rows(wrong)}: not of {dim} entries like the first; copy it again"
        )
    return rows.view("<f4")[:, 1:]
