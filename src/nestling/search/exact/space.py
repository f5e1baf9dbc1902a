"""The geometry of a search: preparation of prefixes, and scores from distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import check
from nestling.cut import RAW, CutRule, cut, name_rows
from nestling.errors import ConfigError, DataError
from nestling.search.exact.faiss_arrays import faiss
from nestling.search.exact.neighbours import Metric
from nestling.search.exact.tiles import METRIC
from nestling.vectors.prefix import prefix_norms

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_SMALLEST_NORM = np.float32(1e-12)


@dataclass(frozen=True)
class Space:
    """The metric of a search: cosine, inner product or distance, at any prefix.

    Args:
        is_normalised: whether prefixes are scaled to length one.
        metric: ``"dot"`` or ``"euclidean"``.
    """

    is_normalised: bool
    metric: Metric

    @classmethod
    def of(cls, rule: CutRule, metric: Metric) -> Self:
        """The space of vectors cut by ``rule`` and compared by ``metric``.

        Raises:
            ConfigError: for an unknown metric.
        """
        check("metric", metric, METRIC)
        return cls(rule.after == "l2", metric)

    @property
    def similarity(self) -> str:
        """``"cosine"``, ``"dot"`` or ``"euclidean"``, which orders rows."""
        return "cosine" if self.is_normalised else self.metric

    @property
    def is_rising(self) -> bool:
        """Whether lower scores are better."""
        return self.metric == "euclidean"

    def faiss_metric(self, *, is_slice_or_moved: bool = False) -> int:
        """The metric of faiss for codes.

        The slices of unit vectors differ in length, and the inner product prefers long ones, so slices
        are compared by distance (AdANNS-IVF-D). So are unit vectors of which a mean was taken off: what
        codes lose along it hides the angles between rows, and costs distances little. Distances that are
        asked for are not taken from cosines, whose last digits are all that tells near duplicates apart.
        """
        uses_distance = self.is_rising or (self.is_normalised and is_slice_or_moved)
        return int(faiss.METRIC_L2 if uses_distance else faiss.METRIC_INNER_PRODUCT)

    def prefix(self, values: Floats, dim: int, what: str = "vectors", first_row: int = 0) -> Floats:
        """The leading ``dim`` entries, contiguous, scaled to length one where this space scales.

        Args:
            values: ``Float[rows, at least dim]``, finite.
            dim: entries to keep.
            what: the name of the rows in errors.
            first_row: the number of the first of them.

        Raises:
            DataError: for a prefix of zeros that would have to be scaled; rows are named.
        """
        prefixes = cut(values, dim, RAW)
        if not self.is_normalised:
            return np.ascontiguousarray(prefixes)
        norms = np.sqrt(np.einsum("ij,ij->i", prefixes, prefixes))
        if not norms.min() > _SMALLEST_NORM or norms.max() == np.inf:
            prefix_norms(prefixes, [dim], what, first_row)  # its error names the rows
        return np.asarray(prefixes / norms[:, None])

    def scaled(self, values: Floats) -> Floats:
        """Rows known to be finite, scaled where this space scales; those without length stay zero."""
        if not self.is_normalised:
            return np.ascontiguousarray(values)
        norms = np.sqrt(np.einsum("ij,ij->i", values, values))
        return np.asarray(values / np.maximum(norms, _SMALLEST_NORM)[:, None])

    def scores(self, distances: Floats) -> Floats:
        """Scores of what faiss returned for whole codes: similarities, or distances."""
        if not self.is_rising:
            return distances
        return np.sqrt(np.maximum(distances, 0))

    def compare(self, queries: Floats, rows: NDArray[Any]) -> NDArray[Any]:
        """Scores ``Float[queries, rows]`` of ``Float[queries, rows, dim]``; a row without length stays so."""
        if self.is_rising:
            if self.is_normalised:
                queries, rows = (_unit(x.astype(np.float64)) for x in (queries, rows))
            return np.asarray(np.linalg.norm(rows - queries[:, None], axis=2))
        products: NDArray[Any] = np.matmul(rows, queries[:, :, None])[:, :, 0]
        if self.is_normalised:
            products /= np.maximum(np.sqrt(np.einsum("ijk,ijk->ij", rows, rows)), _SMALLEST_NORM)
        return products

    def best_first(self, rows: Ints, scores: NDArray[Any], k: int) -> tuple[Ints, NDArray[Any]]:
        """The ``k`` best of every query; of equal scores the first candidate. Row -1 comes last."""
        keys = np.where(rows < 0, np.inf, scores if self.is_rising else -scores)
        order = np.argsort(keys, axis=1, kind="stable")[:, :k]
        each = np.arange(len(rows))[:, None]
        return rows[each, order], scores[each, order]


def check_space(what: str, rule: CutRule, metric: str) -> None:
    """Refuse an unknown metric, and a rule with a step before the cut, which the caller has to do.

    Args:
        what: searches the vectors, as an error begins.
        rule: around the cut.
        metric: ``"dot"`` or ``"euclidean"``.

    Raises:
        ConfigError: for such a rule or metric.
    """
    if rule.before != "none":
        raise ConfigError(
            f"{what} takes vectors after the {rule.before} that comes before a cut; do that first and give "
            "rule.again"
        )
    check("metric", metric, METRIC)


def _unit(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), _SMALLEST_NORM))


def read_rows(x: NDArray[Any], what: str = "vectors", first_row: int = 0) -> Floats:
    """``x`` as contiguous float32, read from disk if it is a memory map.

    Raises:
        DataError: for NaN, or numbers that float32 does not hold; rows are named.
    """
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(x, np.float32)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise DataError(
            f"{what} hold NaN or infinity in float32 in {name_rows(np.flatnonzero(~finite) + first_row)}; "
            "remove or repair those rows"
        )
    return values
