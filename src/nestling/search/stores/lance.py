"""LanceDB in this process or on object storage: one column for each size, re-ranked where it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nestling.errors import StoreError, require
from nestling.search.stores.layout import Layout, check_name
from nestling.search.stores.rerank import rerank
from nestling.search.stores.store import Floats, Hits, Value
from nestling.search.stores.table import Request, Rows

_KEY = b"nestling"
_FEWEST_ROWS_OF_AN_INDEX = 5000  # below, reading all prefixes is faster than an index, and exact
_ROWS_A_LIST = 1_000_000


class LanceTable:
    """A table of a LanceDB database.

    Metadata stand as ``field=value`` in a list column, which an index of labels can serve.

    Args:
        database: what ``lancedb.connect`` gave.
        name: of the table.

    Raises:
        ConfigError: for a name that is none.
        MissingExtraError: without lancedb.
    """

    def __init__(self, database: Any, name: str) -> None:
        self._arrow = require("pyarrow", "lancedb")
        self._index = require("lancedb.index", "lancedb")
        self._database, self._name = database, check_name(name)
        self.where = f"the LanceDB table {name}"
        self._table: Any = None
        self._layout: Layout | None = None

    def read_layout(self) -> Layout | None:
        """The layout, kept in the metadata of the schema."""
        with self._errors():
            if self._name not in self._database.list_tables().tables:
                return None
            self._table = self._database.open_table(self._name)
            text = (self._table.schema.metadata or {}).get(_KEY, b"").decode()
        self._layout = Layout.from_text(text, self.where)
        return self._layout

    def create(self, layout: Layout) -> None:
        """Make the table."""
        arrow = self._arrow
        vectors = [(_column(dim), arrow.list_(arrow.float32(), dim)) for dim in layout.dims]
        fields = [("id", arrow.string()), ("labels", arrow.list_(arrow.string())), *vectors]
        schema = arrow.schema(fields, metadata={_KEY: layout.to_text().encode()})
        with self._errors():
            self._table = self._database.create_table(self._name, schema=schema)
        self._layout = layout

    def upsert(self, rows: Rows) -> None:
        """Merge by id, as one new version of the table."""
        arrow = self._arrow
        columns: list[Any] = [
            arrow.array(rows.ids, arrow.string()),
            arrow.array([[_label(*field) for field in row.items()] for row in rows.metadata]),
        ]
        for dim in self._known.dims:
            flat = arrow.array(np.ascontiguousarray(rows.vectors[dim]).ravel())
            columns.append(arrow.FixedSizeListArray.from_arrays(flat, dim))
        incoming = arrow.table(
            [c.cast(f.type) for c, f in zip(columns, self._table.schema, strict=True)],
            schema=self._table.schema,
        )
        with self._errors():
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(incoming)

    def search(self, request: Request) -> list[Hits]:
        """A shortlist a query by the engine, with the vectors that the second stage orders here."""
        return [self._search_one(request, row) for row in range(len(request))]

    def _search_one(self, request: Request, row: int) -> Hits:
        first = request.rerank_dim if request.shortlist is None else request.shortlist_dim
        limit = request.k if request.shortlist is None else request.shortlist
        kept = _column(request.rerank_dim)
        with self._errors():
            asked = self._table.search(request.queries[first][row], vector_column_name=_column(first))
            asked = asked.distance_type("dot" if self._known.metric == "dot" else "l2").limit(limit)
            asked = asked.ef(2 * limit).select(["id", kept, "_distance"])
            if allowed := self._filter(request):
                asked = asked.where(allowed, prefilter=True)
            found = asked.to_arrow()
        names, vectors = found["id"].to_pylist(), _matrix(found[kept], request.rerank_dim)
        return rerank(request.queries[request.rerank_dim][row], names, vectors, request.k, self._known.metric)

    def _filter(self, request: Request) -> str:
        parts = []
        if request.ids is not None:
            parts.append(f"id IN ({', '.join(map(_quoted, request.ids))})")
        if request.where:
            labels = ", ".join(_quoted(_label(*field)) for field in request.where.items())
            parts.append(f"array_has_all(labels, [{labels}])")
        return " AND ".join(parts)

    def delete(self, ids: list[str]) -> None:
        """Remove rows."""
        if ids:
            with self._errors():
                self._table.delete(f"id IN ({', '.join(map(_quoted, ids))})")

    def present(self, ids: list[str]) -> set[str]:
        """Which of these ids there are."""
        if not ids:
            return set()
        allowed = f"id IN ({', '.join(map(_quoted, ids))})"
        with self._errors():
            found = self._table.search().where(allowed).select(["id"]).limit(len(ids)).to_arrow()
        return set(found["id"].to_pylist())

    def count(self) -> int:
        """How many rows there are."""
        with self._errors():
            return int(self._table.count_rows())

    def fits(self, most: int) -> bool:
        """Whether there are at most so many rows; the manifest says how many."""
        return self.count() <= most

    def scan(self, size: int) -> Iterator[Rows]:
        """All rows, as they lie in the files."""
        dim = self._known.dim
        with self._errors():
            for batch in self._table.search().select(["id", "labels", _column(dim)]).to_batches(size):
                metadata = [dict(map(_field, labels or [])) for labels in batch["labels"].to_pylist()]
                yield Rows(batch["id"].to_pylist(), {dim: _matrix(batch[_column(dim)], dim)}, metadata)

    def optimize(self) -> None:
        """Index ids, labels and, from 5,000 rows on, prefixes; later, bring the indexes up to date."""
        config = self._index
        metric = "dot" if self._known.metric == "dot" else "l2"
        with self._errors():
            wanted = {"id": config.BTree(), "labels": config.LabelList()}
            rows = self._table.count_rows()
            if rows >= _FEWEST_ROWS_OF_AN_INDEX:
                wanted[_column(self._known.shortlist_dim)] = config.HnswSq(
                    distance_type=metric, num_partitions=-(-rows // _ROWS_A_LIST)
                )
            made = {column for index in self._table.list_indices() for column in index.columns}
            for column in wanted.keys() - made:
                self._table.create_index(column, config=wanted[column])
            self._table.optimize()

    def drop(self) -> None:
        """Remove the table."""
        with self._errors():
            self._database.drop_table(self._name)

    def close(self) -> None:
        """Nothing stays open."""

    @property
    def _known(self) -> Layout:
        if self._layout is None:
            raise StoreError(f"{self.where} is not open; use DatabaseStore.open or create")
        return self._layout

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError, OSError) as error:
            raise StoreError(f"{self.where} refuses: {error}") from error


def _column(dim: int) -> str:
    return f"dim{dim}"


def _label(key: str, value: Value) -> str:
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _field(label: str) -> tuple[str, Value]:
    key, _, value = label.partition("=")
    return key, json.loads(value)


def _quoted(text: str) -> str:
    """A string literal of SQL, where only the quote itself has to be doubled."""
    return "'" + text.replace("'", "''") + "'"


def _matrix(column: Any, dim: int) -> Floats:
    whole = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    return np.asarray(whole.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, dim)
