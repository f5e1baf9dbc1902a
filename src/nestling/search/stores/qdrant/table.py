"""Qdrant servers and clusters: a named vector for each size, the shortlist as a prefetch stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from nestling.data.tables.fields.kinds import Value
from nestling.errors import StoreBusyError, StoreError, require
from nestling.search.stores.adapter import Request, Rows
from nestling.search.stores.layout import Layout, check_name
from nestling.search.stores.qdrant.points import (
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

_KEY = "nestling"
_MAY_PASS = {408, 429, 500, 502, 503, 504}


class ServerWords(Words):
    """Conditions as ``qdrant_client`` writes them."""

    def equal(self, key: str, value: Value) -> Any:
        """A value at a place of the payload."""
        return self._models.FieldCondition(key=key, match=self._models.MatchValue(value=value))

    def one_of(self, key: str, values: list[Any]) -> Any:
        """One of several texts, or of several whole numbers."""
        return self._models.FieldCondition(key=key, match=self._models.MatchAny(any=values))

    def ranged(self, key: str, op: str, bound: float) -> Any:
        """A number at a place of the payload."""
        return self._models.FieldCondition(key=key, range=self._models.Range(**{op: bound}))

    def absent(self, key: str) -> Any:
        """No value at a place of the payload."""
        return self._models.IsEmptyCondition(is_empty=self._models.PayloadField(key=key))

    def points(self, ids: Iterable[Any]) -> Any:
        """These points."""
        return self._models.HasIdCondition(has_id=list(ids))


class QdrantTable(PointsTable):
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
        super().__init__(ServerWords(self._models), f"the Qdrant collection {name}")
        self._failures = require("qdrant_client.http.exceptions", "qdrant")
        self._exhausted = require("qdrant_client.common.client_exceptions", "qdrant").QdrantException
        self._lost = require("grpc", "qdrant").RpcError  # of clients that prefer gRPC
        self._client, self._name, self._owned = client, check_name(name), owned
        self._options = options or {}

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
        no_graph, half = models.HnswConfigDiff(m=0), models.Datatype.FLOAT16
        in_memory = models.BinaryQuantizationConfig(always_ram=True)
        binary = {"on_disk": True, "quantization_config": models.BinaryQuantization(binary=in_memory)}
        vectors = params_of(
            layout, models.VectorParams, lambda name: models.Distance[name], half, no_graph, binary
        )
        with self._errors():
            self._client.create_collection(
                self._name, vectors_config=vectors, metadata={_KEY: layout.to_text()}, **self._options
            )
            self._index("id", "KEYWORD")
        self._layout = layout

    def upsert(self, rows: Rows) -> None:
        """Add or replace points, and wait until they can be found; others of these names are removed."""
        points = [
            self._models.PointStruct(
                id=point_id(name),
                vector=vectors_of(rows, row, self._known),
                payload=payload_of(rows, row),
            )
            for row, name in enumerate(rows.ids)
        ]
        others = self._models.Filter(
            must=[called(self._words, rows.ids)],
            must_not=[self._words.points(point.id for point in points)],
        )
        with self._errors():
            self._client.upsert(self._name, points, wait=True)
            self._client.delete(self._name, self._models.FilterSelector(filter=others), wait=True)

    def search(self, request: Request) -> list[StoreHits]:
        """All queries in one call."""
        allowed = self._filter(request)
        asked = [self._query(request, row, allowed) for row in range(len(request))]
        with self._errors():
            answers = self._client.query_batch_points(self._name, asked)
        return [hits_of(answer.points, request, self.where) for answer in answers]

    def _query(self, request: Request, row: int, allowed: Any) -> Any:
        models = self._models
        last = {
            "query": request.queries[request.rerank_dim][row].tolist(),
            "using": vector_name(request.rerank_dim),
            "limit": request.k,
            "with_payload": wanted_payload(request),
        }
        if request.shortlist is None:
            return models.QueryRequest(**last, filter=allowed, params=models.SearchParams(exact=True))
        name, asked = first_of(request, row, self._known)
        first = models.Prefetch(
            query=asked,
            using=name,
            limit=request.shortlist,
            filter=allowed,
            params=models.SearchParams(
                hnsw_ef=request.shortlist, quantization=models.QuantizationSearchParams(rescore=False)
            ),
        )
        return models.QueryRequest(**last, prefetch=first)

    def _texts(self, path: str) -> list[str]:
        """All different texts of a field, from the index that gives them."""
        with self._errors():
            self._index(path, "KEYWORD")
            found = self._client.facet(self._name, path, limit=max(1, self.count()), exact=True)
        return [hit.value for hit in found.hits if isinstance(hit.value, str)]

    def _index(self, path: str, kind: str) -> None:
        if path not in self._client.get_collection(self._name).payload_schema:
            schema = self._models.PayloadSchemaType[kind]
            self._client.create_payload_index(self._name, path, schema, wait=True)

    def delete(self, ids: list[str]) -> None:
        """Remove points."""
        if ids:
            gone = self._models.FilterSelector(filter=called(self._words, ids))
            with self._errors():
                self._client.delete(self._name, gone, wait=True)

    def count(self) -> int:
        """Number of points."""
        with self._errors():
            return int(self._client.count(self._name, exact=True).count)

    def _scroll(self, size: int, ids: list[str] | None, offset: Any, vectors: Any, payload: Any) -> Page:
        allowed = None if ids is None else called(self._words, ids)
        asked = {"limit": size, "with_vectors": vectors, "with_payload": payload}
        page: Page = self._client.scroll(self._name, allowed, offset=offset, **asked)
        return page

    def optimize(self) -> None:
        """Index the declared fields; graphs the server builds and mends by itself, in the background."""
        with self._errors():
            self._index_fields()

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
        except self._exhausted as error:
            raise StoreBusyError(f"{self.where} takes no more for now: {error}") from error
        except self._lost as error:
            raise StoreBusyError(f"{self.where} does not answer: {error.code()}") from error
        except self._failures.UnexpectedResponse as error:
            kind = StoreBusyError if error.status_code in _MAY_PASS else StoreError
            raise kind(f"{self.where} refuses ({error.status_code}): {error.reason_phrase}") from error
        except ValueError as error:
            raise StoreError(f"{self.where} refuses: {error}") from error
