"""Running sums over blocks of coordinates: each size adds its block to the result of the size below.

The inner product of two prefixes is ``u[:m] @ v[:m] = sum_b u_b @ v_b`` over the blocks ``b`` of
coordinates between consecutive sizes, and so are squared norms; all sizes cost one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nestling.cut import (
    SMALLEST_NORM,
    CutRule,
    check_vectors,
    cut,
    name_rows,
    prefix_blocks,
    without_direction,
)
from nestling.errors import DataError

Width = TypeVar("Width", np.float32, np.float64)

# A squared distance is at most four times as large.
_LARGEST_SQUARE = float(np.finfo(np.float32).max) / 4


def check_dims(dims: Iterable[int], full: int) -> tuple[int, ...]:
    """``dims`` as increasing sizes that fit ``full`` entries.

    Raises:
        DataError: for none, one that does not fit, or ones that do not increase.
    """
    sizes = tuple(dims)
    if not sizes:
        raise DataError("no dims were given; give at least one")
    if any(isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) for dim in sizes):
        raise DataError(f"dims must be whole numbers, not {list(sizes)}")
    if any(small >= large for small, large in pairwise(sizes)):
        raise DataError(f"dims must increase without repeats, not {list(sizes)}; write {sorted(set(sizes))}")
    if sizes[0] < 1 or sizes[-1] > full:
        raise DataError(f"dims {list(sizes)} do not fit vectors of {full} entries; choose 1 to {full}")
    return tuple(int(dim) for dim in sizes)


def prepare(x: NDArray[Any], dim: int, rule: CutRule) -> NDArray[np.float32]:
    """The part of ``x`` that sizes up to ``dim`` read, in float32, after what ``rule`` does before a cut."""
    return unrounded(x, dim, rule).astype(np.float32, copy=False)


def unrounded(x: NDArray[Any], dim: int, rule: CutRule) -> NDArray[np.floating[Any]]:
    """The same as precise as it was given, where nothing is done before a cut."""
    wide = x if rule.before == "none" else x.astype(np.float32, copy=False)
    return cut(wide, dim, CutRule(rule.before, "none"))


def prefix_square_norms(x: NDArray[Width], dims: Sequence[int]) -> NDArray[Width]:
    """Squared length of every row at every size, ``Float[sizes, rows]``."""
    squares = [np.einsum("ij,ij->i", x[:, block], x[:, block]) for block in prefix_blocks(dims)]
    return np.cumsum(squares, axis=0)


def prefix_norms(x: NDArray[Width], dims: Sequence[int], what: str, first_row: int = 0) -> NDArray[Width]:
    """Length of every row at every size, ``Float[sizes, rows]``, fit to divide by.

    Raises:
        DataError: for rows whose prefix has no length, or none that float32 holds; they are named.
    """
    with np.errstate(over="ignore"):
        norms = np.sqrt(prefix_square_norms(x, dims))
    bad = ~(np.isfinite(norms) & (norms > SMALLEST_NORM))
    if bad.any():
        size = int(bad.any(axis=1).argmax())
        raise without_direction(x[:, : dims[size]], np.flatnonzero(bad[size]), f" of {what}", first_row)
    return norms


def finite_squares(
    x: NDArray[np.float32], dims: Sequence[int], what: str, first_row: int = 0
) -> NDArray[np.float32]:
    """Squared length of every row at every size, ``Float[sizes, rows]``, of rows that can be compared.

    Raises:
        DataError: for rows so large that a product or a distance would not fit float32; they are named.
    """
    with np.errstate(over="ignore"):
        squares = prefix_square_norms(x, dims)
    large = np.flatnonzero(~(squares[-1] <= _LARGEST_SQUARE))
    if len(large):
        raise DataError(
            f"{name_rows(large + first_row, f'of {what} are')} too large to be compared, as "
            "squares do not fit float32; divide all vectors by a constant, or remove those rows"
        )
    return squares


def beyond_single(x: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows with numbers beyond float32."""
    if x.dtype.itemsize <= np.dtype(np.float32).itemsize:
        return np.zeros(len(x), np.bool_)
    return np.asarray(np.abs(x).max(axis=1) > np.finfo(np.float32).max)


def refuse_beyond_single(x: NDArray[Any], what: str, first_row: int = 0) -> None:
    """Refuse numbers that float32 does not hold.

    Raises:
        DataError: for rows with such numbers; they are named.
    """
    beyond = np.flatnonzero(beyond_single(x))
    if len(beyond):
        raise DataError(
            f"{what} hold numbers beyond float32 in {name_rows(beyond + first_row)}; divide all vectors by a "
            "constant, or remove those rows"
        )


def prefix_pair_scores(
    first: Any, second: Any, dims: Iterable[int], rule: CutRule = CutRule()
) -> NDArray[np.float32]:
    """Similarity of each row of ``first`` with the same row of ``second`` at every size.

    Args:
        first: ``Float[n, dim]``.
        second: ``Float[n, dim]``.
        dims: increasing sizes.
        rule: with ``l2`` after the cut the similarity is the cosine, else the inner product.

    Returns:
        ``Float[sizes, n]``.

    Raises:
        DataError: for matrices of different shape or that cannot be used.

    >>> prefix_pair_scores(np.eye(3), np.ones((3, 3)), [1, 3], CutRule(after="none")).tolist()
    [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    """
    first = check_vectors(first, "the first vectors")
    second = check_vectors(second, "the second vectors", dim=first.shape[1])
    if len(first) != len(second):
        raise DataError(f"pairs need as many first as second vectors, not {len(first)} and {len(second)}")
    sizes = check_dims(dims, first.shape[1])
    a, b = (prepare(x, sizes[-1], rule) for x in (first, second))
    products = [np.einsum("ij,ij->i", a[:, block], b[:, block]) for block in prefix_blocks(sizes)]
    scores = np.cumsum(products, axis=0)
    if rule.after == "l2":
        scores /= prefix_norms(a, sizes, "the first vectors") * prefix_norms(b, sizes, "the second vectors")
    return scores
