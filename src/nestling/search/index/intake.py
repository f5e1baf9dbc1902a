"""Incoming vectors and queries of an index: checked, and prepared by what its rule does before a cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, CutRule, check_vectors, cut, name_rows
from nestling.errors import DataError
from nestling.vectors.matrix import blocks_of
from nestling.vectors.prefix import finite_squares, prefix_norms, prepare

_SAFE_SQUARE = 1e-20  # of lengths far from those that have no direction


def as_matrix(given: Any, what: str, dim: int | None = None) -> NDArray[np.floating[Any]]:
    """An array, memory map or tensor as a finite matrix; see :func:`nestling.cut.check_vectors`."""
    return check_vectors(given, what, dim=dim)


def prepared_blocks(
    vectors: NDArray[np.floating[Any]], rule: CutRule, smallest: int
) -> Iterator[NDArray[np.float32]]:
    """``vectors`` as an index stores them, block by block.

    Raises:
        DataError: for rows that float32 cannot hold, or (with ``l2`` after the cut) whose first
            ``smallest`` entries are all zero; they are named.
    """
    for rows in blocks_of(vectors):
        yield check_prefixes(
            _prepare(np.asarray(vectors[rows]), rule, rows.start), rule, smallest, "the vectors", rows.start
        )


def check_prefixes(
    block: NDArray[np.float32], rule: CutRule, smallest: int, what: str, first_row: int = 0
) -> NDArray[np.float32]:
    """``block``, whose rows can be compared at every size from ``smallest`` on.

    Raises:
        DataError: for rows that cannot be normalised, or are too large to be compared; they are named.
    """
    if rule.after == "l2":  # a longer prefix is no shorter vector, so the two ends suffice
        short = cut(block, smallest, RAW)
        with np.errstate(over="ignore"):
            ends = np.einsum("ij,ij->i", short, short).min(), np.einsum("ij,ij->i", block, block).max()
        if ends[0] > _SAFE_SQUARE and np.isfinite(ends[1]):
            return block
        prefix_norms(block, sorted({smallest, block.shape[1]}), what, first_row)
    else:
        finite_squares(block, [block.shape[1]], what, first_row)
    return block


def read_queries(given: Any, takes: Mapping[int, CutRule], dim: int, at: int) -> NDArray[np.float32]:
    """Queries as wide as the vectors of an index, from ones of a width that it takes.

    Args:
        given: ``Float[queries, width]``: as wide as the vectors, or as those it was extracted from, or
            the first ``at`` entries alone (unless something is to be done before the cut).
        takes: the rule for each width.
        dim: entries of the vectors of the index.
        at: the size that is searched.

    Raises:
        DataError: for another width, and as :func:`prepared_blocks`.
    """
    queries = as_matrix(given, "queries")
    width = queries.shape[1]
    if width in takes:
        return np.ascontiguousarray(cut(_prepare(queries, takes[width], 0), dim, RAW))
    if width == at and takes[dim].before == "none":
        padded = np.zeros((len(queries), dim), np.float32)
        padded[:, :at] = _prepare(queries, takes[dim], 0)
        return padded
    allowed = sorted({*takes, *([at] if takes[dim].before == "none" else [])})
    raise DataError(
        f"queries have {width} entries, but this index takes {' or '.join(map(str, allowed))} "
        f"(searched at {at}); encode them as its vectors were, or name the size with at="
    )


def _prepare(block: NDArray[np.floating[Any]], rule: CutRule, first_row: int) -> NDArray[np.float32]:
    if block.dtype == np.float32 and rule.before == "none":  # and finite, as all that is given
        return np.ascontiguousarray(block)
    with np.errstate(over="ignore"):
        narrow = prepare(block, block.shape[1], rule)
    finite = np.isfinite(narrow).all(axis=1)
    if not finite.all():
        raise DataError(
            f"{name_rows(np.flatnonzero(~finite) + first_row, 'hold')} numbers too large for "
            "float32; scale them"
        )
    return np.ascontiguousarray(narrow)
