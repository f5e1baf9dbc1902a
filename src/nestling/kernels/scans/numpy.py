"""Scans and exact scores in numpy: the same results as the compiled kernels, slower."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nestling.kernels.scans.layout import (
    LANES,
    Doubles,
    Floats,
    Found,
    Ints,
    Packed,
    Probes,
    StoredRows,
    TwoPlanes,
    unpack,
    unpack_rows,
)
from nestling.process.blocks import blocks

_BLOCKS_AT_A_TIME = 512
_ROWS_AT_A_TIME = 256


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

    For few queries the compiled kernels scan the high bits of all rows and read the low bits of rows that
    survive. For many queries they unpack both once, and compare them in a product of matrices. Exact scores
    are computed for rows that survive. Of equal scores the lower row wins. Shapes and types must be those
    that the classes state; nothing is checked here.

    Args:
        vectors: the rows, for exact scores.
        codes: their codes.
        probes: the queries.
        k: number of rows to find, at least 1.
        allowed: ``Bool[rows]``: the rows that may be found; all by default.
        blocks: the blocks of 16 rows to search, from start to stop; all by default.
    """
    factors = probes.likely if probes.sure is None else probes.sure
    coarse, fine = _bounds_of_planes(codes, probes.codes, factors)
    rows = np.arange(codes.coarse.rows) if allowed is None else np.flatnonzero(allowed)
    if blocks is not None:
        rows = rows[(rows >= blocks.start * LANES) & (rows < blocks.stop * LANES)]
    parts = [
        _pursue(vectors, probes.exact[i], probes.bounds[i], coarse[i][rows], fine[i][rows], rows, k)
        for i in range(len(probes.codes))
    ]
    indices, scores, refined, verified, skipped = zip(*parts, strict=True)
    return Found(
        np.array(indices), np.array(scores), np.array(refined), np.array(verified), np.array(skipped)
    )


def scan(codes: Packed, queries: NDArray[np.int8], factors: Floats) -> list[tuple[Ints, Floats]]:
    """For every query, the rows whose bound reaches its threshold, in rising order, and their bounds.

    Several queries share each pass over the codes. A threshold of ``-inf`` gives the bounds of all rows.

    Args:
        codes: packed codes with their scales.
        queries: ``Int8[queries, dims of the packed code]``.
        factors: ``Float32[queries, 4]``: alpha, beta and gamma (:class:`Packed`), and the threshold.
    """
    parts = []
    for some in blocks(len(codes.blocks), _BLOCKS_AT_A_TIME):
        sums = _sums(unpack(codes.blocks[some], codes.bits), queries)
        parts.append(_bounds(codes, some, sums, queries, factors))
    bounds = np.concatenate(parts, axis=1)[:, : codes.rows]
    kept = [np.flatnonzero(~(row < factor[3])) for row, factor in zip(bounds, factors, strict=True)]
    return [(rows, bounds[i][rows]) for i, rows in enumerate(kept)]


def score(vectors: StoredRows, query: Doubles, rows: Ints) -> Doubles:
    """Exact scores ``Float64[rows]`` of one query ``Float64[dim]`` with some rows."""
    scores = np.empty(len(rows), np.float64)
    for span in blocks(len(rows), _ROWS_AT_A_TIME):
        some = rows[span]
        wide = vectors.values[some].astype(np.float64)
        if vectors.distance:
            part = -np.square(wide - query).sum(axis=1)
        else:
            part = np.einsum("ij,j->i", wide, query)
            part = part if vectors.scale is None else part * vectors.scale[some]
        scores[span] = part
    return scores


def _sums(codes: NDArray[np.uint8], queries: NDArray[np.int8]) -> Ints:
    """Inner products of queries and codes; whole numbers that float64 holds exactly."""
    return np.asarray((queries.astype(np.float64) @ codes.astype(np.float64).T).astype(np.int64))


def _bounds(codes: Packed, blocks: slice, sums: Ints, queries: NDArray[np.int8], factors: Floats) -> Floats:
    rows = slice(blocks.start * LANES, blocks.stop * LANES)
    bias = None if codes.bias is None else codes.bias[rows]
    steps = 2 * sums - ((1 << codes.bits) - 1) * queries.sum(axis=1, dtype=np.int64)[:, None]
    return _bound(steps, factors, codes.scale[rows], codes.radius[rows], bias)


def _bound(steps: Ints, factors: Floats, scale: Floats, radius: Floats, bias: Floats | None) -> Floats:
    alpha, beta, gamma = (factors[:, i, None] for i in range(3))
    with np.errstate(invalid="ignore", over="ignore"):  # a bound that overflows excludes no row
        bound = scale * (alpha * steps.astype(np.float32) + beta) + gamma * radius
        return np.asarray(bound if bias is None else bound + bias)


def _bounds_of_planes(codes: TwoPlanes, queries: NDArray[np.int8], factors: Floats) -> tuple[Floats, Floats]:
    """The coarse and the fine bound of every row: ``Float[queries, rows]`` each."""
    coarse, rows = codes.coarse, codes.coarse.rows
    both: tuple[list[Floats], list[Floats]] = ([], [])
    sums = queries.sum(axis=1, dtype=np.int64)[:, None]
    for some in blocks(len(coarse.blocks), _BLOCKS_AT_A_TIME):
        high = _sums(unpack(coarse.blocks[some], 2), queries)
        both[0].append(_bounds(coarse, some, high, queries, factors[:, 0]))
        span = slice(some.start * LANES, min(some.stop * LANES, rows))
        low = _sums(unpack_rows(codes.fine[span]), queries)
        steps = 2 * (4 * high[:, : low.shape[1]] + low) - 15 * sums
        bias = None if coarse.bias is None else coarse.bias[span]
        both[1].append(_bound(steps, factors[:, 1], codes.fine_scale[span], codes.fine_radius[span], bias))
    return np.concatenate(both[0], axis=1)[:, :rows], np.concatenate(both[1], axis=1)


def _pursue(
    vectors: StoredRows,
    query: Doubles,
    bounds: Doubles,
    coarse: Floats,
    fine: Floats,
    rows: Ints,
    k: int,
) -> tuple[Ints, Doubles, int, int, float]:
    """One query: rows in falling order of their bounds, until those lie below the k-th best."""
    bound = np.where(np.isnan(coarse) | np.isnan(fine), np.inf, np.minimum(coarse, fine))
    order = np.argsort(-bound, kind="stable")
    kept: tuple[Ints, Doubles] = (np.empty(0, np.int64), np.empty(0))
    done, threshold = 0, -np.inf
    step = max(_ROWS_AT_A_TIME, k)
    while done < len(order) and not bound[order[done]] < threshold:
        some = order[done : done + step]
        done += len(some)
        kept = _best(np.append(kept[0], rows[some]), np.append(kept[1], score(vectors, query, rows[some])), k)
        if len(kept[0]) == k:
            own = kept[1][-1] * bounds[0]
            threshold = own + bounds[1] - bounds[2] - 4e-7 * (abs(own) + abs(bounds[1]))
    indices, scores = np.full(k, -1, np.int64), np.full(k, np.nan)
    indices[: len(kept[0])], scores[: len(kept[1])] = kept
    skipped = float(bound[order[done]]) if done < len(order) else -np.inf
    return indices, scores, int((coarse >= threshold).sum()), done, skipped


def _best(rows: Ints, scores: Doubles, k: int) -> tuple[Ints, Doubles]:
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]
