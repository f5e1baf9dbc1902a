"""LanceDB in this process or on object storage: one column for each size, re-ranked where it is read."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nestling.errors import NestlingError, StoreBusyError, StoreError, require
from nestling.kernels.planes.layout import stride_of
from nestling.search.stores.adapter import Request, Rows, known
from nestling.search.stores.client_rerank import rerank
from nestling.search.stores.lance.columns import (
    Column,
    arrow_field,
    column_name,
    columns_needed,
    columns_of,
    quoted,
    rows_of,
    sql_of,
    values_of,
)
from nestling.search.stores.lance.labels import LABELS, give_columns
from nestling.search.stores.layout import Layout, check_name
from nestling.search.stores.results import Floats, StoreHits

_KEY = b"nestling"
_BITS = "bits"
_FEWEST_ROWS_OF_AN_INDEX = 5000  # below, reading all prefixes is faster than an index, and exact
_ROWS_A_LIST = 1_000_000
_PLACE = re.compile(r", \S*\.cargo/\S*")  # where in its own source the engine raised an error


class LanceTable:
    """A table of a LanceDB database.

    Each field of the metadata is a column, made when its first value comes: ``int_year``, ``text_brand``.

    Args:
        database: connection of ``lancedb.connect``.
        name: of the table.
        refresh_s: seconds between checks for what others wrote; 0 checks before every call.

    Raises:
        ConfigError: for a name that is none.
        MissingExtraError: without lancedb.
    """

    precisions = (1, 16, 32)

    def __init__(self, database: Any, name: str, *, refresh_s: float = 0.0) -> None:
        self._arrow = require("pyarrow", "lancedb")
        self._index = require("lancedb.index", "lancedb")
        self._database, self._name = database, check_name(name)
        self.where = f"the LanceDB table {name}"
        self._table: Any = None
        self._refresh_s, self._read_at = refresh_s, float("-inf")
        self._layout: Layout | None = None

    def read_layout(self) -> Layout | None:
        """The layout, kept in the metadata of the schema."""
        with self._errors():
            if self._name not in self._database.list_tables().tables:
                return None
            self._table = self._database.open_table(self._name)
            text = (self._table.schema.metadata or {}).get(_KEY, b"").decode()
        self._layout = Layout.from_text(text, self.where)
        if LABELS in self._table.schema.names:
            with self._errors():
                give_columns(self._table, self._arrow)
        return self._layout

    def create(self, layout: Layout) -> None:
        """Make the table."""
        arrow = self._arrow
        kind = arrow.float16() if layout.bits == 16 else arrow.float32()
        vectors = [(_column(dim), arrow.list_(kind, dim)) for dim in layout.dims]
        if layout.has_codes:
            vectors += [(_BITS, arrow.list_(arrow.uint8(), stride_of(layout.shortlist_dim)))]
        fields = [("id", arrow.string()), *vectors]
        schema = arrow.schema(fields, metadata={_KEY: layout.to_text().encode()})
        with self._errors():
            self._table = self._database.create_table(self._name, schema=schema)
        self._layout = layout

    def upsert(self, rows: Rows) -> None:
        """Merge by id, as one new version of the table."""
        with self._errors():
            self._add_columns(columns_needed(rows.metadata))
            incoming = self._arrow_table(rows)
            merged = self._merge(incoming)
            if merged.num_updated_rows + merged.num_inserted_rows > len(rows.ids):
                # Others wrote several rows of one id, and all of them were replaced.
                self._table.delete(_one_of(rows.ids))
                self._merge(incoming)

    def _merge(self, incoming: Any) -> Any:
        merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        return merge.execute(incoming)

    def _add_columns(self, needed: list[Column]) -> None:
        made = set(self._fresh().schema.names)
        if missing := [column for column in needed if column_name(column) not in made]:
            fields = [arrow_field(self._arrow, column) for column in missing]
            self._table.add_columns(self._arrow.schema(fields))

    def _arrow_table(self, rows: Rows) -> Any:
        """Rows with all columns of the table, so that no value of a row that they replace remains."""
        arrow, columns = self._arrow, columns_of(self._table.schema.names)
        dims: dict[str, Any] = {_column(dim): matrix for dim, matrix in rows.vectors.items()}
        dims |= {} if rows.codes is None else {_BITS: rows.codes}

        def made(field: Any) -> Any:
            if field.name in dims:
                kind = field.type.value_type.to_pandas_dtype()
                flat = arrow.array(np.ascontiguousarray(dims[field.name], kind).ravel())
                return arrow.FixedSizeListArray.from_arrays(flat, field.type.list_size).cast(field.type)
            if field.name in columns:
                return arrow.array(values_of(columns[field.name], rows.metadata), field.type)
            return arrow.array(rows.ids if field.name == "id" else [None] * len(rows.ids), field.type)

        schema = self._table.schema
        return arrow.table([made(field) for field in schema], schema=schema)

    def search(self, request: Request) -> list[StoreHits]:
        """A shortlist a query by the engine, with the vectors that the second stage orders here."""
        with self._errors():
            columns = columns_of(self._fresh().schema.names)
        return [self._search_one(request, row, columns) for row in range(len(request))]

    def _search_one(self, request: Request, row: int, columns: dict[str, Column]) -> StoreHits:
        first, distance, given = self._first(request, row)
        limit = request.k if request.shortlist is None else request.shortlist
        kept = _column(request.rerank_dim)
        shown = columns if request.with_metadata else {}
        with self._errors():
            asked = self._table.search(given, vector_column_name=first)
            asked = asked.distance_type(distance).limit(limit)
            asked = asked.ef(2 * limit).select(["id", kept, "_distance", *shown])
            if allowed := self._filter(request, columns):
                asked = asked.where(allowed, prefilter=True)
            found = asked.to_arrow()
        names, vectors = self._names(found), self._matrix(found, request.rerank_dim)
        metadata = rows_of(shown, found, len(names)) if request.with_metadata else []
        query = request.queries[request.rerank_dim][row]
        return rerank(query, names, vectors, metadata, request.k, self._known)

    def _first(self, request: Request, row: int) -> tuple[str, str, Any]:
        """The column that the engine searches, by which distance, and the query."""
        if request.codes is not None:
            return _BITS, "hamming", request.codes[row]
        dim = request.rerank_dim if request.shortlist is None else request.shortlist_dim
        return _column(dim), self._distance, request.queries[dim][row]

    def _filter(self, request: Request, columns: dict[str, Column]) -> str:
        parts = [] if request.ids is None else [_one_of(request.ids)]
        parts += [] if request.where is None else [sql_of(request.where, columns.values())]
        return " AND ".join(parts)

    def delete(self, ids: list[str]) -> None:
        """Remove rows."""
        if ids:
            with self._errors():
                self._fresh().delete(_one_of(ids))

    def present(self, ids: list[str]) -> set[str]:
        """Whether each of these ids exists."""
        if not ids:
            return set()
        with self._errors():
            found = self._fresh().search().where(_one_of(ids)).select(["id"]).to_arrow()
        return set(found["id"].to_pylist())

    def count(self) -> int:
        """Number of rows."""
        with self._errors():
            return int(self._fresh().count_rows())

    def fits(self, most: int) -> bool:
        """Whether there are at most so many rows; the manifest says how many."""
        return self.count() <= most

    def scan(self, size: int, ids: list[str] | None = None) -> Iterator[Rows]:
        """All rows, or those of these ids, in the order of the files."""
        dim = self._known.dim
        with self._errors():
            columns = columns_of(self._fresh().schema.names)
            asked = self._table.search().select(["id", *columns, _column(dim)])
            for batch in (asked if ids is None else asked.where(_one_of(ids))).to_batches(size):
                names = self._names(batch)
                yield Rows(names, {dim: self._matrix(batch, dim)}, rows_of(columns, batch, len(names)))

    def names(self, size: int) -> Iterator[list[str]]:
        """The ids of all rows, in the order of the files."""
        with self._errors():
            for batch in self._fresh().search().select(["id"]).to_batches(size):
                yield self._names(batch)

    def optimize(self) -> None:
        """Index ids, declared fields and, from 5,000 rows on, prefixes; later, bring indexes up to date."""
        config = self._index
        with self._errors():
            self._add_columns(list(self._known.fields.items()))
            wanted: dict[str, Any] = {"id": config.BTree()}
            for column in self._known.fields.items():
                wanted[column_name(column)] = config.Bitmap() if column[1] == "bool" else config.BTree()
            rows = self._table.count_rows()
            if rows >= _FEWEST_ROWS_OF_AN_INDEX:
                partitions = -(-rows // _ROWS_A_LIST)
                if self._known.has_codes:  # a scan: of bits LanceDB has no graph
                    wanted[_BITS] = config.IvfFlat(distance_type="hamming", num_partitions=partitions)
                else:
                    wanted[_column(self._known.shortlist_dim)] = config.HnswSq(
                        distance_type=self._distance, num_partitions=partitions
                    )
            made = {column for index in self._table.list_indices() for column in index.columns}
            for name in wanted.keys() - made:
                self._table.create_index(name, config=wanted[name])
            self._table.optimize()

    def drop(self) -> None:
        """Remove the table."""
        with self._errors():
            self._database.drop_table(self._name)

    def close(self) -> None:
        """Nothing stays open."""

    @property
    def _known(self) -> Layout:
        return known(self._layout, self.where)

    def _names(self, found: Any) -> list[str]:
        return self._complete(found, "id").to_pylist()  # type: ignore[no-any-return]

    def _matrix(self, found: Any, dim: int) -> Floats:
        flat = self._complete(found, _column(dim)).flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat, np.float32).reshape(-1, dim)

    def _complete(self, found: Any, name: str) -> Any:
        """A column in one piece, where every row has a value; what others write may lack it."""
        column = found[name]
        whole = column.combine_chunks() if hasattr(column, "combine_chunks") else column
        if whole.null_count:
            raise StoreError(
                f"{self.where} holds {whole.null_count} rows without {name}, which another program wrote: "
                "give them one there, or delete them"
            )
        return whole

    @property
    def _distance(self) -> str:
        """Under ``l2`` rows of others, of whatever length, are compared by their angle."""
        if self._known.metric == "euclidean":
            return "l2"
        return "cosine" if self._known.rule.after == "l2" else "dot"

    def _fresh(self) -> Any:
        """The table as it now is; an open one stays at the version that it was opened at, if nobody asks."""
        if time.monotonic() - self._read_at >= self._refresh_s:
            self._table.checkout_latest()
            self._read_at = time.monotonic()
        return self._table

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError, OSError, self._arrow.ArrowException) as error:
            if isinstance(error, NestlingError):
                raise
            text = _PLACE.sub("", str(error).strip())
            kind = StoreBusyError if "commit conflict" in text else StoreError
            raise kind(f"{self.where} refuses: {text}") from error


def _column(dim: int) -> str:
    return f"dim{dim}"


def _one_of(ids: list[str]) -> str:
    return f"id IN ({', '.join(map(quoted, ids))})"
