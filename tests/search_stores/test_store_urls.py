"""Stores by URL: what is read, what is refused, what is never said, and servers that are not there."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from nestling.errors import ArtifactError, ConfigError, MissingExtraError, NestlingError, StoreError
from nestling.granularity import Nesting
from nestling.search.stores import Layout, create_store, open_store

SECRET = "hunter2"  # no message may contain it
LAYOUT = Layout(Nesting.chain(dim=(8, 16)), 8)
SERVERS = ("postgres://user@{}/db/docs", "qdrant://{}/docs", "milvus://{}/docs")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://host/docs", "'redis'"),
        ("qdrants://host/docs", "did you mean 'qdrant'"),
        ("", "Allowed: postgres, qdrant, milvus, lancedb"),
        ("postgres://host", "must end in the name of a table"),
        ("postgres://host/docs", "names a database and a table"),
        ("postgres://host/a/b/docs", "names a database and a table"),
        ("postgres://host:many/db/docs", "port"),
        ("postgres://host/db/docs;drop", "cannot be called"),
        ("postgres://host/db/docs?cod=bit", "did you mean 'code'"),
        ("postgres://host/db/docs?code=int7", "unknown code 'int7'"),
        ("qdrant://host:6333/a/docs", "the collection alone"),
        ("qdrant://host/docs?https=yes", "true or false"),
        ("qdrant://host/docs?shards=0", "at least 1"),
        ("milvus:///folder/docs", "ends in .db"),
        ("milvus://host/docs?replicas=2", "unknown option"),
        ("lancedb://folder/docs", "three slashes"),
        ("lancedb:///folder/docs?x=1", "unknown option"),
    ],
)
def test_a_url_that_is_none_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgres://user:{SECRET}@host/db/docs",
        f"qdrant://user:{SECRET}@host/docs",
        f"milvus://:{SECRET}@host/docs",
        f"postgres://user:{SECRET}@host:badport/db/docs",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="PGPASSWORD") as caught:
        open_store(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGPASSWORD", "QDRANT_API_KEY", "MILVUS_TOKEN"):
        monkeypatch.setenv(name, SECRET)


@pytest.mark.parametrize("pattern", SERVERS)
@pytest.mark.parametrize("use", [open_store, lambda url, **options: create_store(url, LAYOUT, **options)])
def test_a_server_that_is_not_there_is_a_clear_error(
    pattern: str, use: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets(monkeypatch)
    monkeypatch.setattr("nestling.search.stores.retry._FIRST_WAIT_S", 0.001)
    option = "" if "postgres" in pattern else "?https=false"
    warned = pytest.warns(UserWarning, match="insecure") if "qdrant" in pattern else nullcontext()
    with warned, pytest.raises(StoreError, match="does not answer") as caught:
        use(pattern.format(f"127.0.0.1:{closed_port}") + option, timeout_s=2)
    assert_kept(caught.value)


@pytest.mark.parametrize("pattern", SERVERS)
def test_a_server_that_says_nothing_is_given_up(
    pattern: str, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nestling.search.stores.retry._ATTEMPTS", 2)
    start = time.monotonic()
    with pytest.raises(StoreError, match="does not answer"):
        open_store(pattern.format(f"127.0.0.1:{silent_port}"), timeout_s=1)
    assert time.monotonic() - start < 10


def assert_kept(error: BaseException) -> None:
    """The secret is in no message of the chain, and in no representation; clients tie knots into chains."""
    chain: list[BaseException] = []
    links: list[BaseException | None] = [error]
    while links:
        link = links.pop()
        if link is not None and not any(link is seen for seen in chain):
            assert SECRET not in f"{link} {link!r}"
            chain.append(link)
            links += [link.__cause__, link.__context__]
    assert len(chain) > 1


def test_representations_hold_no_secret(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets(monkeypatch)
    store = engine.make("secretive", nesting=LAYOUT.nesting, shortlist_dim=8)
    assert "secretive" in repr(store)
    assert SECRET not in repr(store) + repr(vars(store)) + store.layout.to_text()
    store.drop()


def test_a_store_that_is_not_there_names_the_command_that_makes_it(engine: Any) -> None:
    with pytest.raises(ArtifactError, match="nestling index export"):
        open_store(engine.url("nowhere"))


def test_a_store_is_made_once(engine: Any) -> None:
    with engine.make("once", nesting=LAYOUT.nesting, shortlist_dim=8) as store:
        store.add(["a"], [[1.0] * 16])
    with pytest.raises(ArtifactError, match="exists"):
        engine.make("once", nesting=LAYOUT.nesting, shortlist_dim=8)
    again = engine.reopen("once")
    assert again.count() == 1
    again.drop()


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("postgres://host/db/docs", "psycopg", "postgres"),
        ("qdrant://host/docs", "qdrant_client", "qdrant"),
        ("qdrant:///folder/docs", "qdrant_edge", "qdrant"),
        ("milvus://host/docs", "pymilvus", "milvus"),
        ("milvus:///folder/all.db/docs", "milvus_lite", "milvus"),
        ("lancedb:///folder/docs", "lancedb", "lancedb"),
    ],
)
def test_a_missing_client_names_its_extra(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(module), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=rf"nestling\[{extra}\]"):
        open_store(url)


class Absent:
    """An import system in which one package is not installed."""

    def __init__(self, module: str) -> None:
        self.module = module

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == self.module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_errors_are_ours() -> None:
    assert issubclass(StoreError, NestlingError)
