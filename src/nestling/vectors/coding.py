"""Choosing how many bits of each entry are stored, and making the code that this needs."""

from __future__ import annotations

from nestling.axes import CODE_BITS, FLOAT_BITS
from nestling.granularity import At, Granularity, Nesting, read_at
from nestling.vectors.stored import StoredVectors

_BITS = (*CODE_BITS, *FLOAT_BITS)


def size_and_bits(sizes: Nesting, at: At) -> tuple[Granularity, int]:
    """The size that a network computes, and the bits in which entries are stored; 32 by default.

    Args:
        sizes: of a network, or of vectors; without precisions.
        at: such as ``"dim=256,bits=2"``.

    Raises:
        GranularityError: for sizes or bits that there are not.

    >>> size_and_bits(Nesting.parse("dim=8,16"), "bits=2")
    (Granularity(dim=16), 2)
    """
    found = sizes.times(bits=_BITS).resolve(at)
    return found.replace(bits=None), found["bits"]


def with_code(vectors: StoredVectors, at: At) -> StoredVectors:
    """The same vectors; with a code calibrated on them if ``at`` asks for few bits and they have none.

    Raises:
        GranularityError: for sizes or bits that there are not.
    """
    if "bits" in vectors.nesting.axes or size_and_bits(vectors.sizes, at)[1] == max(FLOAT_BITS):
        return vectors
    return vectors.calibrated()


def without_bits(at: str | None) -> At:
    """The text of an ``at`` as it is asked of a model, which computes floats.

    Raises:
        GranularityError: for text of another form.

    >>> without_bits("dim=64,bits=2"), without_bits("64")
    (Granularity(dim=64), 64)
    """
    found = None if at is None else read_at(at)
    return found.replace(bits=None) if isinstance(found, Granularity) else found
