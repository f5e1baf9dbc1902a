"""Rows that a search may return."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.errors import DataError
from nestling.search.space import Ints
from nestling.search.views import faiss


class Allowed:
    """A mask over the rows of an index, as numpy and as faiss read it.

    Args:
        mask: ``Bool[rows]``, true where a row may be returned.
        rows: how many there are.

    Raises:
        DataError: for a mask of another type or length.

    Attributes:
        mask: as given.
        count: rows that may be returned.
    """

    def __init__(self, mask: NDArray[np.bool_], rows: int) -> None:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (rows,):
            given = (
                f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            )
            raise DataError(f"allowed must be one bool for each of the {rows} rows, not {given}")
        self.mask = mask
        self.count = int(np.count_nonzero(mask))
        self._bits = np.packbits(mask, bitorder="little")  # kept: faiss reads it in place
        self.selector: Any = faiss.IDSelectorBitmap(self._bits)

    @property
    def share(self) -> float:
        """The share of rows that may be returned."""
        return self.count / len(self.mask)

    def rows(self) -> Ints:
        """The rows that may be returned, in order."""
        return np.flatnonzero(self.mask)
