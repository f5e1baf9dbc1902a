"""Incoming vectors and queries of an index: checked, and prepared by what its rule does before a cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, CutRule, check_vectors, cut, name_rows
from nestling.errors import DataError
from nestling.search.index.files.row_format import Held, RowFormat
from nestling.vectors.matrix import blocks_of
from nestling.vectors.planes import BitPlanes
from nestling.vectors.precision import Values
from nestling.vectors.prefix import finite_squares, prefix_norms, prepare

_SAFE_SQUARE = 1e-20  # of lengths far from those that have no direction


def held_blocks(
    vectors: Values, takes: Mapping[int, CutRule], smallest: int, held: RowFormat
) -> Iterator[Held]:
    """``vectors`` as an index holds them, block by block.

    Args:
        vectors: ``Float[n, width]``, or codes.
        takes: the rule for each width.
        smallest: the smallest prefix that is compared.
        held: how rows are held.

    Raises:
        DataError: for rows that float32 cannot hold, or (with ``l2`` after the cut) whose first ``smallest``
            entries are all zero; they are named. Of codes only whole rows count, as the values of few bits
            are others.
    """
    width = vectors.shape[1]
    if isinstance(vectors, BitPlanes) and vectors.code.cut(held.dim) == held.rule.code:
        given = RowFormat(width, replace(held.rule, code=vectors.code), vectors.bits)
        yield from (given.cut(rows, held) for rows in given.blocks(vectors))
        return
    for rows in blocks_of(vectors):
        prepared = _prepare(np.asarray(vectors[rows]), takes[width], rows.start)
        shortest = smallest if held.bits is None else width
        yield held.of_floats(check_prefixes(prepared, takes[width], shortest, "the vectors", rows.start))


def read_vectors(given: Any, takes: Mapping[int, CutRule]) -> NDArray[np.floating[Any]]:
    """Vectors to be added, of a width that an index takes.

    Raises:
        DataError: for another width, and as :func:`nestling.cut.check_vectors`.
    """
    vectors = check_vectors(given, "the vectors")
    if vectors.shape[1] not in takes:
        wanted = " or ".join(map(str, sorted(takes)))
        raise DataError(f"the vectors have {vectors.shape[1]} entries a row, but {wanted} are expected")
    return vectors


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
        DataError: for another width, and as :func:`held_blocks`.
    """
    queries = check_vectors(given, "queries")
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
