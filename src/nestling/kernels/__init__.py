"""Compiled kernels: scans of packed codes, exact scores, graphs, and rank correlations; C++ in ``cpp``.

They are compiled when nestling is installed, if there is a C++ compiler, and choose at run time what
the processor offers. Without them numpy gives the same results, slower. The environment variable
``NESTLING_KERNELS`` forces a level: ``off`` (numpy), ``plain``, ``avx2``, ``avx512``,
or ``neon`` (ARM with dot products).
"""

from nestling.kernels.dispatch import available, level
from nestling.kernels.scans import scan, score, search
from nestling.kernels.scans.layout import (
    LANES,
    MOST_DIMS,
    Found,
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
