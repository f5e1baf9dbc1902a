"""Arrays, tensors, lists and columns of tables as numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.formatting import type_of
from nestling.errors import DataError

_NARROW = ("bfloat16", "float8")  # floats that numpy does not know


def as_array(given: Any, what: str = "values") -> NDArray[Any]:
    """``given`` as a numpy array; numpy's own arrays and memory maps pass through.

    Tensors are taken from any device, with or without gradients; floats that numpy does not know, such
    as bfloat16, become float32. Lists may be nested, and their rows may be arrays or tensors, as in a
    column of a data frame. A masked or missing number becomes NaN. Nothing imports torch.

    Args:
        given: numbers or strings.
        what: their name in errors.

    Raises:
        DataError: for rows of several lengths, or entries that are neither numbers nor strings (the first
            such row is named), and for sparse arrays.
    """
    if hasattr(given, "detach"):
        return _of_tensor(given, what)
    if hasattr(given, "tocsr"):
        raise DataError(f"{what} are sparse; make them dense first with .toarray()")
    if isinstance(given, np.ma.MaskedArray) and given.mask.any():
        return np.asarray(np.where(given.mask, np.nan, given.data))
    if not isinstance(given, np.ndarray):
        given = _listed(given, what)
    if given.dtype.kind == "V" and given.dtype.name.startswith(_NARROW):
        return np.asarray(given.astype(np.float32))
    return _plain(given, what) if given.dtype.kind == "O" else given


def _of_tensor(tensor: Any, what: str) -> NDArray[Any]:
    plain = tensor.detach()
    try:
        plain = plain.cpu()
        if str(plain.dtype).removeprefix("torch.").startswith(_NARROW):
            plain = plain.float()
        return np.asarray(plain.numpy())
    except (TypeError, RuntimeError, NotImplementedError) as error:  # sparse, quantised, without data
        raise DataError(f"{what} are a tensor of {tensor.dtype} without plain numbers: {error}") from error


def _listed(given: Any, what: str) -> NDArray[Any]:
    """A sequence as an array; an array of objects if its rows have several lengths."""
    if isinstance(given, Sequence) and any(hasattr(row, "detach") for row in given):
        given = [as_array(row, what) for row in given]
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        if not isinstance(given, Sequence):
            raise DataError(f"{what} cannot be read as numbers: {error}") from error
        column = np.empty(len(given), object)
        for row, value in enumerate(given):
            column[row] = value
        return column


def _plain(column: NDArray[Any], what: str) -> NDArray[Any]:
    """An array of objects: one of strings, of numbers, or of rows."""
    if not column.ndim:
        raise DataError(f"{what} must be numbers in an array or a list, not {type_of(column.item())}")
    if all(isinstance(value, str) for value in column.flat):
        return column.astype(np.str_)
    if column.ndim == 1 and any(map(_is_row, column)):
        return _stacked(column, what)
    numbers = [_number(value, place[0], what) for place, value in np.ndenumerate(column)]
    return np.array(numbers, np.float64).reshape(column.shape)


def _is_row(value: object) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes)


def _stacked(rows: NDArray[Any], what: str) -> NDArray[Any]:
    for row, value in enumerate(rows):
        if not _is_row(value):
            raise DataError(f"{what} must be rows of numbers, but row {row} is {type_of(value)}")
        if len(value) != len(rows[0]):
            raise DataError(
                f"{what} must be rows of one length, but row 0 has {len(rows[0])} entries and row {row} has "
                f"{len(value)}"
            )
    try:
        table = np.asarray([as_array(value, what) if hasattr(value, "detach") else value for value in rows])
    except ValueError as error:
        raise DataError(f"{what} must be rows of numbers of one shape: {error}") from error
    return _plain(table, what) if table.dtype.kind == "O" else table


def _number(value: Any, row: int, what: str) -> float:
    if value is None or type(value).__name__ == "NAType":
        return math.nan
    if not isinstance(value, str | bytes) and hasattr(value, "__float__"):
        return float(value)
    raise DataError(f"{what} must be numbers, but row {row} holds {type_of(value)}: {value!r}")
