"""Rows as points of Qdrant: their ids and payloads, and how results are read."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from nestling.data.tables.fields.kinds import Value
from nestling.errors import StoreError
from nestling.search.stores.adapter import Request, Rows
from nestling.search.stores.layout import Layout
from nestling.search.stores.metadata import found_metadata
from nestling.search.stores.qdrant.where import field_of, key_of
from nestling.search.stores.results import Bytes, StoreHits

# Qdrant calls points by UUIDs; ours are made from the ids, so that the same id is the same point.
_SPACE = uuid.UUID("5a0d9c1e-6f0b-4c53-9d39-8f1f4a1f7c21")
_LAYOUT_SPACE = uuid.UUID("0c2f3a5e-2d0a-4d0e-8a61-6a9c7f5b3d10")


def point_id(name: str) -> str:
    """The UUID of the point for the row of this id."""
    return str(uuid.uuid5(_SPACE, name))


LAYOUT_POINT = str(uuid.uuid5(_LAYOUT_SPACE, "layout"))
"""A point without vectors, which no search finds; it keeps the layout where collections keep no metadata."""

BITS = "bits"
"""The name of the vectors of one bit per entry."""


def vector_name(dim: int) -> str:
    """The name of the vectors of one size."""
    return f"dim{dim}"


def distance_of(layout: Layout) -> str:
    """Qdrant's distance for a layout; under ``Cosine`` it normalises rows itself, whoever writes them."""
    if layout.metric == "dot":
        return "COSINE" if layout.rule.after == "l2" else "DOT"
    return "EUCLID"


def params_of(
    layout: Layout,
    params: Callable[..., Any],
    distances: Callable[[str], Any],
    half: Any,
    no_graph: Any,
    binary: dict[str, Any],
) -> dict[str, Any]:
    """The vectors of a point as a client declares them; only those of the first stage get a graph.

    Args:
        layout: sizes and precisions to keep.
        params: makes the declaration of one vector.
        distances: the client's distance of a name.
        half: the client's type of half precision.
        no_graph: settings that keep a vector from getting a graph.
        binary: settings that keep one bit of each entry in memory, and the entries on disk.
    """
    given = {"distance": distances(distance_of(layout)), "datatype": half if layout.bits == 16 else None}
    first = None if layout.has_codes else layout.shortlist_dim
    made = {
        vector_name(dim): params(size=dim, hnsw_config=None if dim == first else no_graph, **given)
        for dim in layout.dims
    }
    if layout.has_codes:
        size = layout.shortlist_dim
        made[BITS] = params(size=size, distance=distances("DOT"), datatype=half, **binary)
    return made


def payload_of(rows: Rows, row: int) -> dict[str, Any]:
    """The payload of the point of one row."""
    return {"id": rows.ids[row], "metadata": {key_of(f): value for f, value in rows.metadata[row].items()}}


def vectors_of(rows: Rows, row: int, layout: Layout) -> dict[str, list[float]]:
    """The vectors of one row by name."""
    found = {vector_name(dim): matrix[row].tolist() for dim, matrix in rows.vectors.items()}
    return found if rows.codes is None else found | {BITS: signs_of(rows.codes[row], layout)}


def signs_of(code: Bytes, layout: Layout) -> list[float]:
    """The bits of a code as -1 and 1: their dot product falls as their Hamming distance rises.

    Qdrant holds the signs of entries as bits. Segments that it has not optimised yet compare the entries
    themselves, with the same result.
    """
    signs: list[float] = (np.unpackbits(code, count=layout.shortlist_dim) * 2.0 - 1).tolist()
    return signs


def first_of(request: Request, row: int, layout: Layout) -> tuple[str, list[float]]:
    """The vector of the first stage of a search: its name, and the query's."""
    if request.codes is not None:
        return BITS, signs_of(request.codes[row], layout)
    return vector_name(request.shortlist_dim), request.queries[request.shortlist_dim][row].tolist()


def wanted_payload(request: Request) -> list[str]:
    """The parts of payloads that a result needs."""
    return ["id", "metadata"] if request.with_metadata else ["id"]


def hits_of(points: Iterable[Any], request: Request, where: str) -> StoreHits:
    """A result: Qdrant gives similarities for dot products and distances for Euclid, as we do."""
    found = list(points)
    metadata = [metadata_of(point, where) for point in found] if request.with_metadata else []
    return StoreHits(list(map(name_of, found)), np.array([p.score for p in found], np.float32), metadata)


def name_of(point: Any) -> str:
    """The id of a row: the ``id`` in its payload, or else the id of its point."""
    name = (point.payload or {}).get("id")
    return str(point.id) if name is None else str(name)


def metadata_of(point: Any, where: str) -> dict[str, Value]:
    """The metadata in the payload of a point."""
    found = found_metadata((point.payload or {}).get("metadata"), name_of(point), where)
    return {field_of(key): value for key, value in found.items()}


def rows_of(found: Sequence[Any], layout: Layout, where: str) -> Rows:
    """The rows of points that were read with payload and the vectors of the full size.

    Raises:
        StoreError: if one of them lacks its vector; ``where`` names the table.
    """
    name = vector_name(layout.dim)
    for record in found:
        if name not in (record.vector or {}):
            raise StoreError(
                f"{where} holds a row {name_of(record)!r} without the vector {name}; another program wrote "
                "it: give it one there, or delete it"
            )
    vectors = np.array([record.vector[name] for record in found], np.float32).reshape(-1, layout.dim)
    metadata = [metadata_of(record, where) for record in found]
    return Rows(list(map(name_of, found)), {layout.dim: vectors}, metadata)
