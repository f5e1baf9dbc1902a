"""Float64 re-scoring of candidates found in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nestling import kernels
from nestling.cut import RAW, CutRule, cut, name_rows
from nestling.errors import DataError
from nestling.kernels.graph import rank
from nestling.process.blocks import blocks
from nestling.vectors.prefix import unrounded

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

# Distances of unit vectors follow from their cosine, unless it is so near to 1 that few of its digits differ.
CLOSE = 1e-3
_FLOATS_GATHERED_AT_A_TIME = 1 << 22


class Source(Protocol):
    """Rows that are read on demand: an array, a memory map, or rows that are prepared when they are read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and entries."""
        ...

    def __getitem__(self, rows: Any, /) -> NDArray[Any]:
        """Some of the rows."""
        ...


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Prefixes of rows, prepared for the cut when they are read."""

    rows: NDArray[Any]
    dim: int
    rule: CutRule

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.rows), self.dim

    def __getitem__(self, rows: Any, /) -> NDArray[Any]:
        return unrounded(np.asarray(self.rows[rows]), self.dim, self.rule)


def in_single(scores: Doubles, first_query: int = 0) -> NDArray[np.float32]:
    """Scores ``Float64[queries, k]``, which may have NaN, in single precision, as results have them.

    Raises:
        DataError: for scores that float32 does not hold; queries are named.
    """
    large = np.flatnonzero((np.abs(scores) > np.finfo(np.float32).max).any(axis=1))
    if len(large):
        raise DataError(
            f"the scores of {name_rows(large + first_query)} of queries do not fit float32; divide all "
            "vectors by a constant"
        )
    return scores.astype(np.float32)


def read_prefixes(rows: NDArray[Any], dim: int, rule: CutRule) -> Source:
    """The leading ``dim`` entries of ``Float[rows, at least dim]`` as ``rule`` prepares them for a cut."""
    return cut(rows, dim, RAW) if rule.before == "none" else _Prepared(rows, dim, rule)


@dataclass(frozen=True)
class Comparison:
    """The comparison of two vectors: by inner product, cosine, distance, or distance of directions.

    Args:
        is_normalised: whether both are first scaled to length one.
        is_distance: whether scores are Euclidean distances, smallest first.
    """

    is_normalised: bool
    is_distance: bool

    def best_of(self, queries: NDArray[Any], rows: Source, candidates: Ints, k: int) -> tuple[Ints, Doubles]:
        """The ``k`` best candidates of every query, best first; of equal scores the lower row wins.

        Distances are sums of squared differences, so that equal rows are at 0 and near duplicates in order.

        Args:
            queries: ``Float[queries, dim]``.
            rows: ``Float[rows, dim]``; of a memory map only the candidates are read.
            candidates: ``Int[queries, length]``, each row once, -1 behind the last of each.
            k: at least 1, at most ``length``.

        Returns:
            Row numbers and scores ``Float64[queries, k]``; -1 and nan where a query has fewer candidates.
        """
        asked = self._aim(queries)
        if isinstance(rows, np.ndarray) and _is_read_in_place(rows):
            return self._best_in_place(asked, rows, candidates, k)
        rows_at_a_time = max(1, _FLOATS_GATHERED_AT_A_TIME // rows.shape[1])
        if candidates.shape[1] > rows_at_a_time:
            return self._best_of_many(asked, rows, candidates, k, rows_at_a_time)
        step = max(1, rows_at_a_time // candidates.shape[1])
        parts = [
            self._best_gathered(asked[some], rows, candidates[some], k) for some in blocks(len(asked), step)
        ]
        found, scores = zip(*parts, strict=True)
        return np.concatenate(found), np.concatenate(scores)

    def best_stored(
        self,
        queries: NDArray[Any],
        rows: kernels.StoredRows,
        candidates: Ints,
        k: int,
        origin: Doubles | None = None,
    ) -> tuple[Ints, Doubles]:
        """The ``k`` best candidates among rows that compiled kernels can read.

        If an ``origin``, ``Float64[dim]``, was subtracted from normalised rows, row plus origin has length
        one.
        """
        if origin is not None:
            return self._best_moved(self._aim(queries), rows, candidates, k, origin)
        return self._best_by_kernels(self._aim(queries), rows, candidates, k)

    def _best_moved(
        self, asked: Doubles, rows: kernels.StoredRows, candidates: Ints, k: int, origin: Doubles
    ) -> tuple[Ints, Doubles]:
        if not rows.distance:
            found, keys = rank(rows, asked, candidates.astype(np.int32), k)
            return found, keys + (asked @ origin)[:, None]
        found, keys = rank(rows, asked - origin, candidates.astype(np.int32), k)
        return found, np.sqrt(-keys) if self.is_distance else 1 + keys / 2

    def _aim(self, queries: NDArray[Any]) -> Doubles:
        asked = np.ascontiguousarray(queries, np.float64)
        return asked * _inverse_lengths(asked)[:, None] if self.is_normalised else asked

    def _best_by_kernels(
        self, asked: Doubles, rows: kernels.StoredRows, candidates: Ints, k: int
    ) -> tuple[Ints, Doubles]:
        kept = candidates.shape[1] if self.is_distance and self.is_normalised else k
        found, keys = rank(rows, asked, candidates.astype(np.int32), kept)
        return self.shown(asked, rows.values, rows.scale, found, keys, k)

    @property
    def _is_direct(self) -> bool:
        """Whether vectors are compared by differences of their entries throughout."""
        return self.is_distance and not self.is_normalised

    def _best_in_place(
        self, asked: Doubles, rows: NDArray[Any], candidates: Ints, k: int
    ) -> tuple[Ints, Doubles]:
        """By compiled kernels, which read the rows in place."""
        scale = None
        if self.is_normalised:
            used = candidates[candidates >= 0]
            squares = kernels.score(kernels.StoredRows(rows, None, True), np.zeros(rows.shape[1]), used)
            scale = np.empty(len(rows), np.float64)  # only the entries of candidates are written
            scale[used] = _inverse(np.sqrt(-squares))
        stored = kernels.StoredRows(rows, scale, self._is_direct)
        return self._best_by_kernels(asked, stored, candidates, k)

    def _best_gathered(self, asked: Doubles, rows: Source, candidates: Ints, k: int) -> tuple[Ints, Doubles]:
        """By compiled kernels if they can read the gathered rows, otherwise by numpy."""
        used = np.unique(candidates)
        used = used[used >= 0]
        values = np.ascontiguousarray(rows[used])  # in rising order, so that a disk is read forwards
        places = np.where(candidates < 0, -1, np.searchsorted(used, candidates))
        if _is_read_in_place(values):
            found, scores = self._best_in_place(asked, values, places, k)
        else:
            scale = _inverse_lengths(values) if self.is_normalised else None
            keys = _plain_keys(asked, values, places, scale, self._is_direct)
            found, keys = _sorted(places, -keys, candidates.shape[1])
            found, scores = self.shown(asked, values, scale, found, -keys, k)
        return np.where(found < 0, -1, used[found]), scores

    def shown(
        self,
        asked: Doubles,
        values: NDArray[Any],
        scale: Doubles | None,
        found: Ints,
        keys: Doubles,
        k: int,
    ) -> tuple[Ints, Doubles]:
        """The ``k`` best scores from keys in falling order: similarities, or negated squared distances."""
        if not self.is_distance:
            return found[:, :k], keys[:, :k]
        if scale is None:
            return found[:, :k], np.sqrt(-keys[:, :k])
        return _sorted(found, _gaps(asked, values, scale, found, keys), k)

    def _best_of_many(
        self, asked: Doubles, rows: Source, candidates: Ints, k: int, rows_at_a_time: int
    ) -> tuple[Ints, Doubles]:
        """The same for so many candidates per query that their vectors are read in several parts."""
        answers = []
        for query, row in zip(asked, candidates, strict=True):
            indices, scores = np.zeros((1, 0), np.int64), np.zeros((1, 0))
            for some in blocks(len(row), rows_at_a_time):
                part = row[None, some]
                more = self._best_gathered(query[None], rows, part, min(k, part.shape[1]))
                indices = np.concatenate([indices, more[0]], axis=1)
                scores = np.concatenate([scores, more[1]], axis=1)
                indices, scores = self._first(indices, scores, k)
            answers.append((indices, scores))
        found, kept = zip(*answers, strict=True)
        return np.concatenate(found), np.concatenate(kept)

    def _first(self, indices: Ints, scores: Doubles, k: int) -> tuple[Ints, Doubles]:
        found, keys = _sorted(indices, scores if self.is_distance else -scores, k)
        return found, keys if self.is_distance else -keys


def _is_read_in_place(rows: NDArray[Any]) -> bool:
    """Whether compiled kernels can read rows in place."""
    fits = rows.dtype in (np.float32, np.float16) and rows.strides[1] == rows.itemsize
    return fits and kernels.level() != "off"


def _inverse(lengths: Doubles) -> Doubles:
    """Factors that scale rows of these lengths to length one; rows of length zero stay zero."""
    return np.asarray(np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0))


def _inverse_lengths(values: NDArray[Any]) -> Doubles:
    wide = values.astype(np.float64, copy=False)
    return _inverse(np.sqrt(np.einsum("ij,ij->i", wide, wide)))


def _sorted(indices: Ints, keys: Doubles, k: int) -> tuple[Ints, Doubles]:
    """The ``k`` smallest keys of each row, of equal ones the lower index; -1 (of key nan) last."""
    order = np.lexsort((indices, np.where(indices < 0, np.inf, keys)), axis=1)[:, slice(k)]
    return np.take_along_axis(indices, order, 1), np.take_along_axis(keys, order, 1)


def _plain_keys(
    asked: Doubles, values: NDArray[Any], places: Ints, scale: Doubles | None, is_direct: bool
) -> Doubles:
    """Similarities, or negated squared distances, in numpy."""
    keys = np.full(places.shape, np.nan)
    step = max(1, _FLOATS_GATHERED_AT_A_TIME // max(1, places.shape[1] * values.shape[1]))
    for some in blocks(len(asked), step):
        chosen = np.maximum(places[some], 0)
        gathered = values[chosen].astype(np.float64)
        if is_direct:
            gathered -= asked[some, None]
            found = -np.einsum("ijk,ijk->ij", gathered, gathered)
        else:
            found = np.einsum("ijk,ik->ij", gathered, asked[some])
            found = found if scale is None else found * scale[chosen]
        keys[some] = np.where(places[some] < 0, np.nan, found)
    return keys


def _gaps(asked: Doubles, values: NDArray[Any], scale: Doubles, places: Ints, cosines: Doubles) -> Doubles:
    """Distances of unit vectors: from cosines, or from differences if the cosine is close to 1."""
    squares = np.maximum(2 - 2 * cosines, 0)
    queries, columns = np.nonzero((squares < CLOSE) & (places >= 0))
    step = max(1, _FLOATS_GATHERED_AT_A_TIME // values.shape[1])
    for some in blocks(len(queries), step):
        at, rows = queries[some], places[queries[some], columns[some]]
        apart = asked[at] - values[rows].astype(np.float64) * scale[rows, None]
        squares[at, columns[some]] = np.einsum("ij,ij->i", apart, apart)
    return np.asarray(np.sqrt(squares))
