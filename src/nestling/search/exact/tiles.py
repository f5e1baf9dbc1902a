"""Blocks of documents in an exact scan, with bounds on the rounding error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import OneOf
from nestling.cut import CutRule
from nestling.search.exact.scores import Comparison
from nestling.search.exact.top_k import SLACK
from nestling.vectors.prefix import (
    beyond_single,
    finite_squares,
    prefix_norms,
    refuse_beyond_single,
    unrounded,
)

Metric = Literal["dot", "euclidean"]
METRIC = OneOf(get_args(Metric))
Floats = NDArray[np.float32]

_ROWS_TO_FIND_THE_CENTRE = 64
# Rows are centred if their mean is longer than this many times the largest distance from it.
_FARTHEST_CENTRE = 2.0
# Rows longer than this many times the median length are outliers, and left out of the mean.
_OUTLYING = 1e3
# Vectors with lengths outside are scaled by a power of two, so that no square overflows or underflows.
_SHORTEST, _LONGEST = 1e-6, 1e6
_UNIT = 2.0**-24
_ROUNDINGS_MORE = 16  # of norms, scores and comparisons, in addition to those of a sum of products
_VANISHING = 1e-36


@dataclass(frozen=True)
class Terms:
    """Settings of a scan, and the shift and scale that limit rounding error.

    A large common offset cancels significant digits, so it is subtracted first. That changes neither
    distances nor the order of inner products.

    Args:
        sizes: increasing.
        rule: steps around a cut.
        metric: of comparisons.
        centre: ``Float[dim]`` that is subtracted, if any.
        factor: a power of two by which the difference is multiplied.
    """

    sizes: tuple[int, ...]
    rule: CutRule
    metric: Metric
    centre: NDArray[np.floating[Any]] | None = None
    factor: float = 1.0

    @classmethod
    def of(cls, documents: NDArray[Any], sizes: tuple[int, ...], rule: CutRule, metric: Metric) -> Self:
        """The settings for these documents, from a sample of them."""
        if rule.after == "l2":
            return cls(sizes, rule, metric)
        rows = np.linspace(0, len(documents) - 1, min(len(documents), _ROWS_TO_FIND_THE_CENTRE))
        some = unrounded(np.asarray(documents[np.unique(rows.astype(np.int64))]), sizes[-1], rule)
        some = some[~beyond_single(some)]  # those are named when they are read
        if not len(some):
            return cls(sizes, rule, metric)
        lengths = np.linalg.norm(some.astype(np.float64), axis=1)
        usual = some[lengths <= _OUTLYING * np.median(lengths)].astype(np.float64)
        centre, factor = usual.mean(axis=0), 1.0
        is_far = float(np.linalg.norm(centre)) > _FARTHEST_CENTRE * _longest(usual - centre)
        longest = _longest(usual - centre * is_far)
        if longest and not _SHORTEST < longest < _LONGEST:
            factor = float(2.0 ** -np.frexp(longest)[1])
        kind = np.float64 if some.dtype == np.float64 else np.float32
        return cls(sizes, rule, metric, centre.astype(kind) if is_far else None, factor)

    @property
    def is_cosine(self) -> bool:
        """Whether documents are compared by their direction."""
        return self.rule.after == "l2"

    @property
    def comparison(self) -> Comparison:
        """The comparison of pairs in double precision."""
        return Comparison(self.is_cosine, self.metric == "euclidean")

    def read(self, x: NDArray[Any], first_row: int) -> Floats:
        """Documents in float32, moved and scaled.

        Raises:
            DataError: for numbers that float32 does not hold; rows are named.
        """
        values = unrounded(x, self.sizes[-1], self.rule)
        refuse_beyond_single(values, "documents", first_row)
        return self._moved(values, self.factor)

    def aim(self, queries: NDArray[Any], first_row: int) -> tuple[Floats, float]:
        """Queries as they are multiplied with documents, and the factor that they were scaled by.

        Raises:
            DataError: for numbers that float32 does not hold; rows are named.
        """
        refuse_beyond_single(queries, "queries", first_row)
        if self.metric == "euclidean" or self.is_cosine:
            return self._moved(queries, self.factor), self.factor
        longest = float(np.linalg.norm(queries.astype(np.float64), axis=1).max())
        factor = float(2.0 ** -np.frexp(longest)[1]) if longest else 1.0
        return (queries * queries.dtype.type(factor)).astype(np.float32, copy=False), factor

    def _moved(self, values: NDArray[Any], factor: float) -> Floats:
        if self.centre is not None or factor != 1:
            values = values.astype(np.result_type(values, np.float32), copy=False)
        if self.centre is not None:
            values = values - self.centre
        if factor != 1:
            with np.errstate(over="ignore"):  # overflow is reported with the square
                values = values * values.dtype.type(factor)
        with np.errstate(over="ignore"):
            return values.astype(np.float32, copy=False)

    def uncertainty(self, size: int, asked: Any, lengths: Any) -> Any:
        """Bound on the error of the scores of a tile, for queries and documents of some lengths."""
        share = (self.sizes[size] + _ROUNDINGS_MORE) * _UNIT
        if self.is_cosine:
            return share * 2 * asked
        squares = lengths * lengths / 2 if self.metric == "euclidean" else 0
        return share * (asked * lengths + squares) + _VANISHING


@dataclass(frozen=True)
class Tile:
    """Some documents, and for each size the scales and shifts that turn inner products into scores.

    The score is ``product * scale - shift``, higher for better documents, and exact up to a factor or term
    that depends on the query alone. It reaches ``bound`` if the product reaches
    ``bound / scale + shift / scale``, the product of ``[bound, 1]`` with ``limits``.

    Args:
        start: row number of the first document.
        values: ``Float[documents, dim]``.
        scale: ``Float[sizes, documents]``.
        shift: ``Float[sizes, documents]``.
        limits: ``Float[sizes, 2, documents]``.
        lengths: ``Float[sizes, documents]``, of the values; 1 where only directions are compared.
    """

    start: int
    values: Floats
    scale: Floats
    shift: Floats
    limits: Floats
    lengths: Floats

    @classmethod
    def read(cls, documents: NDArray[Any], rows: slice, terms: Terms) -> Tile:
        """The tile of those rows.

        Raises:
            DataError: for rows that overflow, or of length zero under the cosine; they are named.
        """
        values = terms.read(np.asarray(documents[rows]), rows.start)
        scale: Floats = np.ones((len(terms.sizes), len(values)), np.float32)
        shift, lengths = np.zeros_like(scale), np.ones_like(scale)
        if terms.is_cosine:
            scale /= prefix_norms(values, terms.sizes, "documents", rows.start)
        else:
            squares = finite_squares(values, terms.sizes, "documents", rows.start)
            lengths = np.sqrt(squares)
            if terms.metric == "euclidean":
                shift = squares * np.float32(0.5)
        limits = np.stack([1 / scale, shift / scale * (1 - SLACK)], axis=1)
        return cls(rows.start, values, scale, shift, limits, lengths)

    def part(self, rows: slice) -> Tile:
        """The tile of some of its documents."""
        columns = (self.scale[:, rows], self.shift[:, rows], self.limits[:, :, rows].copy())
        return Tile(self.start + rows.start, self.values[rows], *columns, self.lengths[:, rows])


def _longest(rows: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(rows, axis=1).max(initial=0))
