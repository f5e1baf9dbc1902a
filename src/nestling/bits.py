"""Nested scalar codes: every entry in 8 bits, of which the leading ones are a code as well."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.arrays import as_array
from nestling.arguments.formatting import shown
from nestling.axes import CODE_BITS
from nestling.errors import ArtifactError, CalibrationWarning, DataError, GranularityError, PrecisionWarning
from nestling.kernels import planes
from nestling.kernels.planes import layout
from nestling.process.blocks import blocks

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
Array = TypeVar("Array", NDArray[np.floating[Any]], "Tensor")

MOST_BITS = layout.MOST_BITS
FEWEST_ROWS = 256
"""A sample with fewer rows says little of the spread of entries."""
MOST_ROWS = 65_536
"""A calibration reads no more."""
_LARGEST_HALF = 65_504
_SMALLEST_HALF = 2.0**-14
"""Of half precision. Smaller numbers lose digits, and below 3e-8 become 0."""

_ENTRIES_AT_A_TIME = 1 << 22
_OF_UNIT_LENGTH = 2e-3  # a vector of half precision is no further from length 1
_IN_WORDS = {int: "a whole number", str: "text"}

_ROWS_AT_A_TIME = 1024
# In standard deviations. The cells of 4 bits are equal from -_INNER to _INNER, the first and the last open.
# Finer bits divide each cell evenly, the open ones as if they ended at _OUTER. For normally distributed
# entries the mean squared error is 0, 8, 9 and 33 % above that of the best code (Lloyd-Max) of 1, 2, 3 and 4
# bits; a smaller _INNER is better at 2 bits, worse at 4. Integer kernels need evenly spaced values.
_INNER = 2.4
_OUTER = 5.0
_CELLS = 16
_WIDTH = 2 * _INNER / _CELLS
# Times that an open cell is as wide as the others.
_STRETCH = (_OUTER - _INNER) / _WIDTH + 1
_PARTS = 256 // _CELLS


def check_bits(bits: int) -> None:
    """Raise unless a code has so many bits.

    Raises:
        GranularityError: for another number.
    """
    if bits not in CODE_BITS:
        raise GranularityError(
            f"bits={bits} is no precision of a code; give one of {', '.join(map(str, CODE_BITS))}"
        )


@cache
def cell_values(bits: int) -> Floats:
    """The value of every code of ``bits`` bits in standard deviations, ``Float32[2**bits]``.

    Up to 4 bits the values are evenly spaced, with the step of least mean squared error for normally
    distributed entries. At 8 bits each is the mean of its cell.
    """
    edges = np.concatenate([[-np.inf], _edges()[(256 >> bits) - 1 :: 256 >> bits], [np.inf]])
    cumulated = np.array([0.5 * (1 + math.erf(edge / math.sqrt(2))) for edge in edges])
    density = np.exp(-0.5 * edges**2) / math.sqrt(2 * math.pi)
    shares = np.diff(cumulated)
    means = -np.diff(density) / np.maximum(shares, 1e-300)
    if bits > 4:
        return np.asarray(means, np.float32)
    steps = np.arange(1 << bits) + 0.5 - (1 << bits) / 2
    return np.asarray(steps * (shares @ (means * steps)) / (shares @ (steps * steps)), np.float32)


def _edges() -> NDArray[np.float64]:
    """The 255 edges between the cells of 8 bits."""
    warped = np.arange(1, 256) / _PARTS
    first, last = 1 - (1 - warped) * _STRETCH, _CELLS - 1 + (warped - _CELLS + 1) * _STRETCH
    return (np.where(warped < 1, first, np.where(warped > _CELLS - 1, last, warped)) - _CELLS / 2) * _WIDTH


@dataclass(frozen=True, eq=False)
class BitCode:
    """A scalar code of unit vectors (or of vectors as they are), calibrated once on a sample.

    An entry is measured in standard deviations from the mean of its dim, and falls into one of 256 cells,
    whose number is its code. The leading bits of a code are a code of fewer bits, and the leading codes of a
    row are the code of its prefix, so one stored code serves every size and precision.

    Args:
        centre: ``Float32[dim]``, mean of each entry.
        spread: ``Float32[dim]``, standard deviation of each entry; 0 for a constant one.
        full: entries of the vectors that it encodes, of which it may decode only the first ``dim``.
        rows: of the sample.
        encoder: name of the encoder of the sample; "" if unknown.
        before: step before the cut that the sample had, as in :class:`~nestling.cut.CutRule`; a rule with
            another one refuses the code.
        after: likewise, the step after the cut: ``"l2"`` for unit vectors, ``"none"`` for vectors as they
            are.

    Raises:
        DataError: for numbers that are no mean and deviation of each of at most ``full`` entries.

    >>> x = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    >>> code = BitCode.calibrate(x)
    >>> codes = code.encode(x)
    >>> [round(float(np.square(x - code.decode(codes, bits)).mean()), 3) for bits in (1, 2, 4, 8)]
    [0.352, 0.123, 0.012, 0.0]
    """

    centre: Floats
    spread: Floats
    full: int
    rows: int = 0
    encoder: str = ""
    before: str = "none"
    after: str = "l2"

    def __post_init__(self) -> None:
        shapes = {self.centre.shape, self.spread.shape}
        if len(shapes) > 1 or self.centre.ndim != 1 or not 0 < len(self.centre) <= self.full:
            raise DataError(
                f"a code of vectors of {self.full} entries has a centre and a spread for each of its at most "
                f"{self.full} entries, not of shapes {self.centre.shape} and {self.spread.shape}"
            )
        if not (np.isfinite(self.centre).all() and np.isfinite(self.spread).all() and self.spread.min() >= 0):
            raise DataError(
                "the centre of a code holds finite numbers and its spread finite ones of at least 0; "
                "calibrate it again"
            )

    @classmethod
    def calibrate(
        cls, sample: ArrayLike, *, encoder: str = "", before: str = "none", after: str | None = None
    ) -> Self:
        """Mean and standard deviation of each entry of a sample of the vectors that will be encoded.

        Args:
            sample: ``Float[n, dim]``, whole vectors, of unit length where the cut rule says so; of more than
                65,536 rows some are taken at even distances.
            encoder: name of the encoder of the sample.
            before: step before the cut that the sample had.
            after: step after the cut that it had; by default ``"l2"`` if all its vectors are of unit length.

        Raises:
            DataError: for a sample of another shape or type, or with NaN or infinity.

        Warns:
            CalibrationWarning: for fewer than 256 rows.
        """
        x = as_array(sample, "the sample")
        if x.ndim != 2 or 0 in x.shape:
            raise DataError(f"a code is calibrated on a matrix of one vector per row, not on shape {x.shape}")
        if x.dtype.kind not in "fiu":
            raise DataError(f"a code is calibrated on real numbers, not {x.dtype}; convert them to float32")
        x = x[:: -(-len(x) // MOST_ROWS)]
        parts = [x[rows] for rows in blocks(len(x), _ROWS_AT_A_TIME)]
        mean = np.sum([part.sum(axis=0, dtype=np.float64) for part in parts], axis=0) / len(x)
        if not np.isfinite(mean).all():
            raise DataError("the sample of a calibration holds NaN or infinity; remove or repair those rows")
        if len(x) < FEWEST_ROWS:
            warnings.warn(
                f"the code is calibrated on {len(x)} vectors; give at least {FEWEST_ROWS} of the kind that "
                "will be stored, or ranges will not fit",
                CalibrationWarning,
                stacklevel=2,
            )
        apart = (part - mean for part in parts)  # block by block, as float64 of all takes long to write
        variance = np.sum([np.einsum("ij,ij->j", each, each) for each in apart], axis=0) / len(x)
        spread = np.where((x == x[0]).all(axis=0), 0, np.sqrt(variance))
        if after is None:
            lengths = np.sqrt(np.concatenate([np.einsum("ij,ij->i", part, part) for part in parts]))
            after = "l2" if np.allclose(lengths, 1, atol=_OF_UNIT_LENGTH) else "none"
        arrays = mean.astype(np.float32), spread.astype(np.float32)
        return cls(*arrays, x.shape[1], len(x), encoder, before, after)

    @property
    def dim(self) -> int:
        """Entries that it decodes."""
        return len(self.centre)

    def cut(self, dim: int) -> BitCode:
        """The code of the leading entries: it encodes whole vectors still, and decodes ``dim`` entries."""
        return replace(self, centre=self.centre[:dim], spread=self.spread[:dim])

    def encode(self, x: NDArray[np.floating[Any]]) -> Codes:
        """The 8-bit codes of vectors, ``UInt8[n, dim]``; values beyond the range fall into the last cells.

        Raises:
            DataError: for vectors of another size than those of the calibration.
        """
        self.check_size(x.shape[-1])
        rows = x.reshape(-1, self.full).astype(np.float32, copy=False)
        return planes.encode(rows, self._cells).reshape(*x.shape[:-1], self.dim)

    @cached_property
    def _cells(self) -> layout.Cells:
        inverse = np.divide(1 / _WIDTH, self.spread, out=np.zeros_like(self.spread), where=self.spread > 0)
        return layout.Cells(self.centre, inverse, _CELLS / 2, _CELLS - 1, 1 / _STRETCH, _PARTS)

    def decode(self, codes: Codes, bits: int = MOST_BITS, *, out: Floats | None = None) -> Floats:
        """The values ``Float32[n, m]`` of the leading ``bits`` of 8-bit codes ``UInt8[n, m]``.

        Args:
            codes: of whole rows or of their leading entries.
            bits: 1, 2, 3, 4 or 8.
            out: ``Float32[n, m]``, contiguous, where the values go; new memory by default.

        Raises:
            DataError: for codes of more entries than the calibration had.
        """
        check_bits(bits)
        dim = codes.shape[-1]
        if dim > self.dim:
            raise DataError(f"the code holds {self.dim} entries, and {dim} are given; cut the codes first")
        rows, arrays = codes.reshape(-1, dim), (self.spread[:dim], self.centre[:dim])
        return planes.decode(rows, cell_values(bits), *arrays, out).reshape(codes.shape)

    def rounded(self, x: Array, bits: int) -> Array:
        """Vectors as codes of ``bits`` bits hold them; the gradient of a tensor passes straight through."""
        if isinstance(x, np.ndarray):
            return self.decode(self.encode(x), bits)
        import torch

        centre, spread = (torch.from_numpy(each).to(x.device) for each in (self.centre, self.spread))
        self.check_size(x.shape[-1])
        part = x[..., : self.dim]
        held = decode_tensor(encode_tensor(part.detach(), centre, spread), bits, centre, spread).to(x)
        return held + (part - part.detach())

    def to_json(self) -> dict[str, Any]:
        """The code as saved in a manifest; float32 numbers survive as they are."""
        numbers = {name: [float(str(each)) for each in getattr(self, name)] for name in ("centre", "spread")}
        steps = {"before": self.before, "after": self.after}
        return {**numbers, "full": self.full, "rows": self.rows, "encoder": self.encoder, **steps}

    @classmethod
    def from_json(cls, saved: Any) -> Self:
        """Read what :meth:`to_json` gave.

        Raises:
            ArtifactError: for anything else.
        """
        if not isinstance(saved, Mapping):
            raise ArtifactError(f"a code is saved as an object, not as {shown(saved)}")
        kinds = {"full": int, "rows": int, "encoder": str, "before": str, "after": str}
        if set(saved) != {"centre", "spread", *kinds}:
            raise ArtifactError(
                f"a code is saved as centre, spread, {', '.join(kinds)}, not as {', '.join(map(str, saved))}"
            )
        for name, kind in kinds.items():
            if type(saved[name]) is not kind:
                raise ArtifactError(f"{name} of a code is {_IN_WORDS[kind]}, not {shown(saved[name])}")
        try:
            arrays = {name: np.array(saved[name], np.float32) for name in ("centre", "spread")}
            return cls(**{**saved, **arrays})
        except (TypeError, ValueError, OverflowError, DataError) as error:
            raise ArtifactError(f"the numbers of a code are not its own: {error}") from error

    def check_size(self, dim: int) -> None:
        """Raise unless it encodes vectors of ``dim`` entries.

        Raises:
            DataError: if they have another size.
        """
        if dim != self.full:
            raise DataError(
                f"the code was calibrated for vectors of {self.full} entries, not {dim}; encode whole "
                "vectors and cut their codes, or calibrate on these"
            )

    def _key(self) -> tuple[Any, ...]:
        return (self.centre.tobytes(), self.spread.tobytes(), self.full)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BitCode) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"BitCode(dim={self.dim}, full={self.full}, rows={self.rows}, encoder={self.encoder!r})"


def encode_tensor(x: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
    """The 8-bit codes of a tensor, ``UInt8[..., dim]``: those of :meth:`BitCode.encode` to the last bit.

    Args:
        x: ``Float[..., dim]``; of half precision it is measured in float32.
        centre: ``Float32[dim]``.
        spread: ``Float32[dim]``.
    """
    import torch

    inverse = torch.where(spread > 0, torch.full_like(spread, 1 / _WIDTH) / spread, 0)
    last, shrink = _CELLS - 1, 1 / _STRETCH
    place = (x - centre) * inverse + _CELLS / 2
    place = torch.where(place < 1, 1 - (1 - place) * shrink, place)
    place = torch.where(place > last, last + (place - last) * shrink, place)
    return (place * _PARTS).clamp(0, 255).to(torch.uint8)


def decode_tensor(codes: Tensor, bits: int, centre: Tensor, spread: Tensor) -> Tensor:
    """The values ``Float32[..., dim]`` of the leading ``bits`` of such codes; see :meth:`BitCode.decode`."""
    import torch

    check_bits(bits)
    table = torch.from_numpy(cell_values(bits)).to(codes.device)
    return table[(codes >> (MOST_BITS - bits)).int()] * spread + centre


def halved(x: NDArray[np.floating[Any]]) -> NDArray[np.float16]:
    """Vectors ``Float[n, dim]`` in half precision.

    Raises:
        DataError: for values beyond 65,504.

    Warns:
        PrecisionWarning: for rows whose largest value is below 6.1e-05.
    """
    if x.dtype != np.float16:
        check_halves(x)
    return x.astype(np.float16)


def halved_tensor(x: Tensor) -> Tensor:
    """A tensor as half precision holds it; its gradient passes straight through.

    Raises:
        DataError: for values beyond 65,504.
    """
    plain = x.detach()
    if float(plain.abs().max()) > _LARGEST_HALF:
        raise _too_large()
    return x + (plain.half().to(x) - plain)


def check_halves(x: NDArray[np.floating[Any]]) -> None:
    """Refuse vectors that half precision cannot hold; see :func:`halved`. Memory maps are read in blocks."""
    rows = x.reshape(-1, x.shape[-1])
    for some in blocks(len(rows), max(1, _ENTRIES_AT_A_TIME // x.shape[-1])):
        largest = np.abs(rows[some]).max(axis=1)
        if (largest > _LARGEST_HALF).any():
            raise _too_large()
        if ((largest > 0) & (largest < _SMALLEST_HALF)).any():
            warnings.warn(
                f"some vectors hold only values below {_SMALLEST_HALF:.2g}, of which half precision keeps "
                "few digits or none; multiply all by a constant, keep 32 bits, or normalise them",
                PrecisionWarning,
                stacklevel=3,
            )


def _too_large() -> DataError:
    return DataError(
        f"the vectors hold values beyond {_LARGEST_HALF:,}, the largest of half precision; divide all by a "
        "constant, keep 32 bits, or normalise them"
    )
