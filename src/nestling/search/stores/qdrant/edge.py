"""Qdrant in this process: the engine of the server on a folder, for one machine and for tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nestling.arguments.paths import home_path
from nestling.data.tables.fields.kinds import Value
from nestling.errors import NestlingError, StorageError, StoreBusyError, StoreError, require
from nestling.search.stores.adapter import Request, Rows
from nestling.search.stores.layout import Layout, check_name
from nestling.search.stores.qdrant.points import (
    LAYOUT_POINT,
    first_of,
    hits_of,
    params_of,
    payload_of,
    point_id,
    vector_name,
    vectors_of,
    wanted_payload,
)
from nestling.search.stores.qdrant.points_table import Page, PointsTable
from nestling.search.stores.qdrant.where import Words, called
from nestling.search.stores.results import StoreHits
from nestling.storage.lock import WriterLock


class _Truth:
    """A truth value that Edge does not take for a whole number.

    Edge tries whole numbers first, and reads True as 1. It accepts any type with the name of numpy's. Older
    versions of numpy let their own type be used as a whole number, too.
    """

    def __init__(self, value: bool) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return self._value


_Truth.__module__, _Truth.__name__ = "numpy", "bool"


class EdgeWords(Words):
    """Conditions as ``qdrant_edge`` writes them."""

    def equal(self, key: str, value: Value) -> Any:
        """A value at a place of the payload."""
        given = _Truth(value) if isinstance(value, bool) else value
        return self._models.FieldCondition(key, match=self._models.MatchValue(given))

    def one_of(self, key: str, values: list[Any]) -> Any:
        """One of several texts, or of several whole numbers."""
        return self._models.FieldCondition(key, match=self._models.MatchAny(values))

    def ranged(self, key: str, op: str, bound: float) -> Any:
        """A number at a place of the payload."""
        return self._models.FieldCondition(key, range=self._models.RangeFloat(**{op: bound}))

    def absent(self, key: str) -> Any:
        """No value at a place of the payload."""
        return self._models.IsEmptyCondition(key)

    def points(self, ids: Iterable[Any]) -> Any:
        """These points."""
        return self._models.HasIdCondition(set(ids))


class QdrantEdgeTable(PointsTable):
    """A shard of Qdrant Edge in a folder of its own; one process may have it open at a time.

    Args:
        folder: folder of the shards.
        name: of the shard, and of its folder.

    Raises:
        ConfigError: for a name that is none.
        MissingExtraError: without qdrant-edge-py.
    """

    def __init__(self, folder: str | Path, name: str) -> None:
        self._edge = require("qdrant_edge", "qdrant")
        super().__init__(EdgeWords(self._edge), f"the Qdrant Edge shard {name}")
        self._folder = home_path(folder) / check_name(name)
        self._shard: Any = None
        self._lock: WriterLock | None = None

    def read_layout(self) -> Layout | None:
        """The layout, kept in a point without vectors."""
        with self._errors():
            if not self._folder.is_dir():
                return None
            if self._shard is None:
                self._take()
                self._shard = self._edge.EdgeShard.load(str(self._folder))
            found = self._shard.retrieve([LAYOUT_POINT], with_payload=True, with_vector=False)
        self._layout = Layout.from_text(found[0].payload["layout"] if found else None, self.where)
        return self._layout

    def create(self, layout: Layout) -> None:
        """Make the shard; only the vectors of the first stage get a graph."""
        edge = self._edge
        no_graph = edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)
        half, pinned = edge.VectorStorageDatatype.Float16, edge.Memory.Pinned
        binary = {
            "memory": edge.Memory.Cold,
            "quantization_config": edge.BinaryQuantizationConfig(memory=pinned),
        }
        vectors = params_of(
            layout,
            edge.EdgeVectorParams,
            lambda name: getattr(edge.Distance, name.title()),
            half,
            no_graph,
            binary,
        )
        with self._errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._take()
            self._shard = edge.EdgeShard.create(str(self._folder), edge.EdgeConfig(vectors=vectors))
            made = edge.Point(LAYOUT_POINT, {}, {"layout": layout.to_text()})
            self._update(edge.UpdateOperation.upsert_points([made]))
            self._index("id", "KEYWORD")
        self._layout = layout

    def upsert(self, rows: Rows) -> None:
        """Add or replace points; others of these names are removed."""
        edge = self._edge
        points = [
            edge.Point(point_id(name), vectors_of(rows, row, self._known), payload_of(rows, row))
            for row, name in enumerate(rows.ids)
        ]
        ours = edge.HasIdCondition({LAYOUT_POINT, *map(point_id, rows.ids)})
        others = edge.Filter(must=[called(self._words, rows.ids)], must_not=[ours])
        with self._errors():
            self._update(
                edge.UpdateOperation.upsert_points(points),
                edge.UpdateOperation.delete_points_by_filter(others),
            )

    def _update(self, *operations: Any) -> None:
        for operation in operations:
            self._shard.update(operation)
        self._shard.flush()

    def search(self, request: Request) -> list[StoreHits]:
        """All queries in one pass over the segments."""
        allowed = self._filter(request)
        asked = [self._query(request, row, allowed) for row in range(len(request))]
        with self._errors():
            answers = self._shard.query_batch(self._edge.QueryBatchRequest(asked))
        return [hits_of(answer, request, self.where) for answer in answers]

    def _query(self, request: Request, row: int, allowed: Any) -> Any:
        edge, size = self._edge, request.rerank_dim
        query = edge.Query.Nearest(request.queries[size][row].tolist(), using=vector_name(size))
        last = {"limit": request.k, "query": query, "with_payload": wanted_payload(request)}
        if request.shortlist is None:
            return edge.QueryRequest(**last, filter=allowed, params=edge.SearchParams(exact=True))
        name, asked = first_of(request, row, self._known)
        first = edge.Prefetch(
            limit=request.shortlist,
            query=edge.Query.Nearest(asked, using=name),
            filter=allowed,
            params=edge.SearchParams(
                hnsw_ef=request.shortlist, quantization=edge.QuantizationSearchParams(rescore=False)
            ),
        )
        return edge.QueryRequest(**last, prefetches=[first])

    def _texts(self, path: str) -> list[str]:
        """All different texts of a field, from the index that gives them."""
        with self._errors():
            self._index(path, "KEYWORD")
            asked = self._edge.FacetRequest(path, limit=max(1, self.count()), exact=True)
            return [hit.value for hit in self._shard.facet(asked).hits if isinstance(hit.value, str)]

    def _index(self, path: str, kind: str) -> None:
        if path not in self._shard.info().payload_schema:
            schema = getattr(self._edge.PayloadSchemaType, kind.title())
            self._update(self._edge.UpdateOperation.create_field_index(path, schema))

    def delete(self, ids: list[str]) -> None:
        """Remove points."""
        if ids:
            with self._errors():
                self._update(self._edge.UpdateOperation.delete_points_by_filter(self._rows(ids)))

    def _rows(self, ids: list[str] | None) -> Any:
        """The points of all rows, or of these, without the one of the layout."""
        must = None if ids is None else [called(self._words, ids)]
        return self._edge.Filter(must=must, must_not=[self._edge.HasIdCondition({LAYOUT_POINT})])

    def count(self) -> int:
        """Number of points, without the one of the layout."""
        with self._errors():
            return int(self._shard.count(self._edge.CountRequest(exact=True))) - 1

    def _scroll(self, size: int, ids: list[str] | None, offset: Any, vectors: Any, payload: Any) -> Page:
        asked = {"limit": size, "filter": self._rows(ids), "with_vector": vectors, "with_payload": payload}
        page: Page = self._shard.scroll(self._edge.ScrollRequest(offset=offset, **asked))
        return page

    def optimize(self) -> None:
        """Index the declared fields, merge segments and build their graphs, now."""
        with self._errors():
            self._index_fields()
            self._shard.optimize()

    def drop(self) -> None:
        """Remove the folder of the shard."""
        self.close()
        with self._errors():
            if self._folder.exists():
                shutil.rmtree(self._folder)

    def close(self) -> None:
        """Close the shard, so that another may open it."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _take(self) -> None:
        """Keep others out: the engine finds out too late, when it has touched the files of who was first."""
        try:
            self._lock = self._lock or WriterLock(self._folder)
        except StorageError as error:
            if error.__cause__ is not None:  # not held by another, but impossible
                raise
            raise StoreBusyError(
                f"{self.where} is open already, here or in another process, and only one can: close it "
                "there, or run a Qdrant server for several (qdrant://host:6333/collection)"
            ) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except NestlingError:
            raise
        except Exception as error:  # the engine raises nothing narrower
            raise StoreError(f"{self.where} refuses: {error}") from error
