"""Checks of the options and requests of a graph scan."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import OneOf, Whole, check
from nestling.cut import CutRule, check_vectors
from nestling.errors import ConfigError
from nestling.search.exact.centring import refuse_zero
from nestling.search.exact.filters import check_mask
from nestling.search.exact.neighbours import check_k
from nestling.search.exact.space import check_space

Rerank = Literal["full", "int8"]
Doubles = NDArray[np.float64]

LINKS = Whole(8, 1024, hint="64 is usual")
_EF = Whole(1, hint="100 is usual")


def in_doubles(queries: Any, dim: int) -> Doubles:
    """Queries in double precision; whether they are finite is seen when they are searched for.

    Raises:
        DataError: for another shape or type, or no rows.
    """
    if not (isinstance(queries, np.ndarray) and queries.dtype.kind == "f" and queries.shape[1:] == (dim,)):
        queries = check_vectors(queries, "queries", dim=dim)
    if not len(queries):
        check_vectors(queries, "queries", dim=dim)
    return np.asarray(queries.astype(np.float64, order="C"))


def check_options(rule: CutRule, metric: str, links: int, ef: int | None, rerank: str) -> None:
    """Refuse what no graph can be built with.

    Raises:
        ConfigError: for an unknown metric or ranking, a rule with something before the cut, or numbers
            outside their range.
    """
    check_space("a graph scan", rule, metric)
    check("rerank", rerank, OneOf(get_args(Rerank)))
    check("links", links, LINKS)
    check("ef", ef, _EF | None)


def check_request(
    rows: int, k: int, ef: int, shortlist: int | None, allowed: NDArray[np.bool_] | None
) -> None:
    """Refuse what no search can find.

    Raises:
        DataError: for ``k`` outside its range, or a mask that does not fit.
        ConfigError: for ``ef`` below 1, or a shortlist below ``k``.
    """
    check_k(k, rows)
    check("ef", ef, _EF)
    if shortlist is not None and shortlist < k:
        raise ConfigError(f"a shortlist of {shortlist} cannot hold k={k} rows; give at least {k}")
    if allowed is not None:
        check_mask(allowed, rows)


def refuse_query(queries: Doubles, row: int) -> None:
    """Say why a query cannot be searched for.

    Raises:
        DataError: for queries with NaN or infinity, or that one, which has no direction.
    """
    check_vectors(queries, "queries")
    norms = np.linalg.norm(queries, axis=1)
    norms[row] = 0  # by any rounding
    refuse_zero(norms, "queries")
