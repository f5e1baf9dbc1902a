"""The arrays of nested codes: cells of entries, planes of bits, slices of codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Counts = NDArray[np.int32]
Mask = NDArray[np.bool_]

MOST_BITS = 8
ROUNDING = 2e-6
"""More than what float32 rounds off in a bound, relative to the lengths of what is multiplied."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of 8 bits that entries fall into.

    An entry ``x`` lies at ``place = (x - centre) * inverse + half`` among cells of 4 bits, 1 wide from 1 to
    ``last``; beyond, places are ``shrink`` times as far away. Its code is ``place * parts`` without fraction,
    at least 0 and at most 255.

    Args:
        centre: ``Float32[dim]``.
        inverse: ``Float32[dim]``, one over the width of a cell; 0 for constant entries.
        half: the place of the centre.
        last: start of the last cell of 4 bits.
        shrink: of distances beyond the first and the last cell.
        parts: of a cell.
    """

    centre: Floats
    inverse: Floats
    half: float
    last: float
    shrink: float
    parts: float


def stride_of(dim: int) -> int:
    """Bytes of a row of one plane."""
    return -(-dim // 8)


@dataclass(frozen=True, eq=False)
class CodeSlice:
    """The leading dims and bits of nested codes, and what they are compared by.

    The value of an entry is ``values[code] * spread + centre``. A score with a query is the inner product
    (``dot``), that by the length of the values (``cosine``), or the squared distance with its sign changed
    (``distance``).

    Args:
        planes: the leading ones, ``UInt8[n, at least dim / 8]`` each.
        values: ``Float32[2**bits]``, of cells; evenly spaced up to 4 bits.
        spread: ``Float32[dim]``.
        centre: ``Float32[dim]``.
        kind: of scores.
        factor: ``Float32[n]`` of bounds, for the cosine.
        bias: ``Float32[n]`` of bounds, for distances.
        reach: the largest length of the values of the cells of a row.
        rest: the largest length of what those differ from evenly spaced values (:class:`Steps`).
    """

    planes: tuple[Bytes, ...]
    values: Floats
    spread: Floats
    centre: Floats
    kind: Literal["dot", "cosine", "distance"] = "dot"
    factor: Floats | None = None
    bias: Floats | None = None
    reach: float = float("inf")
    rest: float = float("inf")

    @property
    def dim(self) -> int:
        """Leading entries that are compared."""
        return len(self.centre)

    @property
    def bits(self) -> int:
        """Leading bits of an entry."""
        return len(self.planes)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.planes[0])

    def bounded(self, squares: NDArray[np.floating], reach: float, rest: float) -> Self:
        """This slice with what bounds on its scores need.

        Args:
            squares: ``Float[n]``, squared lengths of the values of rows; see :func:`measure`.
            reach: the largest length of the values of the cells of a row.
            rest: the largest length of what those differ from evenly spaced values.
        """
        factor: Floats | None = None
        bias: Floats | None = None
        if self.kind == "cosine":
            factor = np.divide(1, np.sqrt(squares), out=np.zeros(len(squares), np.float32), where=squares > 0)
        if self.kind == "distance":
            bias = (squares * (-0.5 + ROUNDING)).astype(np.float32)
        return replace(self, factor=factor, bias=bias, reach=reach, rest=rest)


class Steps(NamedTuple):
    """Cell values as ``half * (2 * level - most)``, and what is left.

    Args:
        half: half the distance of two levels.
        most: the highest level.
        shift: added to ``2 * level - most``, since the levels of 3 bits are those of 4 that are even.
        rest: ``Float32[256]`` of 8 bits: the values less those of their levels; None where they are the same.
        levels: ``slope, offset, tail, first, last``. The level of a code of 8 bits is ``(slope * code +
            offset) / 256``, less ``tail`` below ``first`` and more from ``last`` on: once, and twice more for
            each code farther.
    """

    half: float
    most: int
    shift: int = 0
    rest: Floats | None = None
    levels: tuple[int, int, int, int, int] | None = None

    @classmethod
    def of(cls, values: Floats) -> Self:
        """The steps of cell values ``Float32[2**bits]``; at 8 bits the cells at both ends are wider."""
        count = len(values)
        if count < 1 << MOST_BITS:
            half = float(values[1] - values[0]) / 2
            return cls(half / 2, 15, 1) if count == 8 else cls(half, count - 1)
        most, edge, codes = count - 1, count // 16, np.arange(count)
        half = float(np.abs(values).max()) / most
        slope = round(128 * float(values[most - edge] - values[edge]) / (most - 2 * edge) / half)
        offset = round(128 * count - slope * most / 2)
        outer = float(values[most - 1] - values[most - edge + 1]) / (edge - 2)  # the open cells left out
        tail = round(64 * outer / half - slope / 2)
        high, low = np.maximum(codes - (most - edge), 0), np.maximum(edge - codes, 0)
        beyond = np.maximum(2 * high - 1, 0) - np.maximum(2 * low - 1, 0)
        levels = (slope * codes + offset + tail * beyond) >> 8
        rest = (values - half * (2 * levels - most)).astype(np.float32)
        return cls(half, most, 0, rest, (slope, offset, tail, edge, most - edge + 1))
