"""Particulars of PostgreSQL: one statement, the index it uses, codes, connections and names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from nestling.errors import ArtifactError, ConfigError, StoreBusyError, StoreError
from nestling.granularity import Nesting
from nestling.search.stores import DatabaseStore, Layout
from nestling.search.stores.postgres.table import PostgresTable

LAYOUT = Layout(Nesting.chain(dim=(16, 32, 64)), 16, ids="int")
VECTORS = (np.random.default_rng(0).normal(size=(3000, 64)) * np.linspace(2, 0.2, 64)).astype(np.float32)


@pytest.fixture
def connection(postgres: Any) -> Iterator[psycopg.Connection]:
    with psycopg.connect(conninfo(postgres), autocommit=True) as opened:
        yield opened


def conninfo(postgres: Any) -> str:
    return f"user=postgres dbname=postgres host={postgres.pattern.partition('?host=')[2]}"


class Recorder(psycopg.Connection):
    """A connection that remembers what it was asked."""

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        text = query if isinstance(query, str) else query.as_string(self)
        self.asked = [*getattr(self, "asked", []), text]
        return super().execute(query, *arguments, **options)


def test_shortlist_and_rerank_are_one_statement_that_uses_the_index(postgres: Any) -> None:
    with Recorder.connect(conninfo(postgres), autocommit=True) as recorder:
        store = DatabaseStore.create(PostgresTable(recorder, "planned"), LAYOUT)
        store.add(np.arange(3000), VECTORS)
        store.optimize()
        recorder.asked = []
        store.search(VECTORS[:20], 5, shortlist=50)
        searches = [text for text in recorder.asked if "embedding" in text]
        assert len(searches) == 1
        zeros = "array[array_fill(1.0, array[{}])::real[]::vector]"
        statement = searches[0].replace("%(numbers)s", "'{0}'").replace("%(reranks)b", zeros.format(64))
        statement = statement.replace("%(shortlists)b", zeros.format(16))
        plan = "\n".join(row[0] for row in recorder.execute(f"EXPLAIN {statement}").fetchall())
        assert "Index Scan using planned_float32_16" in plan
        store.drop()
        assert not recorder.closed, "a connection that the caller gave stays the caller's"


@pytest.mark.parametrize(("code", "least"), [("float32", 0.98), ("float16", 0.98), ("bit", 0.5)])
def test_codes_of_the_index(connection: Any, code: Any, least: float) -> None:
    store = DatabaseStore.create(PostgresTable(connection, f"coded_{code}", code=code), LAYOUT)
    store.add(np.arange(3000), VECTORS)
    store.optimize()
    exact = store.search(VECTORS[:50] + 0.01, 10, shortlist=None)
    found = store.search(VECTORS[:50] + 0.01, 10, shortlist=400)
    shares = [len(set(a.ids) & set(b.ids)) / 10 for a, b in zip(exact, found, strict=True)]
    assert np.mean(shares) >= least
    again = DatabaseStore.open(PostgresTable(connection, f"coded_{code}"))  # finds out by itself
    repeated = again.search(VECTORS[:50] + 0.01, 10, shortlist=400)
    assert [hits.ids for hits in repeated] == [hits.ids for hits in found]
    again.optimize()
    indexes = connection.execute("SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%hnsw%'").fetchall()
    assert indexes == [(f"coded_{code}_{code}_16",)]
    store.drop()


def test_a_lost_connection_is_made_anew(postgres: Any, connection: Any) -> None:
    opened = []

    def connect() -> psycopg.Connection:
        opened.append(psycopg.connect(conninfo(postgres), autocommit=True))
        return opened[-1]

    store = DatabaseStore.create(PostgresTable(connect, "lost"), LAYOUT)
    store.add([1], VECTORS[:1])
    connection.execute("SELECT pg_terminate_backend(%s)", [opened[0].info.backend_pid])
    assert store.search(VECTORS[:1], 1)[0].ids == [1]
    assert len(opened) == 2
    store.drop()
    assert all(each.closed for each in opened)


def test_a_statement_that_takes_too_long_is_given_up(postgres: Any) -> None:
    def connect() -> psycopg.Connection:
        return psycopg.connect(conninfo(postgres), autocommit=True, options="-c statement_timeout=20")

    table = PostgresTable(connect, "slow")
    with pytest.raises(StoreBusyError, match="statement timeout"), table._transaction(vectors=False) as run:
        run("SELECT pg_sleep(5)")
    table.close()


def test_a_batch_is_written_whole_or_not_at_all(connection: Any) -> None:
    store = DatabaseStore.create(PostgresTable(connection, "whole"), LAYOUT)
    store.add([0], VECTORS[:1])
    connection.execute("ALTER TABLE whole ADD CONSTRAINT few CHECK (id <> '7')")
    with pytest.raises(StoreError, match="few"):
        store.add(np.arange(10), VECTORS[:10])
    assert store.count() == 1
    store.drop()


@pytest.mark.parametrize(
    "name", ['a"; DROP TABLE users; --', "a b", "", "1a", "a-b", "ä", "x" * 49, "a.b", "a\0"]
)
def test_names_are_names(connection: Any, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be called"):
        PostgresTable(connection, name)


def test_capitals_and_keywords_are_names_like_any_other(connection: Any) -> None:
    for name in ("Select", "TABLE", "user"):
        store = DatabaseStore.create(PostgresTable(connection, name), LAYOUT)
        store.add([1], VECTORS[:1])
        store.optimize()
        assert DatabaseStore.open(PostgresTable(connection, name)).count() == 1
        store.drop()


def test_a_table_of_others_is_left_alone(connection: Any) -> None:
    connection.execute("CREATE TABLE others (id int)")
    for use in (DatabaseStore.open, lambda table: DatabaseStore.create(table, LAYOUT)):
        with pytest.raises(ArtifactError, match="not made by nestling"):
            use(PostgresTable(connection, "others"))
    assert connection.execute("SELECT count(*) FROM others").fetchone() == (0,)


def test_a_layout_of_a_newer_nestling_is_refused(connection: Any) -> None:
    store = DatabaseStore.create(PostgresTable(connection, "newer"), LAYOUT)
    for comment, message in (
        ('{"nestling_store": 99}', "schema 99"),
        ('{"nestling_store": 1}', "malformed"),
        ("[]", "malformed"),
    ):
        connection.execute(f"COMMENT ON TABLE newer IS '{comment}'")
        with pytest.raises(ArtifactError, match=message):
            DatabaseStore.open(PostgresTable(connection, "newer"))
    store.drop()


def test_prefixes_too_long_for_an_index_are_refused(connection: Any) -> None:
    wide = Layout(Nesting.chain(dim=(2048, 4096)), 2048)
    with pytest.raises(ConfigError, match=r"up to 2000 dims, not 2048.*float16"):
        DatabaseStore.create(PostgresTable(connection, "wide"), wide)
    store = DatabaseStore.create(PostgresTable(connection, "wide", code="float16"), wide)
    store.add(["a"], np.ones((1, 4096)))
    store.optimize()
    store.drop()
    with pytest.raises(ConfigError, match="'float8'; did you mean"):
        PostgresTable(connection, "wide", code="float8")  # type: ignore[arg-type]


def test_it_takes_part_in_the_callers_transaction(postgres: Any) -> None:
    with psycopg.connect(conninfo(postgres)) as opened:
        with opened.transaction(force_rollback=True):
            store = DatabaseStore.create(PostgresTable(opened, "inside"), LAYOUT)
            store.add([1], VECTORS[:1])
            store.add([2], VECTORS[1:2])
            assert store.count() == 2
        with pytest.raises(ArtifactError, match="does not exist"):
            DatabaseStore.open(PostgresTable(opened, "inside"))
