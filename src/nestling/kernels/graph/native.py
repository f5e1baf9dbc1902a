"""The compiled kernels of :mod:`nestling.kernels.graph`."""

from __future__ import annotations

from ctypes import POINTER, Structure, byref, c_double, c_float, c_int32, c_int64, c_void_p
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from nestling.kernels.graph.layout import (
    Answer,
    CodedGraph,
    EncodedQueries,
    Links,
    QueryEncoder,
    Residuals,
    SearchedGraph,
    WholeRows,
)
from nestling.kernels.library import LEVELS, address, declared
from nestling.kernels.scans.layout import Doubles, Ints, StoredRows
from nestling.kernels.scans.native import Vectors, vectors_of

_NO_MEMORY = -1


class _Graph(Structure):
    _fields_ = [
        *[(name, c_int64) for name in ("rows", "stride", "degree", "hubs")],
        *[(name, c_void_p) for name in ("codes", "links", "hub_rows", "hub_codes")],
        ("biased", c_int32),
    ]


class _EncodedQueries(Structure):
    _fields_ = [("count", c_int64), *[(name, c_void_p) for name in ("codes", "sums", "scales", "weights")]]


class _QueryEncoder(Structure):
    _fields_ = [
        *[(name, c_int64) for name in ("dim", "width", "columns")],
        *[(name, c_void_p) for name in ("basis", "mean")],
        ("scale", c_double),
        *[(name, c_int32) for name in ("cosine", "biased", "products")],
    ]


class _Residuals(Structure):
    _fields_ = [("values", c_void_p), ("steps", c_void_p)]


class _Whole(Structure):
    _fields_ = [("dim", c_int64), ("values", c_void_p), ("scales", c_void_p), ("norms", c_void_p)]


def encode(level: str, encoder: QueryEncoder, rows: Doubles, weights: Doubles) -> EncodedQueries:
    rows, count = np.ascontiguousarray(rows), len(rows)
    codes, sums = np.empty((count, encoder.width), np.int8), np.empty(count, np.int32)
    encoded = EncodedQueries(codes, sums, np.empty(count, np.float32), weights.astype(np.float32))
    given = (_query_encoder(encoder), address(rows), count, address(encoded.weights), rows.shape[1])
    _check(
        _functions().nestling_graph_aim(
            LEVELS.index(level), *given, *map(address, (encoded.codes, encoded.sums, encoded.scales))
        )
    )
    return encoded


def search(
    level: str,
    searched: SearchedGraph,
    queries: Doubles,
    ef: int,
    kept: int,
    k: int,
    allowed: NDArray[np.bool_] | None = None,
) -> Answer:
    count = len(queries)
    indices, scores = np.empty((count, k), np.int64), np.empty((count, k), np.float64)
    few = _functions().nestling_graph_search(
        LEVELS.index(level),
        *_searched(searched),
        address(queries),
        count,
        ef,
        address(allowed),
        kept,
        k,
        address(indices),
        address(scores),
    )
    _check(few == _NO_MEMORY)
    return Answer(indices, scores, few, None if few >= 0 else _NO_MEMORY - 1 - few)


def beam_search(
    level: str,
    graph: CodedGraph,
    queries: EncodedQueries,
    ef: int,
    kept: int,
    allowed: NDArray[np.bool_] | None = None,
) -> Links:
    found = np.empty((len(queries.codes), kept), np.int32)
    places = (address(allowed), kept, address(found))
    _check(
        _functions().nestling_graph_walk(
            LEVELS.index(level), _graph(graph), _encoded_queries(queries), ef, *places
        )
    )
    return found


def grow(
    level: str,
    graph: CodedGraph,
    whole: WholeRows,
    queries: EncodedQueries,
    rows: Links,
    ef: int,
    alpha: float,
) -> None:
    given = (_graph(graph), _whole(whole), _encoded_queries(queries), address(rows))
    _check(_functions().nestling_graph_grow(LEVELS.index(level), *given, ef, alpha))


def link(level: str, graph: CodedGraph, whole: WholeRows, rows: Links, alpha: float) -> None:
    given = (_graph(graph), _whole(whole), address(rows), len(rows))
    _check(_functions().nestling_graph_link(LEVELS.index(level), *given, alpha))


def rank(
    level: str, vectors: StoredRows, queries: Doubles, candidates: Links, k: int
) -> tuple[Ints, Doubles]:
    count, length = candidates.shape
    indices, scores = np.empty((count, k), np.int64), np.empty((count, k), np.float64)
    given = (vectors_of(vectors), address(queries), count, address(candidates), length, k)
    _check(_functions().nestling_rank(LEVELS.index(level), *given, address(indices), address(scores)))
    return indices, scores


@cache
def _functions() -> Any:
    types_of: dict[str, list[Any]] = {
        "graph_aim": [POINTER(_QueryEncoder), c_void_p, c_int64, c_void_p, c_int64, *[c_void_p] * 3],
        "graph_search": [
            *[POINTER(each) for each in (_Graph, _QueryEncoder, Vectors, _Residuals)],
            *[c_void_p, c_int64, c_int64, c_void_p, c_int64, c_int64, c_void_p, c_void_p],
        ],
        "graph_walk": [POINTER(_Graph), POINTER(_EncodedQueries), c_int64, c_void_p, c_int64, c_void_p],
        "graph_grow": [
            POINTER(_Graph),
            POINTER(_Whole),
            POINTER(_EncodedQueries),
            c_void_p,
            c_int64,
            c_float,
        ],
        "graph_link": [POINTER(_Graph), POINTER(_Whole), c_void_p, c_int64, c_float],
        "rank": [POINTER(Vectors), c_void_p, c_int64, c_void_p, c_int64, c_int64, c_void_p, c_void_p],
    }
    return declared({name: [c_int32, *types] for name, types in types_of.items()})


def _check(failed: bool) -> None:
    if failed:
        raise MemoryError("no memory to search the graph")


# Arrays are described to the library once: for a single query that would take as long as the search.
_graphs: WeakKeyDictionary[CodedGraph, _Graph] = WeakKeyDictionary()
_described: WeakKeyDictionary[SearchedGraph, tuple[Any, ...]] = WeakKeyDictionary()


def _graph(graph: CodedGraph) -> _Graph:
    if graph not in _graphs:
        places = map(address, (graph.codes, graph.links, graph.hubs, graph.hub_codes))
        shape = (*graph.codes.shape, graph.links.shape[1], len(graph.hubs))
        _graphs[graph] = _Graph(*shape, *places, graph.biased)
    return _graphs[graph]


def _searched(searched: SearchedGraph) -> tuple[Any, ...]:
    found = _described.get(searched)
    if found is None:
        graph, encoder, vectors = _graph(searched.graph), _query_encoder(searched.encoder), searched.vectors
        if isinstance(vectors, Residuals):
            residuals = _Residuals(address(vectors.values), address(vectors.steps))
            found = (byref(graph), byref(encoder), None, byref(residuals))
        else:
            found = (byref(graph), byref(encoder), byref(vectors_of(vectors)), None)
        _described[searched] = found
    return found


def _query_encoder(encoder: QueryEncoder) -> _QueryEncoder:
    places = map(address, (encoder.basis, encoder.mean))
    shape = (encoder.dim, encoder.width, encoder.basis.shape[1])
    return _QueryEncoder(*shape, *places, encoder.scale, encoder.cosine, encoder.biased, encoder.products)


def _encoded_queries(queries: EncodedQueries) -> _EncodedQueries:
    places = map(address, (queries.codes, queries.sums, queries.scales, queries.weights))
    return _EncodedQueries(len(queries.codes), *places)


def _whole(whole: WholeRows) -> _Whole:
    places = map(address, (whole.values, whole.scales, whole.norms))
    return _Whole(whole.values.shape[1], *places)
