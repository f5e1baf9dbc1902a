"""The argument ``vectors``: the types that it takes, and its values, checked once."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.cut import check_vectors
from nestling.errors import DataError
from nestling.vectors.stored import StoredVectors

VectorsLike: TypeAlias = ArrayLike | StoredVectors
"""Rows of numbers (an array, memory map, tensor, list or data frame), which are checked where they are given;
or stored vectors, which were checked when they were made."""


def values_of(
    given: VectorsLike, what: str = "vectors", *, dim: int | None = None
) -> NDArray[np.floating[Any]]:
    """The values ``Float[n, dim]``; those of stored vectors are not checked again.

    Raises:
        DataError: as :func:`~nestling.cut.check_vectors`.
    """
    if not isinstance(given, StoredVectors):
        return check_vectors(given, what, dim=dim)
    if dim not in (None, given.values.shape[1]):
        raise DataError(f"{what} have {given.values.shape[1]} entries a row, but {dim} are expected")
    return given.values  # type: ignore[no-any-return]
