"""Several vectors an item, such as one for each token of a text: rows of one matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.paths import home_path
from nestling.cut import check_vectors, name_rows
from nestling.errors import DataError
from nestling.storage.artifact import open_array, read_folder, write_folder
from nestling.storage.npy import write_array

Matrix = NDArray[np.floating[Any]]
_KIND, _VALUES, _STARTS = "token_vectors", "vectors.npy", "starts.npy"


@dataclass(frozen=True, eq=False)
class TokenVectors:
    """The vectors of many items, one item after the other.

    Args:
        values: ``Float[total, dim]``, all vectors.
        starts: ``Int[items + 1]``, the first row of each item, and ``total``.

    Raises:
        DataError: for vectors that cannot be used, starts that do not fit them, or items without vectors
            (named).

    >>> x = TokenVectors.of([np.ones((2, 3)), np.zeros((1, 3))])
    >>> len(x), x.shape, x.counts.tolist()
    (2, (2, 3), [2, 1])
    """

    values: Matrix
    starts: NDArray[np.int64]

    def __post_init__(self) -> None:
        values = check_vectors(self.values, "the token vectors")
        starts = np.asarray(self.starts)
        if starts.ndim != 1 or len(starts) < 2 or starts.dtype.kind not in "iu":
            raise DataError("starts must be the first row of each item and the number of rows: whole numbers")
        if (starts[0], starts[-1]) != (0, len(values)):
            raise DataError(f"starts must run from 0 to {len(values)}, not from {starts[0]} to {starts[-1]}")
        empty = np.flatnonzero(np.diff(starts) < 1)
        if len(empty):
            raise DataError(f"{name_rows(empty, 'of the items have')} no vectors; leave such items out")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "starts", starts.astype(np.int64, copy=False))

    @classmethod
    def of(cls, items: Iterable[Matrix]) -> Self:
        """The vectors ``Float[n, dim]`` of each item.

        Raises:
            DataError: for no items, or vectors of different sizes.
        """
        held = [np.asarray(item) for item in items]
        widths = {item.shape[1:] for item in held}
        if len(widths) != 1:
            what = f"items of shapes {sorted(map(str, widths))}" if held else "no items"
            raise DataError(f"token vectors need items of shape [n, dim] with one dim, not {what}")
        return cls(np.concatenate(held), np.cumsum([0, *map(len, held)]))

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder.

        Raises:
            ArtifactError: if the folder holds anything but token vectors.
            StorageError: if writing fails; what was there before stays.
        """
        with write_folder(folder, _KIND) as path:
            write_array(path / _VALUES, self.values)
            write_array(path / _STARTS, self.starts)

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Read what :meth:`save` wrote, as memory maps.

        Raises:
            ArtifactError: if the folder is absent, torn, altered, or holds something else.
        """
        read_folder(folder, _KIND)
        path = home_path(folder)
        return cls(open_array(path / _VALUES), open_array(path / _STARTS))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Number of items, and entries of a vector."""
        return len(self), self.values.shape[1]

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of vectors of each item."""
        return np.diff(self.starts)

    def items(self) -> list[Matrix]:
        """The vectors ``Float[n, dim]`` of each item; nothing is copied."""
        return np.split(self.values, self.starts[1:-1])

    def __getitem__(self, rows: slice) -> TokenVectors:
        """Some items that follow each other; nothing is copied."""
        first, last, step = rows.indices(len(self))
        if step != 1 or last <= first:
            raise DataError(f"{rows} must name at least one item, in steps of 1")
        starts = self.starts[first : last + 1]
        return TokenVectors(self.values[starts[0] : starts[-1]], starts - starts[0])


def rows_of(held: Matrix | TokenVectors) -> Matrix:
    """All vectors, ``Float[total, dim]``."""
    return held.values if isinstance(held, TokenVectors) else held


def grouped_as(like: Matrix | TokenVectors, rows: Matrix) -> Any:
    """``rows`` as the vectors of the same items as those of ``like``."""
    return replace(like, values=rows) if isinstance(like, TokenVectors) else rows
