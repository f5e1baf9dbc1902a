"""Rows that a search may return."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nestling.errors import DataError
from nestling.search.exact.faiss_arrays import faiss
from nestling.search.exact.space import Ints

Row = TypeVar("Row", Ints, NDArray[np.int32])
_ROWS_MORE, _SHARE_MORE = 16, 1.2


def check_mask(mask: Any, rows: int) -> None:
    """Refuse a filter that is not one boolean for each row.

    Raises:
        DataError: for another type or length.
    """
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (rows,):
        given = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise DataError(f"allowed must be one boolean for each of the {rows} rows, not {given}")


class Allowed:
    """A mask over the rows of an index, as numpy and as faiss read it.

    Args:
        mask: ``Bool[rows]``, true where a row may be returned.
        rows: number of rows.
        nodes: number of rows that a graph links; by default all.

    Raises:
        DataError: for a mask of another type or length.

    Attributes:
        mask: as given.
        count: rows that may be returned.
        share: share of the rows that may be returned.
    """

    def __init__(self, mask: NDArray[np.bool_], rows: int, nodes: int | None = None) -> None:
        check_mask(mask, rows)
        self.mask = mask
        self.count = int(np.count_nonzero(mask))
        self.share = self.count / (nodes or rows)
        self._bits = np.packbits(mask, bitorder="little")  # kept: faiss reads it in place
        self.selector: Any = faiss.IDSelectorBitmap(self._bits)

    def rows(self) -> Ints:
        """The rows that may be returned, in order."""
        return np.flatnonzero(self.mask)


def keep_allowed(found: Row, mask: NDArray[np.bool_], k: int, enough: int) -> tuple[Row, Ints]:
    """The first ``k`` of each query's rows that are allowed, -1 where there are fewer, and where they stood.

    The rows found are the nearest of all. Where fewer than ``enough`` of them are allowed, the nearest of
    those lie elsewhere, and none is given.

    Args:
        found: ``Int[queries, length]``, -1 is none.
        mask: ``Bool[rows]``: those that are allowed.
        k: number of rows to keep.
        enough: smallest number of allowed rows among them.
    """
    fits = (found >= 0) & mask[found]
    fits[fits.sum(axis=1) < enough] = False
    places = np.argsort(~fits, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(found, places, 1)
    kept[~np.take_along_axis(fits, places, 1)] = -1
    return kept, places


def length_to_fetch(k: int, share: float, rows: int) -> int:
    """Number of nearest rows that hold ``k`` allowed ones, if a share of the rows near them is allowed."""
    return min(rows, int(k / share * _SHARE_MORE) + _ROWS_MORE)
