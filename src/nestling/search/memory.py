"""The newest rows of an index, held in memory until there are enough of them for a segment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule
from nestling.data.columns import Columns, GrowingColumns, Kinds
from nestling.search.exact import Metric, Neighbours, nearest
from nestling.search.ids import Ids

_FIRST_CAPACITY = 64


@dataclass(frozen=True, eq=False)
class MemoryView:
    """The rows in memory at one moment; later updates do not change it.

    Args:
        names: ``Object[n]``, the ids.
        vectors: ``Float32[n, dim]``.
        live: ``Bool[n]``, False for rows that were deleted or replaced.
        fields: of the rows.
    """

    names: NDArray[Any]
    vectors: NDArray[np.float32]
    live: NDArray[np.bool_]
    fields: Columns

    @property
    def live_count(self) -> int:
        """Rows that are found."""
        return int(self.live.sum())

    def find(self, ids: Ids) -> NDArray[np.int64]:
        """The live row of each id, -1 where there is none."""
        return np.fromiter((self._rows.get(name, -1) for name in ids.tolist()), np.int64, len(ids))

    @cached_property
    def _rows(self) -> dict[Any, int]:
        rows = np.flatnonzero(self.live)
        return dict(zip(self.names[rows].tolist(), rows.tolist(), strict=True))

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        dim: int,
        rule: CutRule,
        metric: Metric,
        allowed: NDArray[np.bool_] | None,
        workers: int | None,
    ) -> Neighbours:
        """Exact neighbours among the live rows that are allowed; row numbers, as many as there are.

        By default this thread does it: a pool for so few rows would only make other searches wait.
        """
        rows = np.flatnonzero(self.live if allowed is None else self.live & allowed)
        if not len(rows):
            return Neighbours(np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32))
        found = nearest(
            queries,
            self.vectors[rows],
            min(k, len(rows)),
            dim=dim,
            rule=rule,
            metric=metric,
            workers=workers or 1,
        )
        return Neighbours(rows[found.indices], found.scores)


class MemoryPart:
    """Rows in memory, of one writer. Views of it stay as they are: rows are only ever added behind them."""

    def __init__(self, dim: int, kinds: Kinds) -> None:
        self._vectors = np.empty((_FIRST_CAPACITY, dim), np.float32)
        self._names = np.empty(_FIRST_CAPACITY, object)
        self._live = np.zeros(0, np.bool_)
        self._rows: dict[Any, int] = {}
        self._fields = GrowingColumns(kinds)

    @property
    def size_bytes(self) -> int:
        """Bytes of all rows, also of those that were replaced."""
        return len(self._live) * self._vectors.shape[1] * 4

    def has(self, ids: Ids) -> NDArray[np.bool_]:
        """Which ids have a live row here."""
        return np.fromiter((name in self._rows for name in ids.tolist()), np.bool_, len(ids))

    def put(self, ids: Ids, vectors: NDArray[np.float32], fields: Columns) -> None:
        """Add rows; earlier ones of the same ids are no longer found."""
        start, end = len(self._live), len(self._live) + len(ids)
        if end > len(self._names):
            self._grow(max(end, 2 * len(self._names)))
        self._vectors[start:end] = vectors
        self._names[start:end] = ids.tolist()
        self._fields.append(fields)
        self._live = np.concatenate([self._live, np.ones(len(ids), np.bool_)])
        self._live[self._forget(ids)] = False
        self._rows.update(zip(ids.tolist(), range(start, end), strict=True))

    def delete(self, ids: Ids) -> None:
        """Rows of these ids are no longer found."""
        live = self._live.copy()
        live[self._forget(ids)] = False
        self._live = live

    def view(self) -> MemoryView:
        """The rows as they are now."""
        count = len(self._live)
        return MemoryView(self._names[:count], self._vectors[:count], self._live, self._fields.view())

    def _forget(self, ids: Ids) -> list[int]:
        return [self._rows.pop(name) for name in ids.tolist() if name in self._rows]

    def _grow(self, capacity: int) -> None:
        """Move to larger arrays; views keep the old ones."""
        count = len(self._live)
        vectors = np.empty((capacity, self._vectors.shape[1]), np.float32)
        names = np.empty(capacity, object)
        vectors[:count], names[:count] = self._vectors[:count], self._names[:count]
        self._vectors, self._names = vectors, names
