"""The only slicer of embeddings: the rule before the cut, the cut, and the rule after it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.arrays import as_array
from nestling.arguments.constraints import OneOf, checked
from nestling.arguments.formatting import shown
from nestling.axes import size_of
from nestling.bits import BitCode, Codes, halved, halved_tensor
from nestling.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    UntrainedGranularityWarning,
    named,
)
from nestling.granularity import Nesting
from nestling.process.blocks import blocks

if TYPE_CHECKING:
    from torch import Tensor

Before = Literal["none", "layer_norm"]
After = Literal["none", "l2"]
Array = TypeVar("Array", NDArray[np.floating[Any]], "Tensor")

_LAYER_NORM_EPSILON = 1e-5
_ENTRIES_AT_A_TIME = 1 << 24
SMALLEST_NORM = 1e-12
"""Shorter rows have no direction that could be trusted."""


@dataclass(frozen=True)
@checked(before=OneOf(get_args(Before)), after=OneOf(get_args(After)))
class CutRule:
    """The steps around a cut: ``layer_norm`` over all entries before it, ``l2`` normalisation after it.

    The rule is data: it travels with models, vectors and indexes in their manifests, so that a prefix
    is always compared as it was trained. The default suits cosine similarity.

    Args:
        before: step before a cut: ``"none"`` or ``"layer_norm"``.
        after: step after a cut: ``"none"`` or ``"l2"``.
        code: code of entries in few bits (:meth:`calibrated`); None if they are floats only.

    Raises:
        ConfigError: for steps that there are not.
        DataError: for a code that was calibrated under another rule, or on vectors that are all equal.

    >>> CutRule(after="l3")
    Traceback (most recent call last):
        ...
    nestling.errors.ConfigError: after='l3' must be one of none, l2; did you mean 'l2'?
    """

    before: Before = "none"
    after: After = "l2"
    code: BitCode | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        code = self.code
        if code is None:
            return
        if (code.before, code.after) != (self.before, self.after):
            raise DataError(
                f"the code was calibrated for another rule ({CutRule(code.before, code.after).words}) than "  # type: ignore[arg-type]
                f"this one ({self.words}), whose vectors it does not fit; calibrate under this rule: "
                "rule.calibrated(sample)"
            )
        if code.dim == code.full and not code.spread.any():
            raise DataError(
                f"the code was calibrated on {code.rows or 'some'} vectors that are all equal, so all "
                "vectors would have the same code; calibrate on others of the kind that will be stored"
            )

    @property
    def again(self) -> CutRule:
        """The rule for cutting the result again: the step before a cut is done once, at full size."""
        return replace(self, before="none", code=self.code and replace(self.code, before="none"))

    def named(self, encoder: str) -> CutRule:
        """The rule, whose code carries the name of its encoder."""
        return replace(self, code=self.code and replace(self.code, encoder=encoder))

    @property
    def without_code(self) -> CutRule:
        """The rule for floats alone."""
        return replace(self, code=None)

    def of_encoder(self, dim: int) -> CutRule:
        """The rule of an encoder that gives ``dim`` entries: a code is kept only if it fits them."""
        is_fitting = self.code is not None and self.code.full == dim
        return self.again if is_fitting else self.again.without_code

    def calibrated(self, sample: Any, *, encoder: str = "") -> CutRule:
        """The rule with a code for vectors such as ``sample``.

        Args:
            sample: ``Float[n, dim]``, whole vectors before the rule; see :meth:`BitCode.calibrate`.
            encoder: name of the encoder of the sample.
        """
        whole = CutRule(self.before, self.after)
        x = check_vectors(sample, "the sample")
        steps = {"before": self.before, "after": self.after}
        code = BitCode.calibrate(cut(x, x.shape[1], whole), encoder=encoder, **steps)
        return replace(self, code=code)

    @property
    def words(self) -> str:
        """The rule in words.

        >>> CutRule("layer_norm").words, RAW.words
        ('layer_norm before the cut, l2 after it', 'the cut alone')
        """
        before = f"{self.before} before the cut" if self.before != "none" else ""
        after = f"{self.after} after {'it' if before else 'the cut'}" if self.after != "none" else ""
        return ", ".join(filter(None, (before, after))) or "the cut alone"

    @property
    def needed_code(self) -> BitCode:
        """The code.

        Raises:
            DataError: if the rule has none.
        """
        if self.code is None:
            raise DataError(
                "few bits need a code, and this rule has none; calibrate it on a sample of the vectors: "
                "rule.calibrated(sample), or stored.calibrated()"
            )
        return self.code

    def encode(self, x: NDArray[np.floating[Any]], dim: int | None = None) -> Codes:
        """The 8-bit codes ``UInt8[n, dim]`` of whole vectors ``Float[n, full]``, or of their leading entries.

        Raises:
            DataError: for a rule without a code, or vectors of another size.
        """
        code = self.needed_code
        return code.encode(cut(x, x.shape[-1], CutRule(self.before, self.after)))[..., :dim]

    def to_json(self) -> dict[str, Any]:
        """The rule as saved in a manifest."""
        code = {} if self.code is None else {"code": self.code.to_json()}
        return {"before": self.before, "after": self.after, **code}

    @classmethod
    def from_json(cls, saved: Any) -> Self:
        """Read what :meth:`to_json` gave.

        Raises:
            ArtifactError: for anything else.
        """
        if not isinstance(saved, Mapping) or set(saved) - {"before", "after", "code"}:
            raise ArtifactError(f"a cut rule is saved as before, after and code, not as {shown(saved)}")
        code = saved.get("code")
        try:
            return cls(**{**saved, "code": None if code is None else BitCode.from_json(code)})
        except (ConfigError, DataError) as error:
            raise ArtifactError(f"the cut rule is not one that was saved: {error}") from error


RAW = CutRule(after="none")
"""Plain slicing: for features whose length carries meaning, such as those under a classifier."""


def cut(
    x: Array, dim: int, rule: CutRule = CutRule(), *, bits: int = 32, trained: Nesting | None = None
) -> Array:
    """The leading ``dim`` entries of every row of ``x``, prepared and normalised by ``rule``.

    Args:
        x: embeddings, ``Float[..., "full"]``, numpy or torch; never changed.
        dim: entries to keep, 1 to ``full``.
        rule: the steps before and after the cut.
        bits: of every entry: the values become those that a code of so many bits holds (1, 2, 3, 4, 8; the
            rule has to be calibrated) or half precision (16), both of whole vectors, of unit length under
            ``l2``. 32 leaves the entries as they are.
        trained: the sizes the model was trained for; another ``dim`` then warns.

    Returns:
        ``Float[..., "dim"]`` of the type given. A torch row of length zero stays zero under ``l2``.

    Raises:
        DataError: if ``dim`` does not fit ``x``; (numpy) if a row of length zero or with NaN or infinity
            would have to be normalised, and the rows are named; for few bits under a rule without a code;
            or for values that half precision cannot hold.

    Warns:
        PrecisionWarning: (numpy) for rows of which half precision keeps few digits.

    >>> cut(np.array([[3.0, 4.0, 12.0]]), 2)
    array([[0.6, 0.8]])
    """
    return cut_each(x, (dim,), rule, bits=bits, trained=trained)[dim]


def cut_each(
    x: Array,
    dims: Iterable[int],
    rule: CutRule = CutRule(),
    *,
    bits: int = 32,
    trained: Nesting | None = None,
) -> dict[int, Array]:
    """``cut`` at several sizes; the work before the cut is done once.

    Where nothing is to be done, the prefixes are views of ``x``.
    """
    if not hasattr(x, "shape"):
        x = as_array(x, "embeddings")  # type: ignore[assignment]
    full = x.shape[-1]
    wanted = list(dims)
    for dim in wanted:
        if not 1 <= dim <= full:
            raise DataError(f"cannot keep {dim} of {full} dims; choose 1 to {full}")
    if trained is not None:
        _warn_untrained(wanted, trained.sizes("dim"))
    if rule.before == "layer_norm":
        x = _layer_norm(x)
    if size_of("bits", bits) < 32:
        x = _rounded(x, bits, rule)
    prefixes = {dim: x[..., :dim] for dim in wanted}
    if rule.after == "l2":
        return {dim: _normalise(prefix) for dim, prefix in prefixes.items()}
    return prefixes


def _rounded(x: Array, bits: int, rule: CutRule) -> Array:
    """``x`` as so many bits hold it. Codes are made of whole vectors, so codes of prefixes are prefixes."""
    whole = _normalise(x) if rule.after == "l2" else x
    if bits != 16:
        return rule.needed_code.rounded(whole, bits)
    if isinstance(whole, np.ndarray):
        return halved(whole).astype(np.result_type(whole, np.float32))
    return halved_tensor(whole)


def prefix_blocks(dims: Sequence[int]) -> list[slice]:
    """The blocks of coordinates between consecutive sizes; a prefix consists of the first blocks."""
    return [slice(start, end) for start, end in pairwise((0, *dims))]


def _warn_untrained(dims: Sequence[int], trained: tuple[int, ...]) -> None:
    untrained = [dim for dim in dims if dim not in trained]
    if untrained:
        warnings.warn(
            f"dim {', '.join(map(str, untrained))} was not trained; expect a quality between that of its "
            f"trained neighbours among {', '.join(map(str, trained))}",
            UntrainedGranularityWarning,
            stacklevel=4,
        )


def _layer_norm(x: Array) -> Array:
    if isinstance(x, np.ndarray):
        centred = x - x.mean(axis=-1, keepdims=True)
        centred[np.ptp(x, axis=-1) == 0] = 0  # equal entries differ from their mean by rounding alone
        deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + _LAYER_NORM_EPSILON)
        normed: Array = centred / deviation
        return normed
    import torch

    return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=_LAYER_NORM_EPSILON)


def _normalise(x: Array) -> Array:
    if not isinstance(x, np.ndarray):
        import torch

        return torch.nn.functional.normalize(x, dim=-1, eps=SMALLEST_NORM)
    whole = x.dtype.kind in "iu"
    wide = x.astype(np.float32) if whole or x.dtype == np.float16 else x
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    bad = ~(np.isfinite(norms) & (norms > SMALLEST_NORM))
    if bad.any():
        raise without_direction(wide.reshape(-1, x.shape[-1]), np.flatnonzero(bad))
    unit: Array = (wide / norms).astype(wide.dtype if whole else x.dtype, copy=False)
    return unit


def without_direction(
    x: NDArray[Any], rows: NDArray[np.int64], of: str = "", first_row: int = 0
) -> DataError:
    """The error for rows that cannot be normalised: zero, too small, too large, NaN or infinite.

    Args:
        x: ``Float[rows, dim]``, the prefixes.
        rows: the numbers of those among them.
        of: put after the rows in the error, such as ``" of queries"``.
        first_row: the number of the first row of ``x``.
    """
    largest = np.abs(x[rows]).max(axis=1)
    advice = "remove those rows, or start at a larger size"
    if (largest == 0).any():
        rows, wrong = rows[largest == 0], "are all zero"
    elif not np.isfinite(largest).all():
        rows, wrong = rows[~np.isfinite(largest)], "are NaN or infinite"
    elif (largest <= SMALLEST_NORM).any():
        rows, wrong = rows[largest <= SMALLEST_NORM], f"are shorter than {SMALLEST_NORM:g}, as good as zero,"
        advice = "remove those rows, or multiply all vectors by a constant if they are meant"
    else:
        wrong = "are so large that their squares do not fit float32"
        advice = "remove those rows, or divide all vectors by a constant"
    named = name_rows(rows + first_row)
    return DataError(
        f"the first {x.shape[1]} entries of {named}{of} {wrong} and cannot be normalised; {advice}"
    )


def name_rows(rows: Sequence[int] | NDArray[np.integer[Any]], then: str = "") -> str:
    """Rows named for a message: ``row 3``, or ``12 rows (3, 4, 5, 9, 11, ...)``.

    Args:
        rows: their numbers.
        then: the words after them, up to the verb; see :func:`~nestling.errors.named`.
    """
    return named("row", [str(int(row)) for row in rows[:6]], len(rows), then)


def check_vectors(x: Any, what: str = "vectors", *, dim: int | None = None) -> NDArray[np.floating[Any]]:
    """``x`` as a finite float matrix ``Float["n dim"]``, or an error with the reason.

    Memory maps pass through without being copied; they are checked block by block. Tensors, nested lists
    and columns of tables are taken as :func:`~nestling.arguments.arrays.as_array` says.

    Raises:
        DataError: for another shape or type, no rows, rows of several lengths, or rows with NaN or infinity
            (named).
    """
    array = as_array(x, what)
    if array.dtype.itemsize == 1 and array.dtype.kind in "iu":
        raise DataError(
            f"{what} are {array.dtype}, as codes are; decode them with nestling.vectors.formats.from_format, "
            "or convert them to float32 if the numbers are meant"
        )
    if array.dtype.kind in "iu":
        array = array.astype(np.float32)
    if array.dtype.kind != "f":
        raise DataError(f"{what} must be floats, not {array.dtype}; convert them to float32 first")
    if array.ndim != 2:
        hint = "; write [vector] for a single one" if array.ndim == 1 else ""
        raise DataError(f"{what} must be a matrix of one row each, not of shape {array.shape}{hint}")
    if 0 in array.shape:
        raise DataError(f"{what} are empty (shape {array.shape}); give at least one row and one entry")
    if dim is not None and array.shape[1] != dim:
        raise DataError(f"{what} have {array.shape[1]} entries a row, but {dim} are expected")
    for rows in _blocks_of(array):
        finite = np.isfinite(array[rows]).all(axis=1)
        if not finite.all():
            raise DataError(
                f"{what} hold NaN or infinity in {name_rows(np.flatnonzero(~finite) + rows.start)}; "
                "remove or repair those rows"
            )
    return array


def zero_rows(x: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """The rows of ``x`` that are all zero and so have no direction; memory maps are read in blocks."""
    return np.concatenate([np.flatnonzero(~x[rows].any(axis=1)) + rows.start for rows in _blocks_of(x)])


def _blocks_of(x: NDArray[Any]) -> list[slice]:
    return blocks(len(x), max(1, _ENTRIES_AT_A_TIME // x.shape[1]))
