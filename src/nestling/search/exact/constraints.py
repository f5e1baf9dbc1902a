"""Constraints that all searches share: the number of neighbours, the metric, recall and confidence."""

from __future__ import annotations

from typing import get_args

from nestling.arguments.constraints import OneOf, Real, Whole, check
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
        ConfigError: unless ``k`` is a whole number of at least 1.
        DataError: for more neighbours than rows.
    """
    k = check("k", k, _K)
    if k > rows:
        raise DataError(f"k={k} neighbours cannot be found among {rows} {of}; choose k from 1 to {rows}")
    return k
