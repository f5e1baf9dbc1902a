"""Rows as Qdrant's points: what they are called, what they carry, how answers are read."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from nestling.errors import StoreError
from nestling.search.stores.layout import Layout
from nestling.search.stores.store import Hits
from nestling.search.stores.table import Rows

Page: TypeAlias = Callable[[str, Any], tuple[Sequence[Any], Any]]

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


def ids_of(records: Iterable[Any]) -> set[str]:
    """What the rows of points are called that were read with their ids."""
    return {record.payload["id"] for record in records}


def rows_of_pages(page: Page, layout: Layout | None, where: str) -> Iterator[Rows]:
    """The rows of all points, page by page.

    Args:
        page: reads the points from an offset on, with payload and the vectors of the full size; also gives
            the offset of the next page, None after the last.
        layout: of the table.
        where: names it in errors.

    Raises:
        StoreError: if the table is not open.
    """
    if layout is None:
        raise StoreError(f"{where} is not open; use DatabaseStore.open or create")
    offset = None
    while True:
        found, offset = page(vector_name(layout.dim), offset)
        if found:
            yield _rows_of(found, layout)
        if offset is None:
            return


def _rows_of(found: Sequence[Any], layout: Layout) -> Rows:
    name = vector_name(layout.dim)
    vectors = np.array([record.vector[name] for record in found], np.float32).reshape(-1, layout.dim)
    ids = [record.payload["id"] for record in found]
    return Rows(ids, {layout.dim: vectors}, [record.payload["metadata"] for record in found])
