"""Bit planes: the codes of vectors, one file or array for each bit, of which the leading ones are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.formatting import shown
from nestling.bits import BitCode, Codes, Floats
from nestling.errors import DataError
from nestling.kernels.planes import packed, unpacked
from nestling.kernels.planes.layout import stride_of
from nestling.storage.artifact import open_array
from nestling.storage.npy import write_npy_together

Bytes = NDArray[np.uint8]
Rows = slice | NDArray[Any]


@dataclass(frozen=True, eq=False)
class BitPlanes:
    """The codes of n vectors, held bit by bit.

    They are indexed as the matrix of their values, ``Float32[n, dim]``; ``planes[..., :8]`` is a view of the
    codes of the first eight entries.

    Args:
        planes: ``UInt8[n, bytes]`` each, the most significant bit first; a byte holds eight entries, the
            first in its highest bit.
        code: of the vectors; decodes the planes.
    """

    planes: tuple[Bytes, ...]
    code: BitCode

    dtype = np.dtype(np.float32)
    ndim = 2

    def __post_init__(self) -> None:
        wanted = stride_of(self.code.dim)
        for plane in self.planes:
            if plane.dtype != np.uint8 or plane.ndim != 2 or plane.shape[1] < wanted:
                raise DataError(
                    f"a plane of {self.code.dim} entries is UInt8[n, {wanted}], eight to a byte, not "
                    f"{plane.dtype} of shape {plane.shape}"
                )

    @property
    def bits(self) -> int:
        """Bits of each entry."""
        return len(self.planes)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and entries."""
        return len(self.planes[0]), self.code.dim

    @property
    def nbytes(self) -> int:
        """Bytes of the codes."""
        return sum(plane.nbytes for plane in self.planes)

    def __len__(self) -> int:
        return len(self.planes[0])

    def __getitem__(self, key: Any) -> Any:
        rows, entries = _rows_and_entries(key)
        is_prefix = isinstance(entries, slice) and entries.indices(self.code.dim)[::2] == (0, 1)
        if isinstance(rows, int | np.integer):
            return self.read(np.array([rows]))[0][entries]
        if is_prefix:
            dim = entries.indices(self.code.dim)[1]
            if dim and isinstance(key, tuple) and isinstance(rows, slice) and rows == slice(None):
                return replace(self, code=self.code.cut(dim))
            found = self.read(rows, max(dim, 1))  # the slice may count from the end of all entries
            return found if dim else found[:, :0]
        found = self.read(rows)
        is_paired = not isinstance(rows, slice) and not isinstance(entries, slice | int | np.integer)
        return found[np.arange(len(found)) if is_paired else slice(None), entries]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.read(slice(None)).astype(dtype or np.float32, copy=False)

    def codes(self, rows: Rows, dim: int | None = None, bits: int | None = None) -> Codes:
        """Codes of some rows in 8 bits, of which those that are not read are zero: ``UInt8[rows, dim]``."""
        dim, bits = dim or self.code.dim, bits or self.bits
        if bits > self.bits:
            raise DataError(f"these codes hold {self.bits} bits an entry, not {bits}")
        return unpacked([plane[rows, : stride_of(dim)] for plane in self.planes[:bits]], dim)

    def read(self, rows: Rows, dim: int | None = None, bits: int | None = None) -> Floats:
        """The values of some rows by their leading codes and bits, ``Float32[rows, dim]``."""
        return self.code.decode(self.codes(rows, dim, bits), bits or self.bits)

    def part(self, rows: Rows) -> BitPlanes:
        """The codes of some rows."""
        return replace(self, planes=tuple(plane[rows] for plane in self.planes))

    def cut(self, dim: int, bits: int) -> BitPlanes:
        """The codes of the leading entries in the leading bits, in memory of their own."""
        return BitPlanes(
            tuple(cleared(plane[:, : stride_of(dim)], dim) for plane in self.planes[:bits]),
            self.code.cut(dim),
        )


def plane_file(folder: Path, place: int) -> Path:
    """The file of one plane, counted from the most significant one."""
    return folder / f"plane{place + 1}.npy"


def write_planes(folder: Path, blocks: Iterable[Codes], shape: tuple[int, int], bits: int) -> None:
    """Write the leading planes of blocks of 8-bit codes, a file each."""
    paths = [plane_file(folder, place) for place in range(bits)]
    parts: Iterator[list[Bytes]] = (packed(block, bits) for block in blocks)
    write_npy_together(paths, parts, (shape[0], stride_of(shape[1])), np.dtype(np.uint8))


def open_planes(folder: Path, code: BitCode, bits: int) -> BitPlanes:
    """Planes as memory maps.

    Raises:
        ArtifactError: if one cannot be read.
    """
    return BitPlanes(tuple(open_array(plane_file(folder, place)) for place in range(bits)), code)


def cleared(plane: Bytes, dim: int) -> Bytes:
    """A copy of a plane whose bits beyond ``dim`` are zero."""
    found = np.array(plane)
    if dim % 8:
        found[:, -1] &= np.uint8(0xFF << (8 - dim % 8) & 0xFF)
    return found


def _rows_and_entries(key: Any) -> tuple[Any, Any]:
    """Both parts of an index of a matrix, of which either may be left out."""
    parts: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)
    is_all = [part is Ellipsis for part in parts]
    whole = slice(None)
    if sum(is_all) == 1 and len(parts) <= 3:
        place = is_all.index(True)
        parts = (*parts[:place], *[whole] * (3 - len(parts)), *parts[place + 1 :])
    rows, entries, *more = (*parts, whole, whole)[: max(len(parts), 2)]
    odd = [part for part in (rows, entries) if not isinstance(part, slice) and np.ndim(part) > 1]
    if more or odd or rows is None or entries is None or rows is Ellipsis:
        raise IndexError(
            f"bit planes are indexed by rows and entries, as in planes[3:6, :8], not by {shown(key)}; make "
            "an array of them for other ways: np.asarray(planes)"
        )
    return rows, entries
