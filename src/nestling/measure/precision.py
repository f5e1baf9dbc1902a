"""The vectors of a task at every precision, from one encoding: stored ones in codes, others in floats."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.axes import CODE_BITS, FLOAT_BITS, read_bits
from nestling.bits import MOST_ROWS, BitCode, Codes
from nestling.cut import RAW, CutRule, cut
from nestling.errors import CalibrationWarning, ConfigError
from nestling.granularity import Nesting
from nestling.kernels.planes.layout import stride_of
from nestling.measure.tasks.tasks import Task, is_relative

Matrix = NDArray[np.floating[Any]]
Bits: TypeAlias = int | Iterable[int] | str | None
"""Precisions of a sweep, or their text; ``"default"`` is 1, 2, 4, 8, 32; None and 32 are floats alone."""

DEFAULT_BITS = (1, 2, 4, 8, 32)
_FLOATS = max(FLOAT_BITS)


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
        matrices: ``Float[n, dim]`` by input, whole vectors before the rule.
        rule: steps around a cut, with a code if one is known.
        stored: the inputs that a code is calibrated on, unless one is known.
        coded: the inputs that are held in codes.
    """

    matrices: Mapping[str, Matrix]
    rule: CutRule
    stored: Collection[str]
    coded: Collection[str]

    def at(self, bits: int) -> dict[str, Matrix]:
        """The vectors as they are held at a precision, after what the rule does before a cut."""
        held: dict[int, Matrix] = {}
        for name in self.coded:
            key = id(self.matrices[name])  # two inputs can be the same vectors
            if key not in held:
                held[key] = self._held(name, bits)
        return {
            name: held[id(x)] if name in self.coded else self._prepared[name]
            for name, x in self.matrices.items()
        }

    def _held(self, name: str, bits: int) -> Matrix:
        if bits in CODE_BITS:
            return self._code.decode(self._codes[id(self.matrices[name])], bits)
        x = self._prepared[name]
        return x if bits == 32 else cut(self._whole(x), x.shape[1], RAW, bits=bits)

    @cached_property
    def _prepared(self) -> dict[str, Matrix]:
        if self.rule.before == "none":
            return dict(self.matrices)
        before = CutRule(self.rule.before, "none")
        return {name: cut(_single(x), x.shape[1], before) for name, x in self.matrices.items()}

    @cached_property
    def _codes(self) -> dict[int, Codes]:
        different = {id(self.matrices[name]): self._prepared[name] for name in self.coded}
        return {key: self._code.encode(self._whole(x)) for key, x in different.items()}

    @cached_property
    def _code(self) -> BitCode:
        width = next(iter(self.matrices.values())).shape[1]
        if self.rule.code is not None and self.rule.code.full == width:
            return self.rule.code
        some = [x[:: -(-len(x) // MOST_ROWS)] for x in (self._prepared[name] for name in self.stored)]
        with warnings.catch_warnings():
            # A small sample says little of other vectors, but these are all that will be encoded.
            warnings.simplefilter("ignore", CalibrationWarning)
            return BitCode.calibrate(self._whole(np.concatenate(some)))

    def _whole(self, x: Matrix) -> Matrix:
        """Vectors as a code is made of them."""
        return cut(_single(x), x.shape[1], self.rule.again.without_code)


def _single(x: Matrix) -> Matrix:
    return x.astype(np.result_type(x, np.float32), copy=False)
