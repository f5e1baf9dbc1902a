"""Geodesic distances: shortest paths through a nearest-neighbour graph of the stimuli."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import OneOf, Real, Whole, check
from nestling.compare.rdms.rdms import RDMs, as_rdms
from nestling.compare.transforms.thresholds import check_thresholds
from nestling.compare.transforms.topology import OrderedDistances
from nestling.compare.transforms.transformer import MatrixTransformer, Vectors
from nestling.errors import ConfigError, DataError, require

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rule = Literal["twostep", "p_shortest", "p_nearest", "k_nearest"]
ZeroEdges = Literal["keep", "drop"]
Disconnected = Literal["max", "inf", "error"]

_MANY_ZEROS = 0.5
_ROUNDING = 1e-9
_FEW_EDGES = 0.03  # of all pairs; below it Dijkstra is faster than Floyd and Warshall


@dataclass(frozen=True, eq=False)
class Paths:
    """Shortest paths between all pairs of stimuli.

    Args:
        lengths: ``Float[m, pairs]``; infinite where no path joins a pair.
        disconnected: ``Float[m]``, share of the pairs that no path joins.
        zeros: ``Float[m]``, share of the paths whose length is 0.
    """

    lengths: Floats
    disconnected: Floats
    zeros: Floats


class Geodesic(MatrixTransformer):
    """Replaces distances by the lengths of shortest paths in a graph on the stimuli.

    A rule selects the pairs that are joined by an edge:

    * ``"twostep"``: those whose geo-topological value at (``lower``, ``upper``) is below 1, which is the
      length of the edge. With ``lower`` above 0 the nearest pairs are at distance 0, and chains of such
      edges soon join everything: a warning says when more than half of all paths have length 0.
    * ``"p_shortest"``: the share ``p`` of the shortest distances.
    * ``"k_nearest"``: each stimulus and its ``k`` nearest; ``"p_nearest"``: its ``p * n`` nearest, rounded
      down. An edge is there if either end asks for it, and stimuli as near as the last one are all taken,
      so the graph does not depend on the order of the stimuli.

    The last three take distances as lengths: their ranks, scaled to 0 to 1, or as they are. The code beside
    the paper ranks the paths again; ``make_pipeline(Geodesic("k_nearest", k=5), GeoTopological(0, 1))`` does.
    A missing pair (NaN) has no edge, and its path goes over others.

    Args:
        rule: one of those above.
        lower: of ``"twostep"``.
        upper: of ``"twostep"``.
        p: of ``"p_shortest"`` and ``"p_nearest"``, above 0 and at most 1.
        k: of ``"k_nearest"``, 1 to n - 1.
        rank: replace distances by their ranks first. Distances below 0 (crossnobis) need it.
        zero_edges: ``"keep"`` keeps edges of length 0; ``"drop"`` removes them, as code
            does that cannot tell them from no edge.
        disconnected: value of pairs without a path: the longest path of their matrix, infinity, or an error.

    Raises:
        ConfigError: in use, for an unknown rule or policy, or numbers out of range (``k`` from 1 to n - 1).
        DataError: in use, for matrices that cannot be used, distances below 0 with ``rank=False``, a graph
            without edges, or a disconnected one under ``disconnected="error"``.

    Source: Lin and Kriegeskorte 2023, representational geodesic distance matrices; Tenenbaum et al. 2000.

    >>> line = [[1.0, 2.0, 3.0, 1.5, 2.5, 1.2]]
    >>> Geodesic("k_nearest", k=2, rank=False).fit_transform(line)
    array([[1. , 2. , 3.2, 1.5, 2.5, 1.2]])
    """

    _kind = "geodesic"

    def __init__(
        self,
        rule: Rule = "twostep",
        *,
        lower: float = 0.0,
        upper: float = 0.075,
        p: float = 0.05,
        k: int = 1,
        rank: bool = True,
        zero_edges: ZeroEdges = "keep",
        disconnected: Disconnected = "max",
    ) -> None:
        self.rule = rule
        self.lower = lower
        self.upper = upper
        self.p = p
        self.k = k
        self.rank = rank
        self.zero_edges = zero_edges
        self.disconnected = disconnected

    def paths(self, X: Any) -> Paths:  # noqa: N803 - as in transform
        """The paths before ``disconnected`` is applied, with the shares of what they lack.

        Args:
            X: ``Float[m, pairs]`` or RDMs; never changed.

        Raises:
            ConfigError: for arguments that are not allowed.
            DataError: for matrices that cannot be used.
        """
        self._check()
        return self._paths(as_rdms(X))

    def _check(self) -> None:
        for name, given, allowed in (
            ("rule", self.rule, get_args(Rule)),
            ("zero_edges", self.zero_edges, get_args(ZeroEdges)),
            ("disconnected", self.disconnected, get_args(Disconnected)),
        ):
            check(name, given, OneOf(allowed))
        if self.rule == "twostep":
            check_thresholds([(self.lower, self.upper)])
        elif self.rule == "k_nearest":
            check("k", self.k, Whole(1))
        else:
            check("p", self.p, Real(above=0, most=1))

    def _map(self, rdms: RDMs) -> Vectors:
        paths = self._paths(rdms)
        lengths, apart = paths.lengths, np.flatnonzero(paths.disconnected)
        if len(apart) and self.disconnected == "error":
            raise DataError(
                f"the graphs of {len(apart)} of {len(lengths)} matrices are disconnected, that of matrix "
                f"{apart[0]} at {paths.disconnected[apart[0]]:.0%} of its pairs; join more pairs, or choose "
                "disconnected='max' or 'inf'"
            )
        if len(apart) and self.disconnected == "max":
            finite = np.isfinite(lengths)
            longest = np.max(lengths, axis=1, where=finite, initial=0.0)
            lengths = np.where(finite, lengths, longest[:, None])
        return lengths.astype(rdms.vectors.dtype)

    def _paths(self, rdms: RDMs) -> Paths:
        edges = self._edges(rdms)
        if self.zero_edges == "drop":
            edges[edges == 0] = np.inf
        bare = np.flatnonzero(~np.isfinite(edges).any(axis=1))
        if len(bare):
            raise DataError(
                f"the graph of matrix {bare[0]} has no edge, so it has no paths; join more pairs"
                + (" or keep the edges of length 0" if self.zero_edges == "drop" else "")
            )
        lengths = _shortest_paths(edges, rdms.n)
        joined = np.isfinite(lengths)
        zeros = np.count_nonzero(lengths == 0, axis=1) / np.count_nonzero(joined, axis=1)
        _warn_of_zeros(zeros)
        return Paths(lengths, 1 - joined.mean(axis=1), zeros)

    def _edges(self, rdms: RDMs) -> Floats:
        """Lengths of edges ``Float[m, pairs]``, infinite where there is none."""
        vectors = rdms.vectors.astype(np.float64)
        if not self.rank and (vectors < 0).any():
            raise DataError(
                f"matrix {np.flatnonzero((vectors < 0).any(axis=1))[0]} has distances below 0, which cannot "
                "be lengths of edges; use rank=True, or set them to 0 first"
            )
        ordered = OrderedDistances.of(vectors, rank=self.rank)
        if self.rule == "twostep":
            edges: Floats = ordered.transform(np.array([[self.lower, self.upper]]))[0]
            joined = edges < 1
        else:
            edges = ordered.transform(np.array([[0.0, 1.0]]))[0] if self.rank else vectors.copy()
            joined = self._joined(ordered, rdms.n)
        edges[~joined | np.isnan(edges)] = np.inf
        return edges

    def _joined(self, ordered: OrderedDistances, n: int) -> NDArray[np.bool_]:
        """The pairs that a single-step rule joins, ``Bool[m, pairs]``."""
        if self.rule == "p_shortest":
            longest = ordered.quantiles(np.array([self.p]))[0]
            return np.asarray(ordered.values <= longest[:, None])
        k = self.k if self.rule == "k_nearest" else min(int(self.p * n + _ROUNDING), n - 1)
        if k < 1:
            raise ConfigError(
                f"p={self.p} of {n} stimuli is less than 1 neighbour; choose p from {1 / n:.3g}"
            )
        if k >= n:
            raise ConfigError(f"{n} stimuli have {n - 1} neighbours each, not k={k}; choose k below {n}")
        pairs = np.triu_indices(n, 1)
        found = np.empty(ordered.values.shape, np.bool_)
        for vector, out in zip(ordered.values, found, strict=True):
            square = _square(np.where(np.isnan(vector), np.inf, vector), pairs, n)
            near = square <= np.partition(square, k - 1, axis=1)[:, k - 1 : k]
            out[:] = (near | near.T)[pairs]
        return found


def _square(vector: Floats, pairs: tuple[Ints, Ints], n: int) -> Floats:
    """One vector of edges as a matrix; no stimulus is its own neighbour."""
    first, second = pairs
    square = np.full((n, n), np.inf)
    square[first, second] = square[second, first] = vector
    return square


def _shortest_paths(edges: Floats, n: int) -> Floats:
    """Lengths ``Float[m, pairs]`` of the shortest paths over edges; infinite where there is none."""
    csgraph: Any = require("scipy.sparse.csgraph", "sklearn")
    pairs = np.triu_indices(n, 1)
    found = np.empty_like(edges)
    for vector, out in zip(edges, found, strict=True):
        # A sparse graph can hold edges of length 0; in a dense one they would mean no edge.
        graph = csgraph.csgraph_from_dense(_square(vector, pairs, n), null_value=np.inf)
        few = graph.nnz < _FEW_EDGES * n * n
        out[:] = csgraph.shortest_path(graph, method="D" if few else "FW")[pairs]
    return found


def _warn_of_zeros(zeros: Floats) -> None:
    many = np.flatnonzero(zeros > _MANY_ZEROS)
    if len(many):
        warnings.warn(
            f"more than half of all paths have length 0 in {len(many)} of {len(zeros)} matrices (in matrix "
            f"{many[0]} {zeros[many[0]]:.0%}): chains of edges of length 0 join most stimuli. Use lower=0 "
            "or zero_edges='drop'",
            UserWarning,
            stacklevel=5,
        )
