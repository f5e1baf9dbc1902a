"""Qdrant servers and clusters: a named vector for each size, the shortlist as a prefetch stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nestling.errors import StoreBusyError, StoreError, require
from nestling.search.stores.layout import Layout, check_name
from nestling.search.stores.qdrant_points import (
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

_KEY = "nestling"
_MAY_PASS = {408, 429, 500, 502, 503, 504}


class QdrantTable:
    """A collection of a Qdrant server.

    Args:
        client: a ``QdrantClient``, which stays the caller's.
        name: of the collection.
        owned: close the client with the table.
        options: passed on to ``create_collection``, such as ``shard_number`` and ``replication_factor``.

    Raises:
        ConfigError: for a name that is none.
        MissingExtraError: without qdrant-client.
    """

    def __init__(
        self, client: Any, name: str, *, owned: bool = False, options: dict[str, Any] | None = None
    ) -> None:
        self._models = require("qdrant_client.models", "qdrant")
        self._failures = require("qdrant_client.http.exceptions", "qdrant")
        self._client, self._name, self._owned = client, check_name(name), owned
        self._options = options or {}
        self.where = f"the Qdrant collection {name}"
        self._layout: Layout | None = None

    def read_layout(self) -> Layout | None:
        """The layout, kept in the metadata of the collection."""
        with self._errors():
            if not self._client.collection_exists(self._name):
                return None
            metadata = self._client.get_collection(self._name).config.metadata or {}
        self._layout = Layout.from_text(metadata.get(_KEY), self.where)
        return self._layout

    def create(self, layout: Layout) -> None:
        """Make the collection; only the vectors of the first stage get a graph."""
        models = self._models
        distance = models.Distance.DOT if layout.metric == "dot" else models.Distance.EUCLID
        no_graph = models.HnswConfigDiff(m=0)
        vectors = {
            vector_name(dim): models.VectorParams(
                size=dim, distance=distance, hnsw_config=None if dim == layout.shortlist_dim else no_graph
            )
            for dim in layout.dims
        }
        with self._errors():
            self._client.create_collection(
                self._name, vectors_config=vectors, metadata={_KEY: layout.to_text()}, **self._options
            )
        self._layout = layout

    def upsert(self, rows: Rows) -> None:
        """Add or replace points, and wait until they can be found."""
        points = [
            self._models.PointStruct(
                id=point_id(name), vector=vectors_of(rows, row), payload=payload_of(rows, row)
            )
            for row, name in enumerate(rows.ids)
        ]
        with self._errors():
            self._client.upsert(self._name, points, wait=True)

    def search(self, request: Request) -> list[Hits]:
        """All queries in one call."""
        asked = [self._query(request, row) for row in range(len(request))]
        with self._errors():
            answers = self._client.query_batch_points(self._name, asked)
        return [hits_of(answer.points) for answer in answers]

    def _query(self, request: Request, row: int) -> Any:
        models = self._models
        last = {
            "query": request.queries[request.rerank_dim][row].tolist(),
            "using": vector_name(request.rerank_dim),
            "limit": request.k,
            "with_payload": ["id"],
        }
        allowed = self._filter(request)
        if request.shortlist is None:
            return models.QueryRequest(**last, filter=allowed, params=models.SearchParams(exact=True))
        first = models.Prefetch(
            query=request.queries[request.shortlist_dim][row].tolist(),
            using=vector_name(request.shortlist_dim),
            limit=request.shortlist,
            filter=allowed,
            params=models.SearchParams(hnsw_ef=request.shortlist),
        )
        return models.QueryRequest(**last, prefetch=first)

    def _filter(self, request: Request) -> Any:
        models = self._models
        must: list[Any] = [
            models.FieldCondition(key=f"metadata.{key}", match=models.MatchValue(value=value))
            for key, value in request.where.items()
        ]
        if request.ids is not None:
            must.append(models.HasIdCondition(has_id=[point_id(name) for name in request.ids]))
        return models.Filter(must=must) if must else None

    def delete(self, ids: list[str]) -> None:
        """Remove points."""
        with self._errors():
            self._client.delete(self._name, [point_id(name) for name in ids], wait=True)

    def present(self, ids: list[str]) -> set[str]:
        """Which of these ids there are."""
        with self._errors():
            found = self._client.retrieve(self._name, [point_id(name) for name in ids], with_payload=["id"])
        return ids_of(found)

    def count(self) -> int:
        """How many points there are."""
        with self._errors():
            return int(self._client.count(self._name, exact=True).count)

    def fits(self, most: int) -> bool:
        """Whether there are at most so many points; the server counts from what it holds in memory."""
        return self.count() <= most

    def scan(self, size: int) -> Iterator[Rows]:
        """All points in the order of their UUIDs."""

        def page(name: str, offset: Any) -> Any:
            with self._errors():
                return self._client.scroll(
                    self._name, limit=size, offset=offset, with_payload=True, with_vectors=[name]
                )

        return rows_of_pages(page, self._layout, self.where)

    def optimize(self) -> None:
        """Nothing to ask for: the server builds and mends its graphs by itself, in the background."""

    def drop(self) -> None:
        """Remove the collection."""
        with self._errors():
            self._client.delete_collection(self._name)

    def close(self) -> None:
        """Close the client, if it was made for this table."""
        if self._owned:
            self._client.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._failures.ResponseHandlingException as error:
            raise StoreBusyError(f"{self.where} does not answer: {error.source}") from error
        except self._failures.UnexpectedResponse as error:
            kind = StoreBusyError if error.status_code in _MAY_PASS else StoreError
            raise kind(f"{self.where} refuses ({error.status_code}): {error.reason_phrase}") from error
        except ValueError as error:
            raise StoreError(f"{self.where} refuses: {error}") from error
