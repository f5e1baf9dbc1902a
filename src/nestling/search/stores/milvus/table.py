"""Milvus, from one file to a cluster: a vector field for each size, re-ranked where the shortlist is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nestling.errors import StoreBusyError, StoreError, require
from nestling.process.blocks import blocks
from nestling.search.stores.adapter import Request, Rows, known
from nestling.search.stores.client_rerank import rerank
from nestling.search.stores.layout import Layout, check_name
from nestling.search.stores.metadata import found_metadata
from nestling.search.stores.milvus.where import Where, literal, one_of
from nestling.search.stores.results import Floats, StoreHits

_KEY = "nestling.layout"
_LONGEST_ID_BYTES = 1024
_CASTS = {"int": "DOUBLE", "float": "DOUBLE", "bool": "BOOL", "text": "VARCHAR"}
_FLOATS_A_CALL = 1 << 22  # a quarter of the 64 MB that a message may have
_RATE_LIMIT = 8


class MilvusTable:
    """A collection of Milvus.

    Rows are looked up by the field ``name``. Their primary keys, by which an upsert replaces them, are hashes
    of it; what other programs write may have keys of its own.

    Args:
        client: a ``MilvusClient``, which stays the caller's.
        name: of the collection.
        owned: close the client with the table.
        timeout_s: for each call.
        options: passed on to ``create_collection``, such as ``num_shards``.

    Raises:
        ConfigError: for a name that is none.
        MissingExtraError: without pymilvus.
    """

    precisions = (32,)

    def __init__(
        self,
        client: Any,
        name: str,
        *,
        owned: bool = False,
        timeout_s: float = 30.0,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._milvus = require("pymilvus", "milvus")
        self._lost = require("grpc", "milvus").RpcError
        failures = require("pymilvus.exceptions", "milvus")
        self._unavailable = (failures.ConnectError, failures.MilvusUnavailableException)
        self._client, self._name, self._owned = client, check_name(name), owned
        self._timeout_s, self._options = timeout_s, options or {}
        self.where = f"the Milvus collection {name}"
        self._layout: Layout | None = None
        self._lite = False

    def read_layout(self) -> Layout | None:
        """The layout, kept as description of the collection; Milvus Lite keeps only properties."""
        if not self._call("has_collection"):
            return None
        found = self._call("describe_collection")
        text = found.get("description") or dict(found.get("properties") or {}).get(_KEY)
        self._layout = Layout.from_text(text, self.where)
        self._lite = self._is_lite()
        self._call("load_collection")
        return self._layout

    def _is_lite(self) -> bool:
        version = self._guarded(lambda: self._client.get_server_version(timeout=self._timeout_s))
        return str(version).startswith("milvus_lite")

    def create(self, layout: Layout) -> None:
        """Make the collection: HNSW for the first stage; longer vectors are read only where it points."""
        kind, text = self._milvus.DataType, layout.to_text()
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False, description=text)
        schema.add_field("id", kind.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("name", kind.VARCHAR, max_length=_LONGEST_ID_BYTES)
        schema.add_field("metadata", kind.JSON, nullable=True)
        indexes = self._client.prepare_index_params()
        unit = layout.rule.after == "l2"  # of any length, rows of others are then compared by their angle
        metric = ("COSINE" if unit else "IP") if layout.metric == "dot" else "L2"
        for dim in layout.dims:
            schema.add_field(_field(dim), kind.FLOAT_VECTOR, dim=dim)
            graph = {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 200}}
            flat = {"index_type": "FLAT", "params": {}}
            chosen = graph if dim == layout.shortlist_dim < layout.dim else flat
            indexes.add_index(_field(dim), metric_type=metric, **chosen)
        self._call(
            "create_collection",
            schema=schema,
            index_params=indexes,
            consistency_level="Strong",
            properties={_KEY: text},
            **self._options,
        )
        self._layout, self._lite = layout, self._is_lite()

    def upsert(self, rows: Rows) -> None:
        """Add or replace rows; others of these names are removed."""
        keys = list(map(_key, rows.ids))
        fields = {_field(dim): matrix for dim, matrix in rows.vectors.items()}
        self._call(
            "upsert",
            data=[
                {"id": keys[row], "name": name, "metadata": rows.metadata[row]}
                | {field: matrix[row] for field, matrix in fields.items()}
                for row, name in enumerate(rows.ids)
            ],
        )
        found = self._call("query", filter=one_of("name", rows.ids), output_fields=["id"])
        if foreign := {row["id"] for row in found} - set(keys):
            self._call("delete", filter=one_of("id", sorted(foreign)))

    def search(self, request: Request) -> list[StoreHits]:
        """Shortlists with the vectors that the second stage orders here, as many a call as fit a message."""
        first = request.rerank_dim if request.shortlist is None else request.shortlist_dim
        limit = request.k if request.shortlist is None else request.shortlist
        step = max(1, _FLOATS_A_CALL // (limit * request.rerank_dim))
        hits: list[StoreHits] = []
        for part in blocks(len(request), step):
            shortlists = self._nearest(request, request.queries[first][part], first, limit)
            queries = request.queries[request.rerank_dim][part]
            hits += [self._ordered(*pair, request) for pair in zip(queries, shortlists, strict=True)]
        return hits

    def _nearest(self, request: Request, queries: Floats, dim: int, limit: int) -> Any:
        return self._call(
            "search",
            data=list(queries),
            anns_field=_field(dim),
            limit=limit,
            filter=self._filter(request),
            output_fields=self._outputs(request.rerank_dim, metadata=request.with_metadata),
            search_params={"params": {"ef": limit}},
        )

    def _outputs(self, dim: int, *, metadata: bool) -> list[str]:
        return ["name", *["metadata"] * metadata, _field(dim)]

    def _ordered(self, query: Floats, shortlist: Any, request: Request) -> StoreHits:
        rows, dim = [hit["entity"] for hit in shortlist], request.rerank_dim
        vectors = np.array([row[_field(dim)] for row in rows], np.float32).reshape(-1, dim)
        names = [row["name"] for row in rows]
        metadata = [self._metadata(row) for row in rows] if request.with_metadata else []
        return rerank(query, names, vectors, metadata, request.k, self._known)

    def _metadata(self, row: Any) -> dict[str, Any]:
        return found_metadata(row["metadata"], row["name"], self.where)

    def _filter(self, request: Request) -> str:
        parts = (
            [] if request.where is None else [Where(self._known.fields, lite=self._lite).text(request.where)]
        )
        if request.ids is not None:
            parts.append(one_of("name", request.ids))
        return " and ".join(parts)

    def delete(self, ids: list[str]) -> None:
        """Remove rows."""
        if ids:
            self._call("delete", filter=one_of("name", ids))

    def present(self, ids: list[str]) -> set[str]:
        """Whether each of these ids exists."""
        if not ids:
            return set()
        found = self._call("query", filter=one_of("name", ids), output_fields=["name"])
        return {row["name"] for row in found}

    def count(self) -> int:
        """Number of rows."""
        return int(self._call("query", filter="", output_fields=["count(*)"])[0]["count(*)"])

    def fits(self, most: int) -> bool:
        """Whether there are at most so many rows; the server counts from what it holds in memory."""
        return self.count() <= most

    def scan(self, size: int, ids: list[str] | None = None) -> Iterator[Rows]:
        """All rows in the order of their keys, or those of these ids in one call."""
        dim = self._known.dim
        outputs = self._outputs(dim, metadata=True)
        if ids is None:
            pages = self._pages(size, outputs)
        else:
            pages = iter([self._call("query", filter=one_of("name", ids), output_fields=outputs)])
        for page in filter(None, pages):
            vectors = np.array([row[_field(dim)] for row in page], np.float32)
            yield Rows([row["name"] for row in page], {dim: vectors}, [self._metadata(row) for row in page])

    def names(self, size: int) -> Iterator[list[str]]:
        """The ids of all rows in the order of their keys."""
        for page in self._pages(size, ["name"]):
            yield [row["name"] for row in page]

    def _pages(self, size: int, outputs: list[str]) -> Iterator[Any]:
        found = self._call("query_iterator", filter="", batch_size=size, output_fields=outputs)
        try:
            while page := self._guarded(found.next):
                yield page
        finally:
            found.close()

    def optimize(self) -> None:
        """Index the declared fields, and seal the newest rows; Milvus indexes sealed rows by itself."""
        if not self._lite:  # Milvus Lite has no indexes of JSON
            self._index_fields()
        self._call("flush")

    def _index_fields(self) -> None:
        made = self._call("list_indexes")
        for field, kind in self._known.fields.items():
            name = f"by_{_key(field)[:16]}"
            if name not in made:
                params = self._client.prepare_index_params()
                place = {"json_path": f"metadata[{literal(field)}]", "json_cast_type": _CASTS[kind]}
                params.add_index("metadata", index_type="INVERTED", index_name=name, params=place)
                self._call("create_index", index_params=params)

    def drop(self) -> None:
        """Remove the collection."""
        self._call("drop_collection")

    def close(self) -> None:
        """Close the client, if it was made for this table."""
        if self._owned:
            self._client.close()

    @property
    def _known(self) -> Layout:
        return known(self._layout, self.where)

    def _call(self, method: str, **values: Any) -> Any:
        """One call of the client about this collection; its errors become ours."""
        call = getattr(self._client, method)
        return self._guarded(lambda: call(self._name, timeout=self._timeout_s, **values))

    def _guarded(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except self._milvus.MilvusException as error:
            may_pass = isinstance(error, self._unavailable) or error.code == _RATE_LIMIT or error.retriable
            kind = StoreBusyError if may_pass else StoreError
            raise kind(f"{self.where} refuses: {error.message}") from error
        except (ValueError, OSError) as error:  # of the client itself, such as one that was closed
            raise StoreError(f"{self.where} refuses: {error}") from error
        except self._lost as error:
            raise StoreBusyError(f"{self.where} does not answer: {error.code()}") from error


def _field(dim: int) -> str:
    return f"dim{dim}"


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
