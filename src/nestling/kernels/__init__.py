"""Compiled kernels of search: scans of packed codes, exact scores, and the search that joins both.

They are compiled when nestling is installed, if there is a C++ compiler, and choose at run time what
the processor offers. Without them numpy computes the same answers, slower. The environment variable
``NESTLING_KERNELS`` forces a level: ``off`` (numpy), ``plain``, ``avx2``, ``avx512``,
or ``neon`` (ARM with dot products).
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from nestling.errors import ConfigError, unknown
from nestling.kernels import native, twin
from nestling.kernels.layout import (
    LANES,
    MOST_DIMS,
    Doubles,
    Floats,
    Found,
    Ints,
    Packed,
    Probes,
    StoredRows,
    TwoPlanes,
    count_lines,
    pack,
    pack_rows,
    padded,
    unpack,
    unpack_rows,
)

__all__ = [
    "LANES",
    "MOST_DIMS",
    "Found",
    "Packed",
    "Probes",
    "StoredRows",
    "TwoPlanes",
    "available",
    "count_lines",
    "level",
    "pack",
    "pack_rows",
    "padded",
    "scan",
    "score",
    "search",
    "unpack",
    "unpack_rows",
]

_VARIABLE = "NESTLING_KERNELS"


def available() -> bool:
    """Whether the kernels were compiled for this machine; numpy stands in for them otherwise."""
    return bool(native.levels())


def level() -> str:
    """What the kernels run on now: ``avx512``, ``avx2``, ``neon``, ``plain``, or ``off`` for numpy.

    Raises:
        ConfigError: if ``NESTLING_KERNELS`` asks for what is unknown or what this machine lacks.
    """
    wanted, found = os.environ.get(_VARIABLE), native.levels()
    if not wanted:
        return found[-1] if found else "off"
    if wanted not in ("off", *native.LEVELS):
        raise ConfigError(unknown(f"level in {_VARIABLE}", wanted, ("off", *native.LEVELS)))
    if wanted != "off" and wanted not in found:
        raise ConfigError(
            f"{_VARIABLE}={wanted}, but this machine has only "
            f"{', '.join(('off', *found))}; unset it to use the best"
        )
    return wanted


def search(
    vectors: StoredRows,
    codes: TwoPlanes,
    probes: Probes,
    k: int,
    *,
    allowed: NDArray[np.bool_] | None = None,
    blocks: slice | None = None,
) -> Found:
    """The ``k`` best rows of every query; a row is left out only if a bound lies below the k-th best score.

    For a few queries coarse codes of all rows are scanned and fine codes of what survives are read; for
    many, both are unpacked once for all of them and compared as a product of matrices. Exact scores are
    computed of what survives that. Of equal scores the row that stands first wins. The arrays must fit each
    other as their classes say; nothing is checked here.

    Args:
        vectors: what exact scores are computed from.
        codes: their codes.
        probes: the queries.
        k: how many rows to find, at least 1.
        allowed: ``Bool[rows]``: the rows that may be found; all of them by default.
        blocks: the blocks of 16 rows to look in, from start to stop; all of them by default.
    """
    now = level()
    if now == "off":
        return twin.search(vectors, codes, probes, k, allowed, blocks)
    return native.search(now, vectors, codes, probes, k, allowed, blocks)


def scan(codes: Packed, queries: NDArray[np.int8], factors: Floats) -> list[tuple[Ints, Floats]]:
    """The rows whose bound reaches a threshold, in rising order, and those bounds, for every query.

    Several queries share each pass over the codes. A threshold of ``-inf`` gives the bounds of all rows.

    Args:
        codes: packed codes with their scales.
        queries: ``Int8[queries, dims of the packed code]``.
        factors: ``Float32[queries, 4]``: alpha, beta and gamma (:class:`Packed`), and the threshold.
    """
    now = level()
    return twin.scan(codes, queries, factors) if now == "off" else native.scan(now, codes, queries, factors)


def score(vectors: StoredRows, query: Doubles, rows: Ints) -> Doubles:
    """Exact scores ``Float64[rows]`` of one query ``Float64[dim]`` with some rows."""
    now = level()
    return twin.score(vectors, query, rows) if now == "off" else native.score(now, vectors, query, rows)
