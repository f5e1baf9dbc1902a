"""PostgreSQL with pgvector: one column of full vectors, an HNSW index on their prefix as an expression."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np

from nestling.errors import ConfigError, StoreBusyError, StoreError, require, unknown
from nestling.search.stores.adapter import Request, Rows, known
from nestling.search.stores.layout import Layout, check_name
from nestling.search.stores.metadata import found_metadata
from nestling.search.stores.postgres.vectors import adapt_vectors
from nestling.search.stores.postgres.where import Where, index_of, json_of
from nestling.search.stores.results import StoreHits

Code: TypeAlias = Literal["float32", "float16", "bit"]
Run: TypeAlias = Callable[..., list[Any]]

_EF_SEARCH = (40, 1000)  # pgvector's default and its largest
# Of each code: expression of a prefix, operator class without the metric, largest size of an index.
_CODES: dict[Code, tuple[str, str, int]] = {
    "float32": ("{x}::vector({dim})", "vector", 2000),
    "float16": ("{x}::halfvec({dim})", "halfvec", 4000),
    "bit": ("binary_quantize({x}::vector({dim}))::bit({dim})", "bit", 64000),
}
_FAMILIES = {"<~>": "hamming", "<=>": "cosine", "<#>": "ip", "<->": "l2"}
_CREATE = (
    'CREATE TABLE {table} (id text COLLATE "C" PRIMARY KEY, embedding {kind}({dim}) NOT NULL, '
    "metadata jsonb NOT NULL DEFAULT '{{}}' CHECK (jsonb_typeof(metadata) = 'object'){unit})"
)
_UNIT = ", CHECK (abs(vector_norm(embedding::vector) - 1) < 1e-3)"  # the rule normalises, so others have to
_INCOMING = "CREATE TEMP TABLE incoming (id text, embedding vector, metadata jsonb) ON COMMIT DROP"
_UPSERT = (
    "INSERT INTO {table} (id, embedding, metadata) SELECT * FROM incoming ON CONFLICT (id) DO UPDATE "
    "SET embedding = excluded.embedding, metadata = excluded.metadata"
)
_SEARCH = """
    SELECT q.number, best.id, best.distance{metadata}
    FROM unnest(%(numbers)s::int[], {shortlists}, %(reranks)b::vector[])
        AS q(number, shortlist, rerank)
    CROSS JOIN LATERAL (
        SELECT id, {distance} AS distance{metadata}
        FROM (SELECT id, embedding{metadata} FROM {table} {rows}) AS kept
        ORDER BY distance, id LIMIT {k}
    ) AS best
    ORDER BY 1, 3, 2
"""
_LAYOUT = "SELECT to_regclass(%(name)s), obj_description(to_regclass(%(name)s), 'pg_class')"
_INDEXES = """
    SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = to_regclass(%(name)s)
"""
_SCAN = "SELECT {columns} FROM {table} {rest} ORDER BY id LIMIT %(size)s"


class PostgresTable:
    """A table ``(id, embedding, metadata)``; shortlist and re-rank are one SQL statement.

    Args:
        connection: of psycopg 3, which stays the caller's; or a function that makes one, which is called
            again when the connection is lost.
        name: of the table, in the first schema of the search path.
        code: the code of a prefix in the index: ``float32``, ``float16`` (half the size), or ``bit`` (the
            signs alone, compared by Hamming distance: ask for longer shortlists). None takes that of the
            index there is, or else the one of the layout's ``shortlist_bits``.

    Raises:
        ConfigError: for a name that is none, or an unknown code.
        MissingExtraError: without psycopg.
    """

    precisions = (1, 16, 32)

    def __init__(self, connection: Any, name: str, *, code: Code | None = None) -> None:
        if code is not None and code not in _CODES:
            raise ConfigError(unknown("code", code, _CODES))
        self._psycopg, self._sql = require("psycopg", "postgres"), require("psycopg.sql", "postgres")
        self._name = check_name(name)
        self._finds_code = code is None
        self._code: Code = code or "float32"
        self.where = f"the PostgreSQL table {name}"
        self._connect: Callable[[], Any] | None = connection if callable(connection) else None
        self._connection: Any = None if callable(connection) else connection
        self._adapted: Any = None
        self._layout: Layout | None = None

    def read_layout(self) -> Layout | None:
        """The layout, kept as the comment of the table."""
        names = {"name": f'"{self._name}"'}
        with self._transaction(vectors=False) as run:
            [(table, comment)] = run(_LAYOUT, names)
            indexes = {index for (index,) in run(_INDEXES, names)}
        self._layout = None if table is None else Layout.from_text(comment, self.where)
        if self._layout is not None and self._finds_code:
            made = [code for code in _CODES if self._index(code) in indexes]
            self._code = made[0] if made else _code_of(self._layout)
        return self._layout

    def create(self, layout: Layout) -> None:
        """Make the table; the extension is made too, where the user may."""
        if self._finds_code:
            self._code = _code_of(layout)
        elif layout.has_codes and self._code != "bit":
            raise ConfigError(f"shortlist_bits=1 needs code='bit', not {self._code!r}; leave code out")
        most = _CODES[self._code][2]
        if layout.shortlist_dim > most:
            raise ConfigError(
                f"pgvector indexes {self._code} up to {most} dims, not {layout.shortlist_dim}; take a "
                "smaller shortlist_dim, or code='float16' or 'bit'"
            )
        literal = self._sql.Literal
        with self._transaction(vectors=False) as run:
            run("CREATE EXTENSION IF NOT EXISTS vector")
            run(
                _CREATE,
                kind=self._sql.SQL("halfvec" if layout.bits == 16 else "vector"),
                dim=literal(layout.dim),
                unit=self._sql.SQL(_UNIT if layout.rule.after == "l2" else ""),
            )
            run("CREATE INDEX ON {table} USING gin (metadata jsonb_path_ops)")
            run("COMMENT ON TABLE {table} IS {text}", text=literal(layout.to_text()))
        self._layout = layout

    def upsert(self, rows: Rows) -> None:
        """Copy into a temporary table, then insert or replace, in one transaction."""
        jsonb = require("psycopg.types.json", "postgres").Jsonb
        with self._transaction() as run, self._connection.cursor() as cursor:
            run(_INCOMING)
            with cursor.copy("COPY incoming (id, embedding, metadata) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["text", "vector", "jsonb"])
                vectors = rows.vectors[self._known.dim]
                for name, vector, tags in zip(rows.ids, vectors, rows.metadata, strict=True):
                    copy.write_row((name, vector, jsonb(tags, dumps=json_of)))
            run(_UPSERT)
            run("DROP TABLE incoming")  # at once: the caller's transaction may write another batch

    def search(self, request: Request) -> list[StoreHits]:
        """All queries in one statement: for each, a shortlist by the index, then the order in full."""
        values = {
            "numbers": list(range(len(request))),
            "shortlists": self._shortlists(request),
            "reranks": list(request.queries[request.rerank_dim]),
            "ids": request.ids,
        }
        parts, condition = self._parts(request)
        with self._transaction() as run:
            if request.shortlist is not None:
                least, most = _EF_SEARCH
                width = self._sql.Literal(min(most, max(least, request.shortlist)))
                run("SET LOCAL hnsw.ef_search = {width}", width=width)
                run("SET LOCAL hnsw.iterative_scan = relaxed_order")  # the outer order is strict anyhow
            found = run(_SEARCH, values | condition, **parts)
        answers: list[list[Any]] = [[] for _ in range(len(request))]
        for number, *row in found:
            answers[number].append(row)
        return [self._hits(rows) for rows in answers]

    def _shortlists(self, request: Request) -> list[Any]:
        """Parameters of the first stage for each query: a vector, or bits as text."""
        if request.codes is None:
            dim = request.rerank_dim if request.shortlist is None else request.shortlist_dim
            return list(request.queries[dim])
        bits = np.unpackbits(request.codes, axis=1, count=request.shortlist_dim)
        return ["".join(map(str, row)) for row in bits.tolist()]

    def _hits(self, rows: list[Any]) -> StoreHits:
        """Hits of rows of id, distance and perhaps metadata; pgvector gives negative inner products."""
        sign = -1 if self._known.metric == "dot" else 1
        metadata = [found_metadata(row[2], row[0], self.where) for row in rows if len(row) > 2]
        return StoreHits(
            [row[0] for row in rows], np.array([sign * row[1] for row in rows], np.float32), metadata
        )

    def _parts(self, request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parts of the statement, made of sizes and of names, and the values of its condition."""
        sql, where = self._sql, Where(self._known.fields)
        allowed = [sql.SQL("id = ANY(%(ids)s)")] * (request.ids is not None)
        allowed += [where.text(request.where)] if request.where is not None else []
        rows = sql.SQL("WHERE ") + sql.SQL(" AND ").join(allowed) if allowed else sql.SQL("")
        if request.shortlist is not None:
            bits = f"q.shortlist::bit({request.shortlist_dim})"
            asked = self._coded("q.shortlist") if request.codes is None else bits
            nearest = f" ORDER BY {self._prefix()} {self._operator()} {asked} LIMIT {request.shortlist}"
            rows = rows + sql.SQL(nearest)
        offered = "embedding::vector"
        if request.rerank_dim < self._known.dim:
            offered = f"subvector({offered}, 1, {request.rerank_dim})"
            offered = f"l2_normalize({offered})" if self._known.rule.after == "l2" else offered
        operator = "<#>" if self._known.metric == "dot" else "<->"
        metadata = ", metadata" if request.with_metadata else ""
        texts = {
            "distance": f"{offered} {operator} q.rerank",
            "k": str(request.k),
            "metadata": metadata,
            "shortlists": "%(shortlists)b::vector[]" if request.codes is None else "%(shortlists)s::text[]",
        }
        return {name: sql.SQL(text) for name, text in texts.items()} | {"rows": rows}, where.values

    def delete(self, ids: list[str]) -> None:
        """Remove rows."""
        with self._transaction(vectors=False) as run:
            run("DELETE FROM {table} WHERE id = ANY(%s)", [ids])

    def present(self, ids: list[str]) -> set[str]:
        """Whether each of these ids exists."""
        with self._transaction(vectors=False) as run:
            return {name for (name,) in run("SELECT id FROM {table} WHERE id = ANY(%s)", [ids])}

    def count(self) -> int:
        """Number of rows; PostgreSQL reads them all for it."""
        with self._transaction(vectors=False) as run:
            return int(run("SELECT count(*) FROM {table}")[0][0])

    def fits(self, most: int) -> bool:
        """Whether there are at most so many rows."""
        with self._transaction(vectors=False) as run:
            return not run("SELECT 1 FROM {table} OFFSET %s LIMIT 1", [most])

    def scan(self, size: int, ids: list[str] | None = None) -> Iterator[Rows]:
        """All rows, or those of these ids, in the order of their ids."""
        for names, vectors, metadata in self._pages("id, embedding::vector, metadata", size, ids):
            tags = [found_metadata(*row, self.where) for row in zip(metadata, names, strict=True)]
            yield Rows(names, {self._known.dim: np.stack(vectors)}, tags)

    def names(self, size: int) -> Iterator[list[str]]:
        """The ids of all rows, in their order."""
        for (names,) in self._pages("id", size):
            yield names

    def _pages(self, columns: str, size: int, ids: list[str] | None = None) -> Iterator[list[list[Any]]]:
        """Columns of all rows, or of some, in the order of ids; each page is a statement of its own."""
        values: dict[str, Any] = {"size": size, "ids": ids}
        allowed = [] if ids is None else ["id = ANY(%(ids)s)"]
        while True:
            beyond = [*allowed, "id > %(after)s"] if "after" in values else allowed
            rest = f"WHERE {' AND '.join(beyond)}" if beyond else ""
            with self._transaction() as run:
                found = run(_SCAN, values, columns=self._sql.SQL(columns), rest=self._sql.SQL(rest))
            if not found:
                return
            yield [list(part) for part in zip(*found, strict=True)]
            values["after"] = found[-1][0]

    def optimize(self) -> None:
        """Make the HNSW index of the prefixes and those of declared fields, once; PostgreSQL keeps them."""
        family = f"{_CODES[self._code][1]}_{_FAMILIES[self._operator()]}_ops"
        with self._transaction(vectors=False) as run:
            run("SET LOCAL statement_timeout = 0")
            run(
                "CREATE INDEX IF NOT EXISTS {index} ON {table} USING hnsw (({prefix}) {family})",
                index=self._sql.Identifier(self._index(self._code)),
                prefix=self._sql.SQL(self._prefix()),
                family=self._sql.SQL(family),
            )
            for field, kind in self._known.fields.items():
                name, place = index_of(self._sql, self._name, field, kind)
                run(
                    "CREATE INDEX IF NOT EXISTS {index} ON {table} ({place})",
                    index=self._sql.Identifier(name),
                    place=place,
                )
            run("ANALYZE {table}")

    def drop(self) -> None:
        """Remove the table with its indexes."""
        with self._transaction(vectors=False) as run:
            run("DROP TABLE IF EXISTS {table}")

    def close(self) -> None:
        """Close the connection, if it was made here."""
        if self._connect is not None and self._connection is not None:
            self._connection.close()

    def _index(self, code: str) -> str:
        return f"{self._name}_{code}_{self._known.shortlist_dim}"

    def _coded(self, vector: str) -> str:
        layout, dim = self._known, self._known.shortlist_dim
        if layout.has_codes:  # the bit says on which side of the mean of the code an entry lies
            centre = ",".join(map(str, layout.rule.needed_code.centre[:dim].tolist()))
            vector = f"({vector}::vector({dim}) - '[{centre}]'::vector({dim}))"
        return _CODES[self._code][0].format(x=vector, dim=dim)

    def _prefix(self) -> str:
        return self._coded(f"subvector(embedding, 1, {self._known.shortlist_dim})")

    def _operator(self) -> str:
        """The column is normalised at its full size alone, so prefixes of it are compared by their angle."""
        if self._code == "bit":
            return "<~>"
        if self._known.rule.after == "l2":
            return "<=>"
        return "<#>" if self._known.metric == "dot" else "<->"

    @property
    def _known(self) -> Layout:
        return known(self._layout, self.where)

    @contextmanager
    def _transaction(self, *, vectors: bool = True) -> Iterator[Run]:
        """Run statements that all count or none; errors of the server become ours."""
        try:
            if self._connect is not None and (self._connection is None or self._connection.closed):
                self._connection = self._connect()
            if vectors and self._adapted is not self._connection:
                adapt_vectors(self._connection)
                self._adapted = self._connection
            with self._connection.transaction():
                yield self._run
        except (self._psycopg.OperationalError, self._psycopg.InterfaceError) as error:
            raise StoreBusyError(f"{self.where} does not answer: {_first_line(error)}") from error
        except self._psycopg.Error as error:
            raise StoreError(f"{self.where} refuses: {_first_line(error)}") from error

    def _run(self, statement: str, values: Any = None, **parts: Any) -> list[Any]:
        """Run one statement, in whose text ``{table}`` and the parts are put as names, numbers or SQL."""
        text = self._sql.SQL(statement).format(table=self._sql.Identifier(self._name), **parts)
        cursor = self._connection.execute(text, values, binary=True)
        return list(cursor.fetchall()) if cursor.description else []


def _code_of(layout: Layout) -> Code:
    """The code of prefixes that a layout asks for."""
    return "bit" if layout.has_codes else "float16" if layout.bits == 16 else "float32"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
