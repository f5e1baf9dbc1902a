"""The check that the tensors of a batch fit together, since torch would broadcast one row over all others."""

from __future__ import annotations

from torch import Tensor

from nestling.errors import DataError


def check_columns(names: str, *columns: Tensor) -> None:
    """Check that columns are matrices of one shape, with at least one row.

    Args:
        names: names in errors, such as ``"anchors and positives"``.
        columns: ``Float[batch, dim]`` each.

    Raises:
        DataError: for other shapes, or a batch without rows.
    """
    shapes = [tuple(x.shape) for x in columns]
    if shapes[0][:1] == (0,):
        raise DataError("the batch is empty; give at least two rows")
    if columns[0].ndim != 2 or len(set(shapes)) > 1:
        of_one = "must be matrices of one shape" if len(columns) > 1 else "must be a matrix"
        raise DataError(f"{names} {of_one} [batch, dim], not {', '.join(map(str, shapes))}")
