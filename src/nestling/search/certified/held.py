"""Exact neighbours at many sizes and precisions at once, by products of small integers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.bits import MOST_BITS, BitCode, cell_values
from nestling.cut import SMALLEST_NORM, CutRule, prefix_blocks
from nestling.kernels import prefixes
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
    """Rows near whole numbers: an entry is about ``centre + unit * level``.

    Args:
        code: of which the codes are.
        codes: ``UInt8[n, dim]``, of 8 bits each.
        bits: leading bits of codes that count: up to 4, which are levels themselves; or 8, near levels.
    """

    code: BitCode
    codes: Bytes
    bits: int

    @property
    def is_sharp(self) -> bool:
        """Whether levels give the values of codes, but for rounding."""
        return self.bits < MOST_BITS

    @cached_property
    def steps(self) -> Steps:
        """The values of codes by their levels."""
        values = cell_values(self.bits)
        if not self.is_sharp:
            return Steps.of(values)
        even = 256 >> (MOST_BITS - self.bits), 0, 0, 0, 256
        return Steps(float(values[1] - values[0]) / 2, len(values) - 1, levels=even)

    @property
    def unit(self) -> Doubles:
        """``Float64[dim]``."""
        return self.code.spread.astype(np.float64) * (2 * self.steps.half)

    @property
    def centre(self) -> Doubles:
        """``Float64[dim]``."""
        return self.code.centre - self.unit * (self.steps.most / 2)

    @cached_property
    def values(self) -> Floats:
        """The values of the codes, ``Float32[n, dim]``."""
        return self.code.decode(self.codes, self.bits)

    def held(
        self, precisions: Sequence[Floats | None], sizes: tuple[int, ...], is_cosine: bool
    ) -> prefixes.Held:
        """The rows as compiled kernels search them."""
        levels = self.steps.levels
        assert levels is not None
        codes = self.codes if self.codes.strides[1] == 1 else np.ascontiguousarray(self.codes)
        place = cell_values(self.bits), self.code.spread, self.code.centre, levels
        return prefixes.Held(codes, *place, [_rows(each) for each in precisions], sizes, is_cosine)


def nearest_held(
    queries: NDArray[Any],
    grid: Grid,
    precisions: Sequence[Floats | None],
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
        precisions: their values ``Float32[n, dim]``, None for those of the codes. With ``l2`` after the cut,
            codes are of rows of length one. The nearer values are to the grid, the fewer are compared.
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
    small = [dim for dim in dims if not grid.is_sharp and dim < _FEWEST_DIMS]
    large = tuple(dim for dim in dims if dim not in small)
    search = _HeldSearch.prepare(queries, grid, precisions, large, k, rule, workers) if large else None
    if search is None:
        return [plain(queries, grid.values if each is None else each, dims) for each in precisions]
    if likely is not None:
        hints = np.stack([likely[dim].indices for dim in large], axis=1)
        search = replace(search, queries=replace(search.queries, likely=hints))
    rows, scores = search.found()
    answers = []
    for kind, each in enumerate(precisions):
        found = plain(queries, grid.values if each is None else each, small) if small else {}
        for size, dim in enumerate(large):
            indices, similar = rows[:, kind, size].copy(), scores[:, kind, size].astype(np.float32)
            left = np.flatnonzero(indices[:, 0] < 0)
            if len(left):
                again = plain(queries[left], grid.values if each is None else each, [dim])[dim]
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
        precisions: Sequence[Floats | None],
        sizes: tuple[int, ...],
        k: int,
        rule: CutRule,
        workers: int,
    ) -> _HeldSearch | None:
        """None where this search cannot be done, or where another has to name the rows that are wrong."""
        if not prefixes.available():
            return None
        asked = np.ascontiguousarray(queries[:, : sizes[-1]], np.float64)
        is_cosine = rule.after == "l2"
        held = grid.held(precisions, sizes, is_cosine)
        bounds = prefixes.Bounds.room(held, doubts=not grid.is_sharp)
        measured = _measured(held, bounds, grid, workers)
        norms = np.sqrt(prefix_square_norms(asked, sizes))
        if is_cosine and not all(map(_is_usable, [norms, np.array(measured[1:])])):
            return None
        if grid.is_sharp:
            for size, kept in enumerate(sizes):
                if 1 << (grid.bits * kept) <= _CODES_PER_ROW * len(held.codes):
                    bounds.lengths[:, size, _repeated(held.codes[:, :kept], grid.bits, k)] = prefixes.FAR
        coded = _coded(asked, grid, sizes, measured.reach)
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


def _rows(values: Floats | None) -> Floats | None:
    """Rows whose entries are side by side."""
    if values is None or (values.strides[1] == 4 and values.strides[0] > 0):
        return values
    return np.ascontiguousarray(values)


def _is_usable(norms: Doubles) -> bool:
    return bool(norms.min() > SMALLEST_NORM and norms.max() < np.finfo(np.float32).max)


def _measured(held: prefixes.Held, bounds: prefixes.Bounds, grid: Grid, workers: int) -> prefixes.Measured:
    dim = held.sizes[-1]
    place = np.ascontiguousarray(grid.centre[:dim]), np.ascontiguousarray(grid.unit[:dim]), grid.steps.most
    with ThreadPoolExecutor(workers) as pool:
        parts = list(
            pool.map(partial(prefixes.measure, held, bounds, place), even_blocks(len(held.codes), _BLOCK))
        )
    reach, shortest, longest = zip(*parts, strict=True)
    return prefixes.Measured(np.max(reach, axis=0), min(shortest), max(longest))


def _coded(asked: Doubles, grid: Grid, sizes: tuple[int, ...], reach: NDArray[np.int64]) -> prefixes.Queries:
    """Queries in 8 bits; what rounding leaves out is at most the product of two lengths (Cauchy, Schwarz)."""
    dim = sizes[-1]
    centre, unit = grid.centre[:dim], grid.unit[:dim]
    weighted = asked * unit
    step = np.abs(weighted).max(axis=1, keepdims=True) / _LARGEST
    step[step == 0] = 1
    codes = np.rint(weighted / step)
    errors = weighted - step * codes
    middle = grid.steps.most / 2

    def sums(x: Doubles) -> Doubles:
        return np.cumsum([x[:, block].sum(axis=1) for block in prefix_blocks(sizes)], axis=0)

    offset = sums(asked * centre + middle * errors)
    doubt = np.sqrt(prefix_square_norms(errors, sizes) * reach[:, None]) / 2
    largest = np.sqrt(prefix_square_norms(weighted, sizes) * np.array(sizes)[:, None]) * grid.steps.most
    doubt += _SLACK * (largest + sums(np.abs(asked * centre)))
    # A query of zeros has some length, as doubts may be infinite.
    lengths = np.sqrt(prefix_square_norms(asked, sizes)) * (1 + 10 * _SLACK) + _TINY
    if grid.is_sharp:  # what values differ from their levels
        most = np.abs(centre) + unit * grid.steps.most
        doubt += 4 * _SLACK * lengths * np.sqrt(prefix_square_norms(most[None], sizes))
    steps = np.broadcast_to(step[:, 0], offset.shape)
    factors = np.stack([steps, offset + doubt, offset - doubt, lengths], axis=2).swapaxes(0, 1)
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(factors, np.float32)
    return prefixes.Queries(codes.astype(np.int8), asked, single)


def _repeated(codes: Bytes, bits: int, k: int) -> NDArray[np.int64]:
    """Rows that come after ``k`` rows of the same leading bits, so they are never among the ``k`` best."""
    keys = np.zeros(len(codes), np.uint64)
    for column in codes.T:
        keys = keys << np.uint64(bits) | column >> np.uint8(MOST_BITS - bits)
    place = np.sort(keys << np.uint64(32) | np.arange(len(codes), dtype=np.uint64))
    keys = place >> np.uint64(32)
    later = np.flatnonzero(keys[k:] == keys[:-k]) + k
    return (place[later] & np.uint64(0xFFFFFFFF)).astype(np.int64)
