"""Vectors in the number formats of sentence-transformers, Cohere, Voyage and databases, and back."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.arrays import as_array
from nestling.arguments.constraints import OneOf, Whole, checked
from nestling.arguments.formatting import shown
from nestling.bits import halved
from nestling.cut import check_vectors
from nestling.errors import DataError

Format: TypeAlias = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
"""``int8`` and ``uint8`` are one of 256 equal steps between two ends for each entry, from -128 or from 0.
``ubinary`` is one bit per entry, set where it is above 0, eight to a byte with the first in the highest bit;
``binary`` is the same with 128 taken off each byte."""

FORMATS: tuple[Format, ...] = get_args(Format)

Ranges: TypeAlias = ArrayLike | tuple[float, float]
"""``Float[2, dim]``, the smallest and the largest value of each entry; or two numbers for all entries."""

_STEPS = 255
_OFFSET = 128


def ranges_of(sample: ArrayLike) -> NDArray[np.float32]:
    """The ends of each entry in a sample of vectors: ``Float32[2, dim]``, to be kept with them.

    Raises:
        DataError: for fewer than two vectors, or ones that cannot be used.
    """
    x = check_vectors(sample, "the sample")
    if len(x) < 2:
        raise DataError(
            "a single vector has no range; give ranges_of a sample of the vectors that will be stored"
        )
    return np.stack([x.min(axis=0), x.max(axis=0)]).astype(np.float32)


@checked(form=OneOf(FORMATS))
def to_format(vectors: ArrayLike, form: Format, *, ranges: Ranges | None = None) -> NDArray[np.generic]:
    """Vectors in a number format; values beyond the ranges of ``int8`` and ``uint8`` saturate.

    Args:
        vectors: ``Float[n, dim]``.
        form: see :data:`Format`.
        ranges: of ``int8`` and ``uint8``, from :func:`ranges_of` or as a model publishes them. They are never
            taken from ``vectors``: two batches would get different codes.

    Returns:
        ``[n, dim]``, or ``[n, ceil(dim / 8)]`` for bits.

    Raises:
        DataError: for vectors that cannot be used, values beyond 65,504 for ``float16``, or ranges that are
            missing or do not fit.

    Warns:
        PrecisionWarning: for rows of which ``float16`` keeps few digits.
    """
    x = check_vectors(vectors)
    if form == "float16":
        return halved(x)
    if form == "float32":
        return np.asarray(x, form)
    if form in ("binary", "ubinary"):
        bits = np.packbits(x > 0, axis=1)
        return bits if form == "ubinary" else _signed(bits)
    low, step = ends_of(ranges, x.shape[1], form)
    codes = np.clip(np.floor((x - low) / step), 0, _STEPS).astype(np.uint8)
    return codes if form == "uint8" else _signed(codes)


@checked(form=OneOf(FORMATS), dim=Whole(1) | None)
def from_format(
    values: ArrayLike, form: Format, *, ranges: Ranges | None = None, dim: int | None = None
) -> NDArray[np.float32]:
    """The vectors that a number format stands for, ``Float32[n, dim]``; ``to_format`` gives ``values`` again.

    Args:
        values: ``[n, dim]``, or ``[n, bytes]`` for bits, which become -1 and 1.
        form: see :data:`Format`.
        ranges: those that ``int8`` and ``uint8`` were made with.
        dim: entries of a vector of bits, whose last byte may be padded; by default eight a byte.

    Raises:
        DataError: for values of another type or width than the format, or ranges that do not fit.
    """
    x = check_values(values, form)
    if form in ("float32", "float16"):
        return np.asarray(check_vectors(x), np.float32)
    if form in ("binary", "ubinary"):
        entries = _entries(x.shape[1], dim, form)
        bits = x if form == "ubinary" else unsigned(x)
        return np.unpackbits(bits, axis=1, count=entries).astype(np.float32) * 2 - 1
    ends: Any = None if ranges is None else as_array(ranges, "ranges")
    entries = 1 if ends is None or ends.ndim != 2 else ends.shape[1]
    if x.shape[1] == -(-entries // 8) < entries:
        raise DataError(
            f"values of {x.shape[1]} bytes with ranges of {entries} entries are packed bits; read them as "
            f"{'binary' if form == 'int8' else 'ubinary'}"
        )
    low, step = ends_of(ranges, x.shape[1], form)
    codes = x if form == "uint8" else unsigned(x)
    # The middle of a step: its lower end could be rounded into the step below.
    return np.asarray(low + (codes + np.float32(0.5)) * step, np.float32)


def check_values(values: ArrayLike, form: Format) -> NDArray[Any]:
    """Values as a matrix of the type of their format.

    Raises:
        DataError: for another type or shape.
    """
    x = as_array(values, f"{form} values")
    wanted = {"binary": "int8", "ubinary": "uint8"}.get(form, form)
    if x.dtype != np.dtype(wanted):
        raise DataError(f"{form} values are {wanted}, not {x.dtype}" + _other_format(form, x.dtype))
    if x.ndim != 2:
        raise DataError(f"{form} values must be a matrix of one vector per row, not of shape {x.shape}")
    return x


def _signed(codes: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Bytes with 128 taken off each."""
    return (codes ^ np.uint8(_OFFSET)).view(np.int8)


def unsigned(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Bytes with 128 added to each."""
    return codes.view(np.uint8) ^ np.uint8(_OFFSET)


def _entries(row_bytes: int, dim: int | None, form: str) -> int:
    dim = 8 * row_bytes if dim is None else dim
    if -(-dim // 8) != row_bytes:
        raise DataError(
            f"{form} vectors of {row_bytes} bytes hold {8 * row_bytes - 7} to {8 * row_bytes} entries, "
            f"not {dim}"
        )
    return dim


def _other_format(form: str, dtype: np.dtype[np.generic]) -> str:
    other = {
        "int8": "ubinary or uint8",
        "uint8": "binary or int8",
        "binary": "ubinary",
        "ubinary": "binary",
    }.get(form)
    return f"; values of {dtype} may be {other}" if other and dtype.kind in "iu" else ""


def ends_of(ranges: Ranges | None, dim: int, form: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The lower end and the step of each entry; constant entries have a step of 1.

    Raises:
        DataError: for ranges that are missing or do not fit.
    """
    if ranges is None:
        raise DataError(
            f"{form} needs the ranges of the entries; give ranges=ranges_of(sample) with a sample of all "
            "vectors, and keep them with the codes"
        )
    ends = as_array(ranges, "ranges")
    if ends.dtype.kind not in "fiu":
        raise DataError(f"ranges must be numbers, not {shown(ranges)}; give ranges_of(sample)")
    ends = ends.astype(np.float32)
    ends = np.repeat(ends[:, None], dim, axis=1) if ends.shape == (2,) else ends
    if ends.shape != (2, dim):
        raise DataError(f"ranges of shape {ends.shape} do not fit vectors of {dim} entries; give (2, {dim})")
    if not np.isfinite(ends).all() or (ends[0] > ends[1]).any():
        raise DataError("ranges must be finite, the smallest values first; give ranges_of(sample)")
    step = (ends[1] - ends[0]) / np.float32(_STEPS)
    return ends[0], np.where(step == 0, np.float32(1), step)
