"""``bits2@256``: the leading bits of a nested code, each entry in 1, 2, 3, 4 or 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from nestling.axes import CODE_BITS
from nestling.cut import RAW, cut
from nestling.errors import ArtifactError, ConfigError
from nestling.kernels import planes
from nestling.kernels.planes.layout import stride_of
from nestling.search.exact.filters import Allowed
from nestling.search.exact.space import Floats, Ints
from nestling.search.stages import nested_code
from nestling.search.stages.building import Builder, Built, CoarseBuilder, Scanner, Task
from nestling.search.stages.kinds.rerank import Rerank
from nestling.search.stages.stage import Coarse, Scan, StageCost, StageText
from nestling.storage.resumable import Arrays, ResumableArrays

if TYPE_CHECKING:
    from nestling.search.plan.point import Point

_BINARY = "binary"
_NUMBER_BYTES = 4


@dataclass(frozen=True)
class Bits(Scan):
    """Compares queries with the leading bits of codes of all rows, by the values that they stand for.

    Queries stay floats, and scores are exact: those of the decoded prefixes. ``bits1:binary@256`` codes
    queries too, and counts the bits that differ.

    Args:
        dim: the prefix that is compared; None is the full size.
        bits: of an entry: 1, 2, 3, 4 or 8.
        is_binary: whether queries are coded as well; for 1 bit.

    Raises:
        ConfigError: for other bits.
    """

    name = "bits"
    is_sliceable = True

    bits: int = field(kw_only=True)
    is_binary: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.bits not in CODE_BITS:
            raise ConfigError(f"{self} has {self.bits} bits; choose one of {', '.join(map(str, CODE_BITS))}")
        if self.is_binary and self.bits != 1:
            raise ConfigError(
                f"{self} codes queries in {self.bits} bits; bits that differ are counted of bits1"
            )

    @classmethod
    def parse(cls, text: StageText) -> Self:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        taken = text.only(needs_count=True, option=True)
        if taken.option not in (None, _BINARY):
            raise ConfigError(f"the stage {text.text!r} cannot be read; the only option of bits is {_BINARY}")
        return cls(text.dim, bits=taken.count or 0, is_binary=taken.option == _BINARY)

    def _settings(self) -> str:
        return f"{self.bits}:{_BINARY}" if self.is_binary else str(self.bits)

    @property
    def code_bits(self) -> int:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        return self.bits

    def cut(self, dim: int, bits: int | None = None) -> Self:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        return replace(super().cut(dim), bits=min(self.bits, bits or self.bits))

    def check_neighbours(self, coarse: Coarse | None, reranks: Sequence[Rerank]) -> None:
        """See :class:`~nestling.search.stages.stage.Scan`."""
        if coarse is not None:
            raise ConfigError(f"{self} compares all rows; leave out {coarse} before it")
        if self.is_binary and not reranks:
            raise ConfigError(f"counts of bits tell rows apart too little; add {self} > rerank:bits8@full")
        for stage in reranks:
            if stage.code_bits is not None and stage.code_bits < self.bits:
                raise ConfigError(f"{stage} re-ranks by fewer bits than {self} before it; use more")

    def row_bytes(self, dim: int) -> int:
        """Whole bytes of each bit."""
        return stride_of(dim) * self.bits

    def operations(self) -> float:
        """Eight bits at a time."""
        return self.size * self.bits / 8

    def cost(self, rows: int, picked: float, point: Point, code_bytes: int | None = None) -> StageCost:
        """See :class:`~nestling.search.stages.stage.Scan`; the code is counted once, by the plan."""
        found = super().cost(rows, picked, point, code_bytes)
        own = 0 if self.is_binary else _NUMBER_BYTES
        return replace(found, bytes_read=found.bytes_read + picked * own, bytes_stored=rows * own)

    def begin(self, task: Task, journal: ResumableArrays, coarse: CoarseBuilder) -> Builder:
        """See :class:`~nestling.search.stages.stage.Scan`."""
        return nested_code.begin(task, journal, self, measured=not self.is_binary)

    def lengths(self, built: Built, number: int) -> Mapping[str, int | None]:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        own = {} if self.is_binary else {"bits.squares": built.rows, "bits.bounds": 2}
        return {**nested_code.lengths(built), **own}

    def check_arrays(self, built: Built, where: str) -> None:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        nested_code.check_arrays(built, where)
        if not self.is_binary and built.arrays["bits.squares"].dtype != np.float32:
            raise ArtifactError(f"{where} does not hold the lengths of the rows of {self}; build it again")

    def open(self, built: Built) -> Scanner:
        """See :class:`~nestling.search.stages.stage.Scan`."""
        return _BinaryScanner(built, self.size) if self.is_binary else _BitsScanner(built, self)

    def extract(self, built: Built, number: int) -> Arrays:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        found = nested_code.extract(built, self)
        if self.is_binary:
            return found
        return found | {f"bits.{name}": np.array(part) for name, part in _measured(built, self).items()}


def _measured(built: Built, stage: Bits) -> Arrays:
    """Lengths that bounds need, stored if the slice is the one that was built."""
    known = built.group("bits") if stage == built.whole.scan else {}
    return known or nested_code.measure(nested_code.slice_of(built, stage.size, stage.bits))


class _BitsScanner(Scanner):
    """Finds the best rows by the values that a slice of the codes holds."""

    def __init__(self, built: Built, stage: Bits) -> None:
        self._space = built.space
        self._codes = nested_code.bounded(
            nested_code.slice_of(built, stage.size, stage.bits), _measured(built, stage)
        )

    def search(
        self, queries: Floats, k: int, least: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """See :class:`~nestling.search.stages.building.Scanner`."""
        asked = self._space.prefix(queries, self._codes.dim, "queries").astype(np.float64)
        mask = None if allowed is None else np.ascontiguousarray(allowed.mask)

        def search(some: slice, rows: slice) -> nested_code.Found:
            return planes.search(self._codes, asked[some], k, allowed=mask, rows=rows)

        found, scores = nested_code.in_threads(search, len(asked), self._codes.rows, k)
        return found, nested_code.shown(self._space, scores)


class _BinaryScanner(Scanner):
    """Finds the rows whose first bits differ least from those of the query."""

    def __init__(self, built: Built, dim: int) -> None:
        self._space, self._codes = built.space, nested_code.slice_of(built, dim, 1)
        # A prefix of a unit vector is as long as its share, and so is the query when it is coded.
        share = np.square(self._codes.centre).sum() + np.square(self._codes.spread).sum()
        self._length = float(np.sqrt(share)) if built.space.is_normalised else 1.0

    def search(
        self, queries: Floats, k: int, least: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """See :class:`~nestling.search.stages.building.Scanner`."""
        codes, dim = self._codes, self._codes.dim
        asked = self._space.prefix(cut(queries, dim, RAW), dim, "queries") * np.float32(self._length)
        bits = np.packbits(asked >= codes.centre, axis=1)
        mask = None if allowed is None else np.ascontiguousarray(allowed.mask)

        def search(some: slice, rows: slice) -> nested_code.Found:
            found, counts = planes.hamming(codes.planes[0], dim, bits[some], k, allowed=mask, rows=rows)
            return found, -counts.astype(np.float32)

        found, nearness = nested_code.in_threads(search, len(asked), codes.rows, k)
        return found, -nearness
