"""Precisions of stored vectors: floats, or codes of a few bits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.formatting import shown
from nestling.axes import CODE_BITS, FLOAT_BITS
from nestling.cut import CutRule
from nestling.errors import ArtifactError, DataError, GranularityError
from nestling.granularity import At, Granularity, Nesting
from nestling.kernels.planes import packed
from nestling.kernels.planes.layout import stride_of
from nestling.storage.artifact import open_array
from nestling.storage.npy import write_npy
from nestling.vectors.matrix import Sizes, read_full_sizes
from nestling.vectors.planes import BitPlanes, open_planes, write_planes

Values: TypeAlias = Any
"""``Float[n, dim]``, or :class:`BitPlanes`, which read like it."""

_FILE = "vectors.npy"


@dataclass(frozen=True)
class Precision:
    """Floats of a type, or codes of some bits.

    Args:
        dtype: of floats; None for codes.
        bits: of an entry.
    """

    dtype: np.dtype[Any] | None
    bits: int

    @classmethod
    def of(cls, values: Values) -> Self:
        """The precision of some values."""
        if isinstance(values, BitPlanes):
            return cls(None, values.bits)
        return cls(values.dtype, min(8 * values.dtype.itemsize, max(FLOAT_BITS)))

    def at(self, granularity: Granularity) -> Precision:
        """The precision of what is extracted from such values."""
        bits = granularity.get("bits", 0)
        if not bits or (bits == self.bits and self.entry_bits == bits):
            return self
        return Precision(None if bits in CODE_BITS else np.dtype(f"f{bits // 8}"), bits)

    @property
    def is_code(self) -> bool:
        """Whether entries are codes."""
        return self.dtype is None

    @property
    def entry_bits(self) -> int:
        """Bits of an entry in memory: of a float64 they are 64, though more than 32 are no precision."""
        return self.bits if self.dtype is None else 8 * self.dtype.itemsize

    def row_bytes(self, dim: int) -> int:
        """Bytes of one vector."""
        return stride_of(dim) * self.bits if self.dtype is None else dim * self.dtype.itemsize

    def precisions(self, rule: CutRule) -> tuple[int, ...]:
        """The sizes on the axis ``bits`` of such values under a rule; none without a code."""
        sizes = (*CODE_BITS, *FLOAT_BITS) if rule.code is not None else ()
        return tuple(bits for bits in sizes if bits <= self.bits)

    def write(self, folder: Path, blocks: Iterable[NDArray[Any]], shape: tuple[int, int]) -> None:
        """Write blocks of floats, or of 8-bit codes ``UInt8[rows, dim]``."""
        if self.dtype is None:
            write_planes(folder, blocks, shape, self.bits)
        else:
            write_npy(folder / _FILE, blocks, shape, self.dtype)

    def join(self, blocks: Iterable[NDArray[Any]], shape: tuple[int, int], rule: CutRule) -> Values:
        """The same in memory."""
        kind, width, count = (
            (self.dtype, shape[1], 1) if self.dtype else (np.uint8, stride_of(shape[1]), self.bits)
        )
        parts, start = [np.empty((shape[0], width), kind) for _ in range(count)], 0
        for block in blocks:
            for part, piece in zip(parts, [block] if self.dtype else packed(block, self.bits), strict=True):
                part[start : start + len(block)] = piece
            start += len(block)
        return parts[0] if rule.code is None else BitPlanes(tuple(parts), rule.code)


def full_nesting(given: Sizes, values: Values, rule: CutRule) -> Nesting:
    """The sizes that an argument names, each at every precision that the values have under a rule.

    Raises:
        GranularityError: for sizes that do not end at the full one, or ``bits`` under a rule without a code.
        DataError: for a code that was calibrated on vectors of another size.
    """
    nesting = None if given is None else Nesting.of(given)
    if rule.code is not None and not isinstance(values, BitPlanes):
        rule.code.check_size(values.shape[1])
    if nesting is not None and "bits" in nesting.axes:
        if rule.code is None:
            raise GranularityError(
                f"the nesting {nesting} names bits, and the cut rule has no code; leave bits out, or make a "
                "code from the vectors first: stored.calibrated()"
            )
        nesting = nesting.without("bits")
    sizes = read_full_sizes(nesting, values.shape[1])
    precisions = Precision.of(values).precisions(rule)
    return sizes.times(bits=precisions) if precisions else sizes


def check_encoder(rule: CutRule, encoder: str) -> None:
    """Refuse a code that was calibrated on the vectors of another encoder, where both are known by name.

    Raises:
        DataError: if they differ.
    """
    made = "" if rule.code is None else rule.code.encoder
    names = {name.partition("@")[0] for name in (made, encoder)}  # a digest may follow, or be alone
    if len(names) > 1 and not any(not name or name.startswith("sha256:") for name in names):
        raise DataError(
            f"the code was calibrated on vectors of {made!r}, and these are of {encoder!r}; calibrate on "
            "these: StoredVectors(vectors).calibrated()"
        )


def open_values(folder: Path, rule: CutRule, bits: int | None) -> Values:
    """Values that :meth:`Precision.write` wrote, as memory maps.

    Args:
        folder: folder of the values.
        rule: of the vectors; codes are decoded by its code.
        bits: of the codes; None for floats.

    Raises:
        ArtifactError: for bits that no code has or without a code, or files of another type or width.
    """
    if bits is None:
        values = open_array(folder / _FILE)
        if values.ndim != 2 or values.dtype.kind != "f":
            raise ArtifactError(f"{folder} holds {values.dtype} of shape {values.shape}, not vectors")
        return values
    if type(bits) is not int or bits not in CODE_BITS or rule.code is None:
        of = "" if rule.code is not None else " and has no code"
        raise ArtifactError(f"the manifest of {folder} names bits={shown(bits)}{of}, so it holds no codes")
    try:
        return open_planes(folder, rule.code, bits)
    except DataError as error:
        raise ArtifactError(f"the codes of {folder} do not fit its manifest: {error}") from error


def check_saved(folder: Path, nesting: Nesting, values: Values, rule: CutRule) -> None:
    """Refuse a nesting that is not one of the saved values.

    Raises:
        ArtifactError: if it ends at another size or precision than they have.
    """
    held, full = Precision.of(values), nesting.full
    wanted = {"dim": values.shape[1], **({"bits": held.bits} if "bits" in full else {})}
    is_coded = "bits" in full and any(bits in CODE_BITS for bits in nesting.sizes("bits"))
    fits = rule.code is None or rule.code.dim == values.shape[1]
    if dict(full) != wanted or (is_coded and rule.code is None) or not fits:
        raise ArtifactError(
            f"the manifest of {folder} names the sizes {nesting}, and the folder holds vectors of "
            f"{values.shape[1]} entries of {held.bits} bits; it was altered: save the vectors again"
        )


def held_at(nesting: Nesting, values: Values, at: At) -> Granularity:
    """What ``at`` names of some values.

    Raises:
        GranularityError: if they do not hold it.
    """
    try:
        return nesting.resolve(at)
    except GranularityError as error:
        if not isinstance(values, BitPlanes):
            raise
        raise GranularityError(
            f"{error}. These vectors keep {values.shape[1]} dims of {values.bits} bits; extract more from "
            "the vectors that they were made from"
        ) from error


def extracted(nesting: Nesting, granularity: Granularity) -> Nesting:
    """The nesting after extraction: codes keep their leading bits; floats that were cut give no codes."""
    found = nesting.up_to(granularity)
    if granularity.get("bits") not in FLOAT_BITS:
        return found
    return Nesting(tuple(g for g in found if g["bits"] == granularity["bits"]))


def extracted_rule(rule: CutRule, granularity: Granularity) -> CutRule:
    """The rule of what is extracted."""
    rule = rule.again
    if rule.code is None or granularity.get("bits") not in CODE_BITS:
        return rule.without_code
    return replace(rule, code=rule.code.cut(granularity["dim"]))
