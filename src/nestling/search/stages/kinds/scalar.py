"""``int8@128``, ``int4@128``, ``fp16@128``: scalar quantisation, each entry of a prefix in fewer bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nestling.cut import RAW, cut
from nestling.errors import ConfigError
from nestling.search.exact.faiss_arrays import faiss
from nestling.search.stages.coded_scan import CodedScan


@dataclass(frozen=True)
class ScalarScan(CodedScan):
    """Base class of these codes: the scalar quantiser of faiss."""

    is_sliceable = is_scalar = True
    bits: ClassVar[int]
    quantiser: ClassVar[str]
    """Its name in faiss."""

    def row_bytes(self, dim: int) -> int:
        """Whole bytes of all bits."""
        return -(-dim * self.bits // 8)

    def empty(self, metric: int) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        return faiss.IndexScalarQuantizer(self.size, self._kind, metric)

    def inverted(self, quantiser: Any, lists: int, trained: Any, code_bytes: int) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        metric = trained.metric_type
        index = faiss.IndexIVFScalarQuantizer(quantiser, self.size, lists, self._kind, metric, False)
        reading = self.reading(trained, code_bytes)  # named, so that it outlives the copy
        index.sq = reading.sq
        return index

    def reading(self, trained: Any, code_bytes: int) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        if trained.sa_code_size() == code_bytes:
            return trained
        index = faiss.clone_index(trained)
        index.code_size = index.sq.code_size = code_bytes
        return index

    @property
    def _kind(self) -> int:
        return int(getattr(faiss.ScalarQuantizer, self.quantiser))


class _Ranged(ScalarScan):
    """Codes that are steps between the least and the greatest value of an entry."""

    def copy_trained(self, trained: Any, small: Any) -> None:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        values = faiss.vector_to_array(trained.sq.trained).reshape(2, -1)  # least value, range
        faiss.copy_array_to_vector(cut(values, self.size, RAW).ravel(), small.sq.trained)


@dataclass(frozen=True)
class Fp16(ScalarScan):
    """Two bytes an entry: half precision."""

    name = "fp16"
    bits, quantiser = 16, "QT_fp16"


@dataclass(frozen=True)
class Int8(_Ranged):
    """One byte an entry: 256 steps from the least to the greatest value."""

    name = "int8"
    bits, quantiser = 8, "QT_8bit"


@dataclass(frozen=True)
class Int4(_Ranged):
    """Half a byte an entry: 16 steps over most of the values."""

    name = "int4"
    bits, quantiser = 4, "QT_4bit"

    def check_size(self) -> None:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        if self.size % 2:
            raise ConfigError(f"{self} packs two entries into a byte; choose an even prefix")

    def empty(self, metric: int) -> Any:
        """See :class:`~nestling.search.stages.coded_scan.CodedScan`."""
        index = super().empty(metric)
        index.sq.rangestat = faiss.ScalarQuantizer.RS_optim  # 16 steps are too few to reach to the outliers
        return index
