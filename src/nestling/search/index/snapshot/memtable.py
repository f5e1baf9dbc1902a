"""The memtable: the newest rows of an index, in memory until there are enough for a segment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, CutRule, cut
from nestling.data.tables.fields.columns import Columns, GrowingColumns
from nestling.search.engine.engine import Engine
from nestling.search.exact.neighbours import Metric, Neighbours, nearest
from nestling.search.index.files.ids import Ids
from nestling.search.index.files.row_format import Held
from nestling.search.index.files.segments import Terms
from nestling.vectors.precision import Values

_FIRST_CAPACITY = 64
_FEW_PAIRS = 512  # of queries and rows
_ROUNDING = 1e-5  # far above that of sums in single precision


@dataclass(frozen=True, eq=False)
class MemtableView:
    """The memtable at one moment; later updates do not change it.

    Args:
        names: ``Object[n]``, the ids.
        vectors: ``Float32[n, dim]`` or codes.
        live: ``Bool[n]``, False for rows that were deleted or replaced.
        fields: of the rows.
        terms: of the index.
    """

    names: NDArray[Any]
    vectors: Values
    live: NDArray[np.bool_]
    fields: Columns
    terms: Terms

    @cached_property
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
        bits: int | None,
        allowed: NDArray[np.bool_] | None,
        within: NDArray[np.float32] | None,
        workers: int | None,
    ) -> Neighbours | None:
        """Exact neighbours among the live rows that are allowed; row numbers, as many as there are.

        By default this thread does it: a pool for so few rows would only make other searches wait. What is
        compared is what the last stage of the plan compares in segments, so that an answer stays the same
        when the rows become one.

        Args:
            queries: ``Float32[queries, dim]``.
            k: rows wanted.
            dim: the longest prefix that is compared.
            bits: the most bits of each entry of codes.
            allowed: ``Bool[n]``; None is all.
            within: ``Float32[queries]``, the worst score that is of use; None is any.
            workers: threads.

        Returns:
            None where no row is of use.
        """
        mask, rule, metric = self.live, self.terms.rule, self.terms.metric
        dim = min(dim, self.terms.plan.answer_dim)
        if self.terms.bits is not None:
            mask = mask if allowed is None else mask & allowed
            return self._engine.search(queries, k, dim=dim, bits=bits, allowed=mask, workers=workers or 1)
        if within is not None:
            reached = self._screen(dim, rule).reached(queries, within, metric)
            if not reached.any():  # where nearly all queries end
                return None
            mask = mask & reached
        rows = np.flatnonzero(mask if allowed is None else mask & allowed)
        if not len(rows):
            return None
        vectors = self.vectors if len(rows) == len(self.vectors) else self.vectors[rows]
        if len(queries) * len(rows) <= _FEW_PAIRS:
            found = _nearest_of_few(queries, vectors, k, dim, rule, metric)
            return Neighbours(rows[found.indices], found.scores)
        found = nearest(
            queries,
            vectors,
            min(k, len(rows)),
            dim=dim,
            rule=rule,
            metric=metric,
            workers=workers or 1,
        )
        return Neighbours(rows[found.indices], found.scores)

    @cached_property
    def _engine(self) -> Engine:
        """Of codes, which it reads as they are."""
        return Engine(self.terms.plain_plan, {}, self.vectors, self.terms.rule, self.terms.metric)

    def _screen(self, dim: int, rule: CutRule) -> _Screen:
        """Made once for each size: the rows of a view never change."""
        found = self._screens.get(dim)
        if found is None:
            self._screens[dim] = found = _Screen.over(self.vectors, dim, rule)
        return found

    @cached_property
    def _screens(self) -> dict[int, _Screen]:
        return {}


@dataclass(frozen=True, eq=False)
class _Screen:
    """Finds by one matrix product which rows may be as near as those that were found already.

    Args:
        rows: ``Float32[n, dim]``, as cut and normalised.
        lengths: ``Float32[n]``, squared.
        longest: of them.
        rule: steps after the cut of queries.
    """

    rows: NDArray[np.float32]
    lengths: NDArray[np.float32]
    longest: float
    rule: CutRule

    @classmethod
    def over(cls, vectors: NDArray[np.float32], dim: int, rule: CutRule) -> _Screen:
        rows = np.ascontiguousarray(cut(vectors, dim, rule), np.float32)
        lengths = np.einsum("ij,ij->i", rows, rows)
        return cls(rows, lengths, float(lengths.max(initial=0)), rule)

    def reached(
        self, queries: NDArray[np.float32], within: NDArray[np.float32], metric: Metric
    ) -> NDArray[np.bool_]:
        """``Bool[n]``: rows that for any query may score as well as ``within``, to more than rounding."""
        is_cosine = metric == "dot" and self.rule.after == "l2"  # then the length of the query is a factor
        asked = cut(queries, self.rows.shape[1], RAW if is_cosine else self.rule)
        if is_cosine and len(asked) == 1 and len(self.rows) <= _FEW_PAIRS:
            # Half as many calls, and none to the linear algebra library, which is slow to wake.
            bound = (float(within[0]) - _ROUNDING) * math.sqrt(np.einsum("i,i->", asked[0], asked[0]))
            return np.asarray(np.einsum("ij,j->i", self.rows, asked[0]) >= bound)
        products = asked @ self.rows.T
        squares = np.einsum("ij,ij->i", asked, asked)
        if metric == "dot":
            lengths, slack = np.sqrt(squares), _ROUNDING * self.longest**0.5
            bound = (within - slack) * lengths if is_cosine else within - slack * lengths
            reached = products >= bound[:, None]
        else:
            slack = _ROUNDING * (squares + self.longest)
            reached = squares[:, None] - 2 * products + self.lengths <= (within**2 + slack)[:, None]
        return np.asarray(reached.any(axis=0))


def _nearest_of_few(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    k: int,
    dim: int,
    rule: CutRule,
    metric: Metric,
) -> Neighbours:
    """The result of :func:`~nestling.search.exact.neighbours.nearest`.

    Without what it prepares for many rows.
    """
    asked, rows = (cut(values.astype(np.float64), dim, rule) for values in (queries, vectors))
    if metric == "dot":
        keys = -(asked @ rows.T)
    else:
        keys = np.stack([np.linalg.norm(rows - query, axis=1) for query in asked])
    order = np.argsort(keys, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(keys, order, 1).astype(np.float32)
    return Neighbours(order, -best if metric == "dot" else best)


class Memtable:
    """The memtable of one writer. Views never change, because rows are only appended."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._vectors = np.empty((_FIRST_CAPACITY, terms.format.width), terms.format.dtype)
        self._names = np.empty(_FIRST_CAPACITY, object)
        self._live = np.zeros(0, np.bool_)
        self._rows: dict[Any, int] = {}
        self._fields = GrowingColumns(terms.fields)

    def __len__(self) -> int:
        """All rows, also those that were replaced."""
        return len(self._live)

    def has(self, ids: Ids) -> NDArray[np.bool_]:
        """Mask of the ids that have a live row here."""
        return np.fromiter((name in self._rows for name in ids.tolist()), np.bool_, len(ids))

    def put(self, ids: Ids, vectors: Held, fields: Columns) -> None:
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

    def view(self) -> MemtableView:
        """The rows as they are now."""
        count = len(self._live)
        held, fields = self._terms.format.view(self._vectors[:count]), self._fields.view()
        return MemtableView(self._names[:count], held, self._live, fields, self._terms)

    def _forget(self, ids: Ids) -> list[int]:
        return [self._rows.pop(name) for name in ids.tolist() if name in self._rows]

    def _grow(self, capacity: int) -> None:
        """Move to larger arrays; views keep the old ones."""
        count = len(self._live)
        vectors = np.empty((capacity, self._vectors.shape[1]), self._vectors.dtype)
        names = np.empty(capacity, object)
        vectors[:count], names[:count] = self._vectors[:count], self._names[:count]
        self._vectors, self._names = vectors, names
