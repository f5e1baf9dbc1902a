"""Files in numpy's format ``.npy``: written as streams from blocks of rows, and read."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nestling.errors import DataError
from nestling.process.blocks import blocks
from nestling.process.progress import Progress
from nestling.storage.artifact import open_new, reading_errors

_BYTES_AT_A_TIME = 1 << 26


def write_header(stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write the header of a file of ``shape``; rows follow one after the other."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(stream, header)


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The bytes before the rows of a file of ``shape``."""
    header = io.BytesIO()
    write_header(header, shape, dtype)
    return header.getvalue()


def header_bytes(path: Path) -> int:
    """Offset of the first row in a file that :func:`write_header` began."""
    with path.open("rb") as stream:
        np.lib.format.read_magic(stream)
        np.lib.format.read_array_header_2_0(stream)
        return stream.tell()


def npy_chunks(rows: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Any]:
    """The bytes of a file of ``shape``, from blocks of its rows."""
    yield npy_header(shape, dtype)
    for block in rows:
        if block.size:
            yield np.ascontiguousarray(block, dtype).view(np.uint8).data


def write_npy(path: Path, rows: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write a file of ``shape`` from blocks of its rows, and show the progress.

    A full disk is an error that can be caught here; writing to a memory map would end the process.

    Raises:
        DataError: if the blocks hold another number of rows.
    """
    write_npy_together([path], ([block] for block in rows), shape, dtype)


def write_npy_together(
    paths: Sequence[Path],
    blocks: Iterable[Sequence[NDArray[Any]]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> None:
    """Write several files of one ``shape``, as :func:`write_npy`, from blocks of the same rows of each.

    Raises:
        DataError: if the blocks hold another number of rows.
    """
    written = 0
    with ExitStack() as stack, Progress("writing vectors", shape[0], "rows") as progress:
        streams = [stack.enter_context(path.open("wb")) for path in paths]
        for stream in streams:
            write_header(stream, shape, dtype)
        for parts in blocks:
            for stream, part in zip(streams, parts, strict=True):
                stream.write(np.ascontiguousarray(part, dtype).data)
            written += len(parts[0])
            progress.update(len(parts[0]))
    if written != shape[0]:
        raise DataError(f"{written} rows came where {shape[0]} were promised; nothing was kept")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array, whole or not at all.

    Raises:
        StorageError: if writing fails.
    """
    rows_at_a_time = max(1, _BYTES_AT_A_TIME // max(1, array[:1].nbytes))
    with open_new(path) as stream:
        write_header(stream, array.shape, array.dtype)
        for rows in blocks(len(array), rows_at_a_time):
            stream.write(np.ascontiguousarray(array[rows]).data)


def read_array(path: Path) -> NDArray[Any]:
    """The array of a file, in memory; see :func:`~nestling.storage.artifact.open_array` for a memory map.

    Raises:
        ArtifactError: if it cannot be read.
        ValueError: if it holds something else.
    """
    with reading_errors(path):
        return np.asarray(np.load(path, allow_pickle=False))


def read_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a folder in memory, by the names of their files; the errors are those of one."""
    return {path.stem: read_array(path) for path in sorted(folder.glob("*.npy"))}
