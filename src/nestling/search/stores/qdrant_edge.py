"""Qdrant in this process: the engine of the server on a folder, for one machine and for tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nestling.errors import StoreError, require
from nestling.search.stores.layout import Layout, check_name
from nestling.search.stores.qdrant_points import (
    LAYOUT_POINT,
    hits_of,
    ids_of,
    payload_of,
    point_id,
    rows_of_pages,
    vector_name,
    vectors_of,
)
from nestling.search.stores.store import Hits
from nestling.search.stores.table import Request, Rows


class QdrantEdgeTable:
    """A shard of Qdrant Edge in a folder of its own; one process may have it open at a time.

    Args:
        folder: where shards lie.
        name: of the shard, and of its folder.

    Raises:
        ConfigError: for a name that is none.
        MissingExtraError: without qdrant-edge-py.
    """

    def __init__(self, folder: str | Path, name: str) -> None:
        self._edge = require("qdrant_edge", "qdrant")
        self._folder = Path(folder) / check_name(name)
        self.where = f"the Qdrant Edge shard {name}"
        self._shard: Any = None
        self._layout: Layout | None = None

    def read_layout(self) -> Layout | None:
        """The layout, kept in a point without vectors."""
        if not self._folder.is_dir():
            return None
        with self._errors():
            if self._shard is None:
                self._shard = self._edge.EdgeShard.load(str(self._folder))
            found = self._shard.retrieve([LAYOUT_POINT], with_payload=True, with_vector=False)
        self._layout = Layout.from_text(found[0].payload["layout"] if found else None, self.where)
        return self._layout

    def create(self, layout: Layout) -> None:
        """Make the shard; only the vectors of the first stage get a graph."""
        edge = self._edge
        distance = edge.Distance.Dot if layout.metric == "dot" else edge.Distance.Euclid
        no_graph = edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)
        vectors = {
            vector_name(dim): edge.EdgeVectorParams(
                size=dim, distance=distance, hnsw_config=None if dim == layout.shortlist_dim else no_graph
            )
            for dim in layout.dims
        }
        with self._errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._shard = edge.EdgeShard.create(str(self._folder), edge.EdgeConfig(vectors=vectors))
            self._upsert([edge.Point(LAYOUT_POINT, {}, {"layout": layout.to_text()})])
        self._layout = layout

    def upsert(self, rows: Rows) -> None:
        """Add or replace points."""
        points = [
            self._edge.Point(point_id(name), vectors_of(rows, row), payload_of(rows, row))
            for row, name in enumerate(rows.ids)
        ]
        with self._errors():
            self._upsert(points)

    def _upsert(self, points: list[Any]) -> None:
        self._shard.update(self._edge.UpdateOperation.upsert_points(points))
        self._shard.flush()

    def search(self, request: Request) -> list[Hits]:
        """All queries in one pass over the segments."""
        asked = [self._query(request, row) for row in range(len(request))]
        with self._errors():
            answers = self._shard.query_batch(self._edge.QueryBatchRequest(asked))
        return [hits_of(answer) for answer in answers]

    def _query(self, request: Request, row: int) -> Any:
        edge = self._edge

        def at(dim: int) -> Any:
            return edge.Query.Nearest(request.queries[dim][row].tolist(), using=vector_name(dim))

        last = {"limit": request.k, "query": at(request.rerank_dim), "with_payload": ["id"]}
        allowed = self._filter(request)
        if request.shortlist is None:
            return edge.QueryRequest(**last, filter=allowed, params=edge.SearchParams(exact=True))
        first = edge.Prefetch(
            limit=request.shortlist,
            query=at(request.shortlist_dim),
            filter=allowed,
            params=edge.SearchParams(hnsw_ef=request.shortlist),
        )
        return edge.QueryRequest(**last, prefetches=[first])

    def _filter(self, request: Request) -> Any:
        edge = self._edge
        must: list[Any] = [
            edge.FieldCondition(f"metadata.{key}", match=edge.MatchValue(value))
            for key, value in request.where.items()
        ]
        if request.ids is not None:
            must.append(edge.HasIdCondition({point_id(name) for name in request.ids}))
        return edge.Filter(must=must) if must else None

    def delete(self, ids: list[str]) -> None:
        """Remove points."""
        with self._errors():
            self._shard.update(self._edge.UpdateOperation.delete_points([point_id(name) for name in ids]))
            self._shard.flush()

    def present(self, ids: list[str]) -> set[str]:
        """Which of these ids there are."""
        with self._errors():
            found = self._shard.retrieve(
                [point_id(name) for name in ids], with_payload=["id"], with_vector=False
            )
        return ids_of(found)

    def count(self) -> int:
        """How many points there are, without the one of the layout."""
        with self._errors():
            return int(self._shard.count(self._edge.CountRequest(exact=True))) - 1

    def fits(self, most: int) -> bool:
        """Whether there are at most so many points; they are counted from what is in memory."""
        return self.count() <= most

    def scan(self, size: int) -> Iterator[Rows]:
        """All points in the order of their UUIDs."""
        others = self._edge.Filter(must_not=[self._edge.HasIdCondition({LAYOUT_POINT})])

        def page(name: str, offset: Any) -> Any:
            asked = self._edge.ScrollRequest(
                offset=offset, limit=size, filter=others, with_payload=True, with_vector=[name]
            )
            with self._errors():
                return self._shard.scroll(asked)

        return rows_of_pages(page, self._layout, self.where)

    def optimize(self) -> None:
        """Merge segments and build their graphs, now."""
        with self._errors():
            self._shard.optimize()

    def drop(self) -> None:
        """Remove the folder of the shard."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Close the shard, so that another may open it."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the engine raises nothing narrower
            raise StoreError(f"{self.where} refuses: {error}") from error
