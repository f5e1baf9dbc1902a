"""The form in which an index holds its rows: floats, or nested codes and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, CutRule, cut
from nestling.kernels.planes import packed
from nestling.kernels.planes.layout import stride_of
from nestling.storage.artifact import FileRecord, open_array
from nestling.storage.durable import write_new_together
from nestling.storage.npy import npy_header
from nestling.vectors.matrix import blocks_of
from nestling.vectors.planes import BitPlanes, cleared, open_planes, plane_file
from nestling.vectors.precision import Values

Floats = NDArray[np.float32]
Held: TypeAlias = NDArray[Any]
"""Rows as they are held, in memory and in the log: ``Float32[n, dim]``, or codes ``UInt8[n, bits * bytes]``
whose first bytes are the most significant bits of all entries."""

_VECTORS = "vectors.npy"


@dataclass(frozen=True)
class RowFormat:
    """How rows are held.

    Args:
        dim: entries of a row.
        rule: around a cut, what comes before it being done; its code makes codes.
        bits: of each entry of a code; None for floats.
    """

    dim: int
    rule: CutRule
    bits: int | None = None

    @property
    def full(self) -> int:
        """Entries of the vectors that rows are made of; the code of a prefix is that of whole vectors."""
        return self.dim if self.bits is None else self.rule.needed_code.full

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of rows as they are held."""
        return np.dtype(np.float32 if self.bits is None else np.uint8)

    @property
    def width(self) -> int:
        """Numbers of a row as it is held."""
        return self.dim if self.bits is None else self._stride * self.bits

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * self.dtype.itemsize

    @property
    def _stride(self) -> int:
        return stride_of(self.dim)

    @property
    def files(self) -> tuple[str, ...]:
        """The files of a segment that hold its rows."""
        if self.bits is None:
            return (_VECTORS,)
        return tuple(plane_file(Path(), place).name for place in range(self.bits))

    def of_floats(self, vectors: Floats) -> Held:
        """Rows of whole vectors ``Float32[n, full]``, with what comes before a cut done."""
        if self.bits is None:
            return cut(vectors, self.dim, RAW)
        return np.concatenate(packed(self.rule.encode(vectors), self.bits), axis=1)

    def view(self, rows: Held) -> Values:
        """Rows as searches read them, without copying them."""
        if self.bits is None:
            return rows
        planes = (rows[:, place * self._stride : (place + 1) * self._stride] for place in range(self.bits))
        return BitPlanes(tuple(planes), self.rule.needed_code)

    def pick(self, values: Values, rows: Any) -> Held:
        """Some rows of what :meth:`view` or :meth:`open` gave."""
        if self.bits is None:
            return np.asarray(values[rows])
        return np.concatenate([plane[rows, : self._stride] for plane in values.planes], axis=1)

    def blocks(self, values: Values) -> Iterator[Held]:
        """All rows, some thousands at a time."""
        return (self.pick(values, rows) for rows in blocks_of(values))

    def floats(self, rows: Held) -> Floats:
        """The values that rows stand for."""
        return np.asarray(self.view(rows))

    def cut(self, rows: Held, small: RowFormat) -> Held:
        """Rows with the leading entries and bits that a smaller format has."""
        if self.bits is None:
            return cut(rows, small.dim, RAW)
        planes = rows.reshape(len(rows), self.bits, self._stride)[:, : small.bits, : small._stride]
        return np.concatenate([cleared(plane, small.dim) for plane in planes.transpose(1, 0, 2)], axis=1)

    def write(self, folder: Path, blocks: Iterable[Held], count: int) -> dict[str, FileRecord]:
        """Write and flush the files of a segment."""
        width = self.dim if self.bits is None else self._stride
        header = npy_header((count, width), self.dtype)

        def chunks() -> Iterator[list[Any]]:
            yield [header] * len(self.files)
            for block in filter(len, blocks):
                parts = np.split(block, len(self.files), axis=1)
                yield [np.ascontiguousarray(part, self.dtype).view(np.uint8).data for part in parts]

        records = write_new_together([folder / name for name in self.files], chunks())
        return dict(zip(self.files, records, strict=True))

    def open(self, folder: Path) -> Values:
        """The rows of a segment as memory maps.

        Raises:
            ArtifactError: if a file cannot be read.
        """
        if self.bits is None:
            return open_array(folder / _VECTORS)
        return open_planes(folder, self.rule.needed_code, self.bits)
