"""``flat@128``: the entries of a prefix as they are, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, cut
from nestling.search.exact.faiss_arrays import Codes, faiss
from nestling.search.exact.space import Floats, Ints
from nestling.search.stages.coded_scan import CodedScan
from nestling.search.stages.faiss_codes import Code


class FlatCode(Code):
    """Codes that are the entries."""

    def encode(self, x: Floats, lists: Ints | None = None) -> Codes:
        """The bytes of prefixes."""
        return np.ascontiguousarray(x).view(np.uint8)

    def decode(self, codes: Codes) -> NDArray[Any]:
        """The entries of which these are the bytes."""
        return cut(codes.view(np.float32), self.dim, RAW)

    def slices(self, codes: Codes) -> Codes:
        """Shorter prefixes, scaled where vectors are."""
        return self.encode(self.space.scaled(self.decode(codes)))

    def readable(self, codes: Codes) -> Codes:
        """Rows of just the length of the prefix, as faiss reads floats only so."""
        return codes if codes.shape[1] == 4 * self.dim else self.slices(codes)


@dataclass(frozen=True)
class Flat(CodedScan):
    """Compares prefixes as they are."""

    name = "flat"
    code_type = FlatCode
    is_sliceable = is_exact = True
    moves_mean = False

    def row_bytes(self, dim: int) -> int:
        """Four bytes an entry."""
        return 4 * dim

    def empty(self, metric: int) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        return faiss.IndexFlat(self.size, metric)

    def inverted(self, quantiser: Any, lists: int, trained: Any, code_bytes: int) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        return faiss.IndexIVFFlat(quantiser, self.size, lists, trained.metric_type)
