"""Insertion order, batch sizes and thread assignment while a graph is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nestling.kernels.graph import CodedGraph, aligned
from nestling.process import blocks
from nestling.search.exact.threads import count_workers
from nestling.search.graph.codec import Codec
from nestling.search.graph.equal_rows import Equal

Links = NDArray[np.int32]
Found = TypeVar("Found")

# Rows linked at a time do not see each other: few enough beside those that are there already.
_NEW_SHARE, _MOST_NEW = 1 / 32, 2048
# More rows need more in view for a graph as good. At 200,000 building with 100, and at a million with 150
# takes as long as clustering the rows for inverted lists does.
_VIEW, _ROWS, _GROWTH, _WIDEST_VIEW = 100, 200_000, 0.25, 256
_HUBS = 512
_FEWEST_SHARED = 64  # rows or queries for which another thread pays


def linking_order(equal: Equal, seed: int) -> NDArray[np.int32]:
    """The order in which rows are linked: of those that are equal one alone."""
    return np.random.default_rng(seed).permutation(equal.nodes).astype(np.int32)


def begun_graph(codes: NDArray[np.uint8], links: int, codec: Codec, order: Links) -> CodedGraph:
    """Coded rows with no links yet, and the first in the order of linking as hubs."""
    none = np.full((len(codes), links), -1, np.int32)
    return begun_at(codes, none, order[:_HUBS], codec)


def begun_at(codes: NDArray[np.uint8], links: Links, hubs: Links, codec: Codec) -> CodedGraph:
    """Coded rows with links, and the hubs where searches begin."""
    near = aligned(len(hubs), codec.stride)
    near[:] = codes[hubs]
    return CodedGraph(codes, np.ascontiguousarray(links), hubs, near, codec.biased)


def usual_view(rows: int) -> int:
    """The beam width that links are searched with: a larger graph needs a wider beam to be as good."""
    return min(_WIDEST_VIEW, max(_VIEW, round(_VIEW * math.pow(rows / _ROWS, _GROWTH))))


def batches(rows: int) -> Iterator[tuple[int, int]]:
    """Spans of rows to link at a time; the first row has nothing to be linked with."""
    start = 1
    while start < rows:
        end = min(rows, start + max(1, min(int(start * _NEW_SHARE), _MOST_NEW)))
        yield start, end
        start = end


def shares(count: int, workers: int | None) -> list[slice]:
    """Rows or queries for each thread, of which there are no more than pay.

    Raises:
        ConfigError: for less than one thread.
    """
    most = max(1, count // _FEWEST_SHARED)
    if workers is not None or most > 1:  # counting cores takes as long as a part of a small search
        most = min(count_workers(workers), most)
    return blocks.shares(count, most)


def share_out(do: Callable[[slice], Found], count: int, workers: int | None) -> list[Found]:
    """Runs a function on shares of queries, one thread per share."""
    parts = shares(count, workers)
    if len(parts) == 1:
        return [do(parts[0])]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(do, parts))
