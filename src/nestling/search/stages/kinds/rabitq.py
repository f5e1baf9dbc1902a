"""``rabitq@128``: one bit per entry, after a random rotation (Gao and Long, 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nestling.search.exact.faiss_arrays import faiss
from nestling.search.exact.space import Floats
from nestling.search.stages.coded_scan import CodedScan

_FACTOR_BYTES = 8


@dataclass(frozen=True)
class RaBitQ(CodedScan):
    """One bit per entry and two factors per row."""

    name = "rabitq"
    moves_mean = False  # it takes off the mean by itself
    is_relative = depends_on_metric = True

    def row_bytes(self, dim: int) -> int:
        """The bits and the factors."""
        return -(-dim // 8) + _FACTOR_BYTES

    def operations(self) -> float:
        """Eight bits at a time."""
        return self.size / 8

    def preparation(self) -> float:
        """The rotation."""
        return self.size**2

    def empty(self, metric: int) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        return faiss.IndexRaBitQ(self.size, metric)

    def inverted(self, quantiser: Any, lists: int, trained: Any, code_bytes: int) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        index = faiss.IndexIVFRaBitQ(quantiser, self.size, lists, trained.metric_type)
        index.rabitq = trained.rabitq
        return index

    def rotation(self, rows: Floats, seed: int, trained: Any) -> Floats:
        """A random one: the error bound rests on it (section 3)."""
        orthogonal, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(self.size, self.size)))
        return np.ascontiguousarray(orthogonal, np.float32)

    def packed(self, index: Any) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        return faiss.IndexRaBitQFastScan(index)

    def packed_lists(self, index: Any) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        return faiss.IndexIVFRaBitQFastScan(index)
