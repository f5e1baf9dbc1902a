"""Centres and scales vectors, so that cosine, dot and Euclidean search all become inner product search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.cut import SMALLEST_NORM, name_rows
from nestling.errors import DataError
from nestling.process.blocks import blocks
from nestling.vectors.prefix import refuse_beyond_single

Doubles = NDArray[np.float64]

_ROWS_AT_A_TIME = 8192

# Rows are centred if the norm of their mean exceeds so many times their typical distance to it: queries of a
# graph, rows before they are coded, rows before they are copied for re-ranking.
FAR_FOR_GRAPH, FAR_FOR_CODES, FAR_FOR_COPIES = 1 / 4, 1.0, 8.0


@dataclass(frozen=True, eq=False)
class PreparedQueries:
    """Queries, centred and scaled as the rows are.

    Args:
        units: ``Float64[queries, dim]`` of length one, or zero.
        lengths: ``Float64[queries]`` that inner products of the units with coded rows are multiplied by.
        bounds: ``Float64[queries, 3]``: a score ``s`` compares with such products, less half the squared
            length of the row for distances, as ``s * a + b``, where ``b`` is known to within the third.
    """

    units: Doubles
    lengths: Doubles
    bounds: Doubles


@dataclass(frozen=True, eq=False)
class Centring:
    """Turns scores into inner products of codes: ``y = scale * x - mean``, with x normalised for the cosine.

    Args:
        metric: ``"cosine"``, ``"dot"`` or ``"euclidean"``.
        scale: a power of two that brings the longest row to a length of about one.
        mean: ``Float64[dim]``, of the scaled rows.
        inverse_norms: ``Float64[rows]`` for the cosine.
    """

    metric: str
    scale: float
    mean: Doubles
    inverse_norms: Doubles | None

    @classmethod
    def fit(cls, vectors: NDArray[Any], metric: str) -> Self:
        """The centring of vectors ``Float[rows, dim]``, which are read twice.

        Raises:
            DataError: for rows with NaN or infinity, or of length zero under the cosine (named).
        """
        with np.errstate(over="ignore"):
            norms = np.concatenate(
                [np.linalg.norm(vectors[rows].astype(np.float64), axis=1) for rows in spans(vectors)]
            )
        if len(wrong := np.flatnonzero(~(norms <= np.finfo(np.float32).max))):
            raise DataError(
                f"vectors hold NaN or infinity in float32 in {name_rows(wrong)}; remove or repair those rows"
            )
        inverse = None
        if metric == "cosine":
            refuse_zero(norms, "vectors")
            inverse = 1 / norms
        longest = float(norms.max())
        scale = 1.0 if metric == "cosine" or longest == 0 else float(2.0 ** -np.frexp(longest)[1])
        raw = cls(metric, scale, np.zeros(vectors.shape[1]), inverse)
        every = np.arange(len(vectors))
        total = sum(raw.centre(vectors, every[rows]).sum(axis=0) for rows in spans(vectors))
        return replace(raw, mean=np.asarray(total) / len(vectors))

    def centre(self, vectors: NDArray[Any], rows: NDArray[np.int64]) -> Doubles:
        """Some rows, as they are coded: ``Float64[rows, dim]``."""
        factor = self.scale if self.inverse_norms is None else self.inverse_norms[rows][:, None]
        return np.asarray(vectors[rows].astype(np.float64) * factor - self.mean)

    def direct(self, queries: NDArray[Any]) -> Doubles:
        """Queries as exact scores take them: in double precision, of length one for the cosine.

        Raises:
            DataError: for queries of length zero under the cosine (named).
        """
        exact = queries.astype(np.float64)
        if self.metric == "cosine":
            norms = np.linalg.norm(exact, axis=1)
            refuse_zero(norms, "queries")
            exact /= norms[:, None]
        return exact

    def shown(self, scores: Doubles, metric: str) -> NDArray[np.float32]:
        """Exact scores as results show them: similarities, or distances if ``metric`` is ``"euclidean"``."""
        if metric == "euclidean":
            squares = -scores if self.metric == "euclidean" else 2 - 2 * scores
            scores = np.sqrt(np.maximum(squares, 0))
        if self.metric == "cosine":  # of which nothing overflows
            return scores.astype(np.float32)
        with np.errstate(over="ignore"):  # overflow gives infinity in float32; the order is not touched
            return scores.astype(np.float32)

    def prepare(self, queries: Doubles) -> PreparedQueries:
        """Queries ``Float64[queries, dim]``, of length one for the cosine, in terms of the coded rows."""
        moved = queries * self.scale - self.mean if self.metric == "euclidean" else queries
        lengths = np.linalg.norm(moved, axis=1)
        divisors = np.where(lengths > 0, lengths, 1)
        units = moved / divisors[:, None]
        if self.metric == "euclidean":
            offset = np.square(lengths) / 2
            slope = np.full(len(queries), self.scale**2 / 2)
            return PreparedQueries(units, lengths, np.stack([slope, offset, 1e-12 * (1 + offset)], axis=1))
        with np.errstate(over="ignore"):
            slope = self.scale / divisors if self.metric == "dot" else np.ones(len(queries))
        slack = np.full(len(queries), 1e-12 * (1 + np.linalg.norm(self.mean)))
        return PreparedQueries(
            units, np.ones(len(queries)), np.stack([slope, -(units @ self.mean), slack], axis=1)
        )


def is_far(mean: Doubles, spread: float, times: float) -> bool:
    """Whether a mean is longer than ``times`` the root of ``spread``, the mean square distance from it."""
    return float(mean @ mean) > times**2 * spread


def refuse_zero(norms: Doubles, what: str) -> None:
    """Refuse rows that have no direction.

    Raises:
        DataError: for norms that are (almost) zero; the rows are named.
    """
    short = np.flatnonzero(norms <= SMALLEST_NORM)
    if len(short):
        is_zero = not norms[short].any()
        wrong = "all zero" if is_zero else f"shorter than {SMALLEST_NORM:g}, as good as zero,"
        raise DataError(
            f"{name_rows(short, f'of {what} are')} {wrong} and have no cosine; remove those rows, or compare "
            'with rule=RAW and metric="dot" or "euclidean"'
        )


def spans(vectors: NDArray[Any]) -> list[slice]:
    """The rows in blocks of some thousands."""
    return blocks(len(vectors), _ROWS_AT_A_TIME)


def readable(vectors: NDArray[Any]) -> NDArray[Any]:
    """Vectors as the kernels read them; a memory map of float32 or float16 stays one.

    Raises:
        DataError: for numbers that float32 does not hold; rows are named.
    """
    refuse_beyond_single(vectors, "vectors")
    if vectors.dtype not in (np.float32, np.float16):
        vectors = vectors.astype(np.float32)
    return vectors if vectors.strides[1] == vectors.itemsize else np.ascontiguousarray(vectors)
