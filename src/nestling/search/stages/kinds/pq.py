"""``pq32x4@128``, ``opq32x8@128``: a product quantiser, and one behind a learned rotation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from nestling.errors import ConfigError
from nestling.search.exact.faiss_arrays import faiss
from nestling.search.exact.space import Floats
from nestling.search.stages.coded_scan import CodedScan
from nestling.search.stages.stage import StageText

_OPQ_ROUNDS, _FIRST_STEPS, _LAST_STEPS = 20, 10, 5


@dataclass(frozen=True)
class PQ(CodedScan):
    """A product quantiser: parts of the prefix, each coded as the nearest of its own centroids.

    Args:
        dim: the prefix; None is the full size.
        subspaces: parts, each with a code of its own.
        bits: of each such code, 4 or 8.

    Raises:
        ConfigError: for other bits, or no parts.
    """

    name = "pq"
    stretches = True

    subspaces: int = field(kw_only=True)
    bits: int = field(kw_only=True)

    def __post_init__(self) -> None:
        if self.bits not in (4, 8) or self.subspaces < 1:
            raise ConfigError(f"the code {self} has {self.bits} bits; choose 4 or 8, of at least one part")

    @classmethod
    def parse(cls, text: StageText) -> Self:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        text.only(needs_count=True, parts=True)
        if text.parts is None:
            raise ConfigError(f"the code {text.text} needs its parts, such as {text.name}32x4@128")
        return cls(text.dim, subspaces=text.count or 0, bits=text.parts)

    def _settings(self) -> str:
        return f"{self.subspaces}x{self.bits}"

    def check_size(self) -> None:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        if self.size % self.subspaces:
            raise ConfigError(
                f"{self} cannot divide {self.size} entries into {self.subspaces} parts of the same size; "
                f"choose a divisor of {self.size}"
            )

    @property
    def centroids(self) -> int:
        """Number of centroids of each part."""
        return 1 << self.bits

    def check_rows(self, rows: int) -> None:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        if rows < self.centroids:
            raise ConfigError(
                f"{self} learns {self.centroids} centroids per part, and there are {rows} vectors; "
                "give it more vectors or another code, such as int8"
            )

    def row_bytes(self, dim: int) -> int:
        """Whole bytes of the codes of all parts."""
        return -(-self.subspaces * self.bits // 8)

    def operations(self) -> float:
        """One sum of a table for each part."""
        return self.subspaces

    def preparation(self) -> float:
        """The tables of distances."""
        return self.size * self.centroids

    def empty(self, metric: int) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        index = faiss.IndexPQ(self.size, self.subspaces, self.bits, metric)
        index.pq.cp.min_points_per_centroid = 1  # or faiss prints a warning; too few are refused before
        return index

    def inverted(self, quantiser: Any, lists: int, trained: Any, code_bytes: int) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        shape = (self.size, lists, self.subspaces, self.bits)
        index = faiss.IndexIVFPQ(quantiser, *shape, trained.metric_type)
        index.pq, index.by_residual, index.use_precomputed_table = trained.pq, False, -1
        return index

    def packed(self, index: Any) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        return faiss.IndexPQFastScan(index) if self.bits == 4 else index

    def packed_lists(self, index: Any) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        return faiss.IndexIVFPQFastScan(index) if self.bits == 4 else index


@dataclass(frozen=True)
class OPQ(PQ):
    """A product quantiser behind a rotation that is learned with it."""

    name = "opq"

    def preparation(self) -> float:
        """The rotation as well."""
        return super().preparation() + self.size**2

    def rotation(self, rows: Floats, seed: int, trained: Any) -> Floats:
        """Rotation and centroids, learned in turn (Ge et al. 2013, algorithm 1).

        One step of k-means follows each rotation: the four of faiss give no smaller errors. ``trained``
        continues from the centroids learned so.
        """
        matrix, parts = faiss.OPQMatrix(self.size, self.subspaces), trained.pq
        matrix.pq, matrix.niter, matrix.niter_pq, matrix.niter_pq_0 = parts, _OPQ_ROUNDS, 1, _FIRST_STEPS
        matrix.train(rows)
        parts.train_type, parts.cp.niter = faiss.ProductQuantizer.Train_hot_start, _LAST_STEPS
        return np.asarray(faiss.vector_to_array(matrix.A).reshape(self.size, self.size))
