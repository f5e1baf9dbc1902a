"""4-bit codes of vectors in two halves, with bounds on inner products that hold for every query.

A vector ``y`` (centred, then multiplied by a random rotation) is written as ``a c + r``: odd whole numbers
``c`` from -15 to 15, a factor ``a``, a remainder of known length. So ``<u, y> <= a <u, c> + |u| |r|`` for
every ``u`` (Cauchy and Schwarz). The high two bits of each entry of ``c`` are such a code of their own, with
their own factor and remainder; they are all that has to be read of most vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nestling import kernels

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

# Widths of a code's step, in shares of the root mean square of a row, that a sample chooses among.
_STEPS = (0.24, 0.27, 0.30, 0.33, 0.36)
# Share of a row's length by which its radius grows, so that float32 cannot make a bound too small: a bound
# has fewer than 16 operations, of 2^-24 each, on numbers of at most twice that length.
_ROUNDING = 4e-6


@dataclass(frozen=True, eq=False)
class Coded:
    """Codes of some vectors.

    Args:
        codes: ``UInt8[rows, dim]`` of four bits each.
        scales: ``Float64[2, rows]``: the factor of the high two bits, and of all four.
        radii: ``Float64[2, rows]``: at least the length of what either leaves out.
        lengths: ``Float64[rows]``.
    """

    codes: NDArray[np.uint8]
    scales: Doubles
    radii: Doubles
    lengths: Doubles


@dataclass(frozen=True, eq=False)
class Quantiser:
    """The rotation and the width of a step that codes are made with.

    Args:
        rotation: ``Float64[dim, dim]``, orthogonal.
        step: width of a step in root mean squares of a row.
    """

    rotation: Doubles
    step: float

    @classmethod
    def fit(cls, sample: Doubles, seed: int) -> Self:
        """A random rotation, and the step that leaves least out of a sample ``Float64[rows, dim]``."""
        normal = np.random.default_rng(seed).standard_normal((sample.shape[1],) * 2)
        rotation = np.linalg.qr(normal)[0]
        candidates = [cls(rotation, step) for step in _STEPS]
        # The high bits decide how many low bits are read, and so weigh as much as all four.
        left_out = [np.square(each.code(sample).radii).sum() for each in candidates]
        return candidates[int(np.argmin(left_out))]

    def code(self, centred: Doubles) -> Coded:
        """The codes of centred vectors ``Float64[rows, dim]``."""
        rotated = centred @ self.rotation
        lengths = np.linalg.norm(centred, axis=1)
        dim = rotated.shape[1]
        width = np.maximum(lengths, np.finfo(np.float64).tiny) / np.sqrt(dim) * self.step
        narrow = (rotated / width[:, None]).astype(np.float32)
        codes = np.clip(np.floor(narrow) + np.float32(8), 0, 15).astype(np.uint8)
        parts = [self._measure(rotated, steps, lengths) for steps in steps_of(codes)]
        scales, radii = (np.stack(each) for each in zip(*parts, strict=True))
        return Coded(codes, scales, radii, lengths)

    @staticmethod
    def _measure(rotated: Doubles, steps: Doubles, lengths: Doubles) -> tuple[Doubles, Doubles]:
        """The factor of each row's steps that leaves least out, as float32 holds it, and what is left out."""
        best = np.einsum("ij,ij->i", rotated, steps) / np.einsum("ij,ij->i", steps, steps)
        scales = np.maximum(best, 0).astype(np.float32).astype(np.float64)
        remainder = rotated - scales[:, None] * steps
        radii = np.sqrt(np.einsum("ij,ij->i", remainder, remainder))
        return scales, radii * (1 + _ROUNDING) + lengths * _ROUNDING


def steps_of(codes: NDArray[np.uint8]) -> tuple[Doubles, Doubles]:
    """The odd whole numbers that the high two bits encode, and all four."""
    return 2 * (codes >> 2).astype(np.float64) - 3, 2 * codes.astype(np.float64) - 15


@dataclass(frozen=True, eq=False)
class RotatedQueries:
    """Queries of length one as the codes see them.

    Args:
        codes: ``Int8[queries, dims of the packed codes]``.
        steps: ``Float64[queries]``: the value of one unit of a code.
        errors: ``Float64[queries]``: length of what the codes leave out.
    """

    codes: NDArray[np.int8]
    steps: Doubles
    errors: Doubles


def rotate(units: Doubles, rotation: Doubles, packed_dim: int) -> RotatedQueries:
    """Turn and round queries ``Float64[queries, dim]`` of length one, or zero."""
    rotated = units @ rotation
    steps = np.maximum(np.abs(rotated).max(axis=1), np.finfo(np.float32).tiny) / 127
    codes = np.zeros((len(units), packed_dim), np.int8)
    whole = np.rint(rotated / steps[:, None])
    codes[:, : units.shape[1]] = whole
    return RotatedQueries(
        codes, steps, np.linalg.norm(rotated - whole * steps[:, None], axis=1) * (1 + 1e-9) + 1e-12
    )


class PlaneWriter:
    """Fills the arrays that the kernels read, block of rows by block of rows."""

    def __init__(self, rows: int, dim: int, *, biased: bool) -> None:
        full = kernels.padded(rows)
        lines = kernels.count_lines(dim, 2)
        self._rows, self._biased = rows, biased
        self.coarse = np.zeros((full // kernels.LANES, lines, 64), np.uint8)
        self.fine = np.zeros((rows, 4 * lines), np.uint8)
        self.floats = np.zeros((4 + biased, full), np.float32)
        self.floats[[1, 3], rows:] = -np.inf  # rows that only fill the last block reach no threshold
        self.longest = np.zeros(2)

    def write(self, start: int, coded: Coded) -> None:
        """Take in the codes of the rows from ``start`` on, a multiple of the rows of a block."""
        end = start + len(coded.codes)
        blocks = slice(start // kernels.LANES, kernels.padded(end) // kernels.LANES)
        self.coarse[blocks] = kernels.pack(coded.codes >> np.uint8(2), 2)
        self.fine[start:end] = kernels.pack_rows(coded.codes & np.uint8(3))
        for plane, steps in enumerate(steps_of(coded.codes)):
            self.floats[2 * plane, start:end] = coded.scales[plane]
            self.floats[2 * plane + 1, start:end] = np.nextafter(
                coded.radii[plane].astype(np.float32), np.float32(np.inf)
            )
            lengths = np.einsum("ij,ij->i", steps, steps)
            self.longest[plane] = max(self.longest[plane], float(np.sqrt(lengths.max())) * (1 + 1e-9))
        if self._biased:
            self.floats[4, start:end] = -np.square(coded.lengths) / 2 * (1 - _ROUNDING)

    def planes(self) -> kernels.TwoPlanes:
        """The arrays that the kernels read."""
        return planes_of(self._rows, self.coarse, self.fine, self.floats)


def planes_of(
    rows: int, coarse: NDArray[np.uint8], fine: NDArray[np.uint8], floats: Floats
) -> kernels.TwoPlanes:
    """Two planes of codes; ``floats`` are scale and radius of the high bits and of all bits, and any bias."""
    bias = floats[4] if len(floats) == 5 else None
    packed = kernels.Packed(rows, 2, coarse, floats[0], floats[1], bias)
    return kernels.TwoPlanes(packed, fine, floats[2], floats[3])
