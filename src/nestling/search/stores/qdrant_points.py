"""Rows as Qdrant's points: what they are called, what they carry, how answers are read."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import numpy as np

from nestling.search.stores.layout import Layout
from nestling.search.stores.store import Hits
from nestling.search.stores.table import Rows

# Qdrant calls points by UUIDs; ours are made from the ids, so that the same id is the same point.
_SPACE = uuid.UUID("5a0d9c1e-6f0b-4c53-9d39-8f1f4a1f7c21")
_LAYOUT_SPACE = uuid.UUID("0c2f3a5e-2d0a-4d0e-8a61-6a9c7f5b3d10")


def point_id(name: str) -> str:
    """The UUID of the point for the row of this id."""
    return str(uuid.uuid5(_SPACE, name))


LAYOUT_POINT = str(uuid.uuid5(_LAYOUT_SPACE, "layout"))
"""A point without vectors, which no search finds; it keeps the layout where collections keep no metadata."""


def vector_name(dim: int) -> str:
    """What the vectors of one size are called."""
    return f"dim{dim}"


def payload_of(rows: Rows, row: int) -> dict[str, Any]:
    """What the point of one row carries beside its vectors."""
    return {"id": rows.ids[row], "metadata": rows.metadata[row]}


def vectors_of(rows: Rows, row: int) -> dict[str, list[float]]:
    """The vectors of one row by name."""
    return {vector_name(dim): matrix[row].tolist() for dim, matrix in rows.vectors.items()}


def hits_of(points: Iterable[Any]) -> Hits:
    """An answer: Qdrant gives similarities for dot products and distances for Euclid, as we do."""
    found = list(points)
    return Hits([p.payload["id"] for p in found], np.array([p.score for p in found], np.float32))


def rows_of(records: Iterable[Any], layout: Layout) -> Rows:
    """Rows of points that were read with payload and vectors."""
    found = list(records)
    name = vector_name(layout.dim)
    vectors = np.array([record.vector[name] for record in found], np.float32).reshape(-1, layout.dim)
    ids = [record.payload["id"] for record in found]
    return Rows(ids, {layout.dim: vectors}, [record.payload["metadata"] for record in found])
