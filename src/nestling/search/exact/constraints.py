"""Constraints that all searches share: the number of neighbours, the metric, recall and confidence."""

from __future__ import annotations

from typing import get_args

from nestling.arguments.constraints import OneOf, Real, Whole
from nestling.arguments.shown import shown
from nestling.errors import DataError
from nestling.search.exact.tiles import Metric

METRIC = OneOf(get_args(Metric))
RECALL = Real(above=0, most=1, hint="0.95 is usual")
_K = Whole(1)


def check_k(k: int, rows: int, of: str = "rows") -> int:
    """``k`` nearest neighbours among ``rows``.

    Args:
        k: at least 1.
        rows: to be searched.
        of: their name in the error.

    Raises:
        DataError: unless ``k`` is a whole number from 1 to ``rows``.
    """
    if not (_K.admits(k) and k <= rows):
        raise DataError(
            f"k={shown(k)} neighbours cannot be found among {rows} {of}; choose k from 1 to {rows}"
        )
    return int(k)
