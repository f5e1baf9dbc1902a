"""Exact neighbours at many sizes and precisions at once, by products of small integers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.bits import MOST_BITS, BitCode, cell_values
from nestling.cut import SMALLEST_NORM, CutRule, prefix_blocks
from nestling.kernels import LANES, prefixes
from nestling.kernels.planes.layout import Steps
from nestling.process.blocks import even_blocks, shares
from nestling.search.exact.neighbours import Neighbours, nearest_each
from nestling.search.exact.threads import count_workers
from nestling.vectors.prefix import prefix_square_norms

Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

_LARGEST = 127
_SLACK = 1e-6
"""More than what float32 rounds off in a bound, relative to the lengths of what is multiplied."""
_BLOCK = 4096
_FEWEST_DIMS = 8
_TINY = 1e-30
# Equal codes are looked for where there are at most so many codes for each row.
_CODES_PER_ROW = 64


@dataclass(frozen=True, eq=False)
class Grid:
    """Rows in whole numbers: an entry is about ``centre + unit * level``.

    Args:
        levels: ``UInt8[n, dim]``.
        centre: ``Float64[dim]``.
        unit: ``Float64[dim]``.
        most: the highest level.
        bits: of the codes that the levels are; None if rows with equal levels may differ.
    """

    levels: Bytes
    centre: Doubles
    unit: Doubles
    most: int
    bits: int | None = None

    @classmethod
    def of(cls, code: BitCode, codes: Bytes, bits: int) -> Self:
        """The leading bits of 8-bit codes ``UInt8[n, dim]``.

        Args:
            code: of which they are.
            codes: of whole rows.
            bits: 1, 2, 3, 4: the levels are the codes; or 8: they are near.
        """
        values, spread = cell_values(bits), code.spread.astype(np.float64)
        if bits < MOST_BITS:
            half, most, own = float(values[1] - values[0]) / 2, (1 << bits) - 1, bits
            levels = codes >> np.uint8(MOST_BITS - bits)
        else:
            steps = Steps.of(values)
            half, most, own = steps.half, steps.most, None
            even = values if steps.rest is None else values - steps.rest
            levels = np.rint((even / half + most) / 2).astype(np.uint8)[codes]
        return cls(levels, code.centre - spread * half * most, spread * 2 * half, most, own)


@dataclass(frozen=True, eq=False)
class Precision:
    """The values of the rows at one precision.

    Args:
        values: ``Float32[n, dim]``.
        scale: ``Float64[n]``: values are about this times those of the grid; None is 1.
    """

    values: Floats
    scale: Doubles | None = None


def nearest_held(
    queries: NDArray[Any],
    grid: Grid,
    precisions: Sequence[Precision],
    dims: Sequence[int],
    k: int,
    *,
    rule: CutRule = CutRule(),
    likely: dict[int, Neighbours] | None = None,
    workers: int | None = None,
) -> list[dict[int, Neighbours]]:
    """What :func:`~nestling.search.exact.neighbours.nearest_each` finds at each of some precisions.

    Whole numbers of 8 bits are multiplied, once for all precisions and sizes. They bound the scores; rows
    whose bound reaches the k-th best score are compared in double precision. So results are exact. Where
    bounds leave too many rows, or without compiled kernels, matrices of floats are multiplied.

    Args:
        queries: ``Float[queries, dim]``, after what comes before a cut.
        grid: the rows in whole numbers.
        precisions: their values; the nearer to the grid, the fewer are compared.
        dims: increasing sizes.
        k: 1 to the number of rows.
        rule: with ``l2`` after the cut scores are cosines, else inner products.
        likely: neighbours at the same sizes that are likely to be among the best, such as those at another
            precision; thresholds are high from the start then.
        workers: threads; as many as there are cores by default.

    Raises:
        DataError: as :func:`~nestling.search.exact.neighbours.nearest_each`.
    """
    workers = count_workers(workers)
    plain = partial(nearest_each, k=k, rule=rule, workers=workers)
    # In few dims many rows are nearer to each other than bounds distinguish, unless they are equal.
    small = [dim for dim in dims if grid.bits is None and dim < _FEWEST_DIMS]
    large = tuple(dim for dim in dims if dim not in small)
    search = _HeldSearch.prepare(queries, grid, precisions, large, k, rule, workers) if large else None
    if search is None:
        return [plain(queries, each.values, dims) for each in precisions]
    if likely is not None:
        hints = np.stack([likely[dim].indices for dim in large], axis=1)
        search = replace(search, queries=replace(search.queries, likely=hints))
    rows, scores = search.found()
    answers = []
    for kind, each in enumerate(precisions):
        found = plain(queries, each.values, small) if small else {}
        for size, dim in enumerate(large):
            indices, similar = rows[:, kind, size].copy(), scores[:, kind, size].astype(np.float32)
            left = np.flatnonzero(indices[:, 0] < 0)
            if len(left):
                again = plain(queries[left], each.values, [dim])[dim]
                indices[left], similar[left] = again.indices, again.scores
            found[dim] = Neighbours(indices, similar)
        answers.append(found)
    return answers


@dataclass(frozen=True, eq=False)
class _HeldSearch:
    held: prefixes.Held
    bounds: prefixes.Bounds
    queries: prefixes.Queries
    lengths: Doubles  # Float64[sizes, queries], by which scores are divided
    k: int
    workers: int

    @classmethod
    def prepare(
        cls,
        queries: NDArray[Any],
        grid: Grid,
        precisions: Sequence[Precision],
        sizes: tuple[int, ...],
        k: int,
        rule: CutRule,
        workers: int,
    ) -> _HeldSearch | None:
        """None where this search cannot be done, or where another has to name the rows that are wrong."""
        if not prefixes.available():
            return None
        asked = np.ascontiguousarray(queries[:, : sizes[-1]], np.float64)
        levels = np.ascontiguousarray(grid.levels[:, : sizes[-1]])
        sharp = [grid.bits is not None] * len(precisions)
        held = prefixes.Held(levels, [_rows(each.values) for each in precisions], sharp, sizes)

        packing = even_blocks(prefixes.padded(len(levels)) // LANES, _BLOCK)
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(partial(prefixes.pack, held), packing))
        measured = [_measured(held, kind, grid, each.scale, workers) for kind, each in enumerate(precisions)]
        is_cosine = rule.after == "l2"
        norms = np.sqrt(prefix_square_norms(asked, sizes))
        if is_cosine and not all(map(_is_usable, [norms, *(np.sqrt(each.squares) for each in measured)])):
            return None
        bounds = _bounds(held, measured, precisions, is_cosine)
        if grid.bits is not None:
            for size, kept in enumerate(sizes):
                if 1 << (grid.bits * kept) <= _CODES_PER_ROW * len(levels):
                    bounds.leave_out(size, _repeated(levels[:, :kept], grid.bits, k))
        coded = _coded(asked, grid, sizes, measured[0].reach)
        if not np.isfinite(coded.factors).all():
            return None
        return cls(held, bounds, coded, norms if is_cosine else np.ones_like(norms), k, workers)

    def found(self) -> tuple[NDArray[np.int64], Doubles]:
        """Rows and scores, ``[queries, precisions, sizes, k]``."""

        def part(span: slice) -> tuple[NDArray[np.int64], Doubles]:
            some = self.queries.part(span)
            return prefixes.search(self.held, self.bounds, some, self.k)

        count = len(self.queries.codes)
        with ThreadPoolExecutor(self.workers) as pool:
            parts = list(pool.map(part, shares(count, min(self.workers, count))))
        rows, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
        return rows, scores / self.lengths.T[:, None, :, None]


def _rows(values: Floats) -> Floats:
    """Rows whose entries are side by side."""
    return values if values.strides[1] == 4 and values.strides[0] > 0 else np.ascontiguousarray(values)


def _is_usable(norms: Doubles) -> bool:
    return bool(norms.min() > SMALLEST_NORM and norms.max() < np.finfo(np.float32).max)


def _measured(
    held: prefixes.Held, kind: int, grid: Grid, scale: Doubles | None, workers: int
) -> prefixes.Measured:
    rows, dim = held.levels.shape
    place = np.ascontiguousarray(grid.centre[:dim]), np.ascontiguousarray(grid.unit[:dim]), grid.most
    found = prefixes.Measured.room(rows, len(held.sizes))

    def part(span: slice) -> NDArray[np.int64]:
        own = prefixes.Measured(found.squares, found.residuals, np.zeros_like(found.reach))
        prefixes.measure(held, kind, place, scale, span, own)
        return own.reach

    with ThreadPoolExecutor(workers) as pool:
        for reach in pool.map(part, even_blocks(rows, _BLOCK)):
            np.maximum(found.reach, reach, out=found.reach)
    return found


def _bounds(
    held: prefixes.Held,
    measured: Sequence[prefixes.Measured],
    precisions: Sequence[Precision],
    is_cosine: bool,
) -> prefixes.Bounds:
    sizes, rows = measured[0].squares.shape
    inverse = np.ones((len(measured), rows, sizes))
    lengths = np.ones((len(measured), sizes, prefixes.padded(rows)), np.float32)
    lengths[held.sharp] = prefixes.FAR
    doubts = np.full_like(lengths, -np.inf)
    for kind, (each, precision) in enumerate(zip(measured, precisions, strict=True)):
        scale = 1 if precision.scale is None else precision.scale
        norms = np.sqrt(each.squares)
        if is_cosine:
            inverse[kind] = 1 / norms.T
        lengths[kind, :, :rows] = norms / scale if is_cosine else 1
        doubts[kind, :, :rows] = (np.sqrt(each.residuals) * (1 + _SLACK) + _SLACK * norms) / scale
    return prefixes.Bounds(inverse, lengths, doubts)


def _coded(asked: Doubles, grid: Grid, sizes: tuple[int, ...], reach: NDArray[np.int64]) -> prefixes.Queries:
    """Queries in 8 bits; what rounding leaves out is at most the product of two lengths (Cauchy, Schwarz)."""
    dim = sizes[-1]
    centre, unit = grid.centre[:dim], grid.unit[:dim]
    weighted = asked * unit
    step = np.abs(weighted).max(axis=1, keepdims=True) / _LARGEST
    step[step == 0] = 1
    codes = np.rint(weighted / step)
    errors = weighted - step * codes
    middle = grid.most / 2

    def sums(x: Doubles) -> Doubles:
        return np.cumsum([x[:, block].sum(axis=1) for block in prefix_blocks(sizes)], axis=0)

    offset = sums(asked * centre + middle * errors)
    doubt = np.sqrt(prefix_square_norms(errors, sizes) * reach[:, None]) / 2
    largest = np.sqrt(prefix_square_norms(weighted, sizes) * np.array(sizes)[:, None]) * grid.most
    doubt += _SLACK * (largest + sums(np.abs(asked * centre)))
    # A query of zeros has some length, as doubts may be infinite.
    lengths = np.sqrt(prefix_square_norms(asked, sizes)) * (1 + 10 * _SLACK) + _TINY
    steps = np.broadcast_to(step[:, 0], offset.shape)
    factors = np.stack([steps, offset + doubt, offset - doubt, lengths], axis=2).swapaxes(0, 1)
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(factors, np.float32)
    return prefixes.Queries(codes.astype(np.int8), asked, single)


def _repeated(levels: Bytes, bits: int, k: int) -> NDArray[np.int64]:
    """Rows that come after ``k`` rows of the same levels, so that they are never among the ``k`` best."""
    keys = np.zeros(len(levels), np.uint64)
    for column in levels.T:
        keys = keys << np.uint64(bits) | column
    place = np.sort(keys << np.uint64(32) | np.arange(len(levels), dtype=np.uint64))
    keys = place >> np.uint64(32)
    later = np.flatnonzero(keys[k:] == keys[:-k]) + k
    return (place[later] & np.uint64(0xFFFFFFFF)).astype(np.int64)
