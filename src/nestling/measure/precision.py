"""The vectors of a task at every precision, from one encoding: stored ones in codes, others in floats."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.axes import CODE_BITS, FLOAT_BITS, read_bits
from nestling.bits import MOST_BITS, MOST_ROWS, BitCode, Codes
from nestling.cut import RAW, CutRule, cut
from nestling.errors import CalibrationWarning, ConfigError, DataError
from nestling.granularity import Nesting
from nestling.kernels import prefixes
from nestling.kernels.planes.layout import stride_of
from nestling.measure.tasks.tasks import Task, is_relative
from nestling.process.blocks import blocks
from nestling.search.certified.held import Grid, nearest_held
from nestling.search.exact.neighbours import Neighbours, nearest_each
from nestling.vectors.token_vectors import TokenVectors, grouped_as, rows_of

Matrix = NDArray[np.floating[Any]]
Bits: TypeAlias = int | Iterable[int] | str | None
"""Precisions of a sweep, or their text; ``"default"`` is 1, 2, 4, 8, 32; None and 32 are floats alone."""

DEFAULT_BITS = (1, 2, 4, 8, 32)
_FLOATS = max(FLOAT_BITS)
_ROWS_AT_A_TIME = 1024
# Queries times sizes from which on codes of floats save more time than they take.
_FEWEST_PRODUCTS = 500


def with_precisions(nesting: Nesting, bits: Bits, task: Task, *, is_given: bool) -> Nesting:
    """The granularities of a sweep with their precisions.

    Args:
        nesting: without precisions, unless it names them itself.
        bits: see :func:`~nestling.measure.sweep.sweep`.
        task: the evaluation task.
        is_given: whether the caller named the nesting.

    Raises:
        ConfigError: for precisions that are named twice, or of a task that stores no vectors.
        GranularityError: for bits that no precision has.
    """
    if isinstance(bits, str) and bits == "default":
        stores = task.needs == "vectors" and not is_relative(task)
        if "bits" in nesting.axes or is_given or not stores:
            return nesting
        return nesting.times(bits=DEFAULT_BITS)
    wanted = {_FLOATS} if bits is None else set(read_bits(bits))
    if is_given and "bits" in nesting.axes:
        raise ConfigError(f"the nesting {nesting} names precisions, and bits= too; leave one of them out")
    full = nesting.full.get("bits", _FLOATS)
    if "bits" in nesting.axes:
        nesting = nesting.without("bits")
    if wanted == {full}:
        return nesting
    if task.needs != "vectors":
        raise ConfigError(f"{task.name} stores no vectors, so it has no precisions; leave out bits=")
    return nesting.times(bits=sorted({*wanted, full}))


def bytes_of(bits: int, dim: int, in_floats: int) -> int:
    """Bytes of one vector.

    Args:
        bits: of each entry.
        dim: entries.
        in_floats: bytes of one at full precision.
    """
    return stride_of(dim) * bits if bits in CODE_BITS else in_floats * bits // _FLOATS


@dataclass(frozen=True, eq=False)
class Encoded:
    """One encoding of a task's inputs, of which some are held in codes.

    Args:
        given: ``Float[n, dim]``, or vectors of tokens, by input: whole vectors before the rule.
        rule: steps around a cut, with a code if one is known.
        stored: the inputs that a code is calibrated on, unless one is known.
        coded: the inputs that are held in codes.
    """

    given: Mapping[str, Matrix | TokenVectors]
    rule: CutRule
    stored: Collection[str]
    coded: Collection[str]

    @property
    def width(self) -> int:
        """Entries of a vector."""
        return int(next(iter(self.matrices.values())).shape[1])

    def at(self, bits: int) -> dict[str, Any]:
        """The vectors as they are held at a precision, after what the rule does before a cut."""
        held: dict[int, Matrix] = {}
        for name in self.coded:
            key = id(self.matrices[name])  # two inputs can be the same vectors
            if key not in held:
                held[key] = self._held(name, bits)
        return {
            name: grouped_as(x, held[id(self.matrices[name])] if name in self.coded else self._prepared[name])
            for name, x in self.given.items()
        }

    @cached_property
    def matrices(self) -> dict[str, Matrix]:
        """All vectors of each input, ``Float[n, dim]``."""
        return {name: rows_of(x) for name, x in self.given.items()}

    def nearest(
        self, queries: str, stored: str, dims: Mapping[int, Sequence[int]], k: int
    ) -> dict[int, list[Neighbours]] | None:
        """The nearest stored vectors of each query, by bits at some sizes; exact.

        All precisions are searched by products of small integers, which are shared by those that are near to
        each other. None for several vectors an item, without compiled kernels, where making codes would take
        longer than a search of floats, and where vectors are wrong, which that search names.

        Args:
            queries: the name of an input.
            stored: the name of a coded input.
            dims: increasing sizes of each precision.
            k: how many.
        """
        if isinstance(self.given[stored], TokenVectors):
            return None
        is_single = self._prepared[stored].dtype == np.float32
        if not prefixes.available() or not self._pays(queries, dims, is_single):
            return None
        fine = [bits for bits in dims if bits == MOST_BITS or (bits > MOST_BITS and is_single)]
        coarse = sorted((bits for bits in dims if bits < MOST_BITS), reverse=True)
        together = [fine] if queries not in self.coded else [[bits] for bits in fine]
        sizes = sorted(set().union(*dims.values()))
        found: dict[int, dict[int, Neighbours]] = {}
        rule = self.rule.again.without_code
        # What one precision finds is near the best of the next. The first has no hint, so it has few bits.
        for group in filter(None, [coarse[:1], *together, *([bits] for bits in coarse[1:])]):
            bits = min(group[0], MOST_BITS)
            each = nearest_held(
                self.at(group[0])[queries] if queries in self.coded else self._prepared[queries],
                Grid(self._code, self._codes[id(self.matrices[stored])], bits),
                [None if bits in CODE_BITS else self._held(stored, bits) for bits in group],
                sizes,
                k,
                rule=rule,
                likely=next(reversed(found.values()), None),
            )
            found |= dict(zip(group, each, strict=True))
        for bits in set(dims).difference(found):
            at = self.at(bits)
            found[bits] = nearest_each(at[queries], at[stored], sizes, k, rule=rule)
        return {bits: [found[bits][dim] for dim in wanted] for bits, wanted in dims.items()}

    def _pays(self, queries: str, dims: Mapping[int, Sequence[int]], is_single: bool) -> bool:
        """Whether there are codes anyway, or enough products for codes of floats to be worth making."""
        if any(bits in CODE_BITS for bits in dims):
            return True
        sizes = max(map(len, dims.values()))
        if not is_single or sizes == 1 or sizes * len(self.matrices[queries]) < _FEWEST_PRODUCTS:
            return False
        try:
            return bool(self._codes)
        except DataError:
            return False

    def _held(self, name: str, bits: int) -> Matrix:
        if bits in CODE_BITS:
            return self._code.decode(self._codes[id(self.matrices[name])], bits)
        x = self._prepared[name]
        return x if bits == 32 else cut(self._unit(name), x.shape[1], RAW, bits=bits)

    @cached_property
    def _prepared(self) -> dict[str, Matrix]:
        if self.rule.before == "none":
            return dict(self.matrices)
        before = CutRule(self.rule.before, "none")
        return {name: cut(_single(x), x.shape[1], before) for name, x in self.matrices.items()}

    @cached_property
    def _codes(self) -> dict[int, Codes]:
        different = {id(self.matrices[name]): name for name in self.coded}
        return {key: self._coded(name) for key, name in different.items()}

    def _coded(self, name: str) -> Codes:
        """The codes of an input; some rows at a time, as new memory for all unit vectors takes long."""
        code, rows = self._code, len(self.matrices[name])
        codes = np.empty((rows, code.dim), np.uint8)
        for some in blocks(rows, _ROWS_AT_A_TIME):
            codes[some] = code.encode(self._unit(name, some))
        return codes

    @cached_property
    def _code(self) -> BitCode:
        if self.rule.code is not None and self.rule.code.full == self.width:
            return self.rule.code
        steps = ((name, -(-len(self.matrices[name]) // MOST_ROWS)) for name in self.stored)
        samples = [self._unit(name, slice(None, None, step)) for name, step in steps]
        with warnings.catch_warnings():
            # A small sample says little of other vectors, but these are all that will be encoded.
            warnings.simplefilter("ignore", CalibrationWarning)
            return BitCode.calibrate(samples[0] if len(samples) == 1 else np.concatenate(samples))

    def _unit(self, name: str, rows: slice = slice(None)) -> Matrix:
        """Vectors of an input as a code is made of them."""
        x, rule = self._prepared[name], self.rule.again.without_code
        try:
            return cut(_single(x[rows]), x.shape[1], rule)
        except DataError:
            cut(_single(x), x.shape[1], rule)  # names the rows by their own numbers
            raise


def _single(x: Matrix) -> Matrix:
    return x.astype(np.result_type(x, np.float32), copy=False)
