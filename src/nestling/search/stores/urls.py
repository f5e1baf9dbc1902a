"""Stores by URL, which names the database and the table; secrets come from the environment alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from nestling.cut import CutRule
from nestling.errors import ConfigError, StoreBusyError, StoreError, require, unknown
from nestling.search.stores.adapter import Table
from nestling.search.stores.database import DatabaseStore
from nestling.search.stores.layout import Layout, check_name

_CONNECT_TIMEOUT_S = 5
_CLOUD_REFRESH_S = 1.0  # asking object storage for what others wrote takes some ten milliseconds


@dataclass(frozen=True)
class _Place:
    """A parsed URL. ``folders`` are the parts of the path before the table."""

    url: SplitResult
    scheme: str
    port: int | None
    folders: tuple[str, ...]
    table: str
    options: dict[str, str]
    timeout_s: float

    @property
    def folder(self) -> Path:
        return Path("/", *self.folders)


def open_store(
    url: str, *, encoder: str | None = None, rule: CutRule | None = None, timeout_s: float = 30.0
) -> DatabaseStore:
    """The store that a URL names.

    - ``postgres://user@host:5432/database/table``; options ``code``, ``sslmode``, and ``host`` for the folder
      of a socket; the password from ``PGPASSWORD``
    - ``qdrant://host:6333/collection``; options ``https``, ``shards``, ``replicas``; the key from
      ``QDRANT_API_KEY``
    - ``qdrant:///folder/table``: in this process
    - ``milvus://host:19530/collection``; options ``https``, ``shards``; the token from ``MILVUS_TOKEN``
    - ``milvus:///folder/file.db/table``: in this process
    - ``lancedb:///folder/table``; ``lancedb+s3://bucket/folder/table``, also ``+gs`` and ``+az``, with the
      secrets where those clouds look for them

    Args:
        url: as above; options follow a ``?``, as in ``?shards=6&replicas=2``.
        encoder: name of the encoder of the queries; None trusts the caller.
        rule: the cut rule that the caller expects; None takes the one of the table.
        timeout_s: for each call to a server.

    Raises:
        ConfigError: for a URL that is none of these, or that holds a password; for a table that was made
            for another encoder or cut rule.
        ArtifactError: if the table does not exist, or nestling did not make it.
        StoreError: if the database cannot be reached or refuses.
        MissingExtraError: without the client of that database.
    """
    table = table_at(url, timeout_s=timeout_s)
    try:
        return DatabaseStore.open(table, encoder=encoder, rule=rule)
    except Exception:
        table.close()
        raise


def create_store(url: str, layout: Layout, *, timeout_s: float = 30.0) -> DatabaseStore:
    """Make the table that a URL names; arguments and errors are those of :func:`open_store`.

    Raises:
        ArtifactError: if there is one already.
    """
    table = table_at(url, timeout_s=timeout_s)
    try:
        return DatabaseStore.create(table, layout)
    except Exception:
        table.close()
        raise


def table_at(url: str, *, timeout_s: float = 30.0) -> Table:
    """The table that a URL names, which need not exist; arguments and errors as in :func:`open_store`."""
    place = read_url(url, timeout_s)
    return _MAKERS[place.scheme][0](place)


def read_url(url: str, timeout_s: float = 30.0) -> _Place:
    """Parses and checks a URL before any database is opened.

    Raises:
        ConfigError: for a URL of no kind of store, or that holds a password.
    """
    parts = urlsplit(url)
    scheme = "postgres" if parts.scheme == "postgresql" else parts.scheme
    if scheme not in _MAKERS:
        raise ConfigError(unknown("kind of store", scheme, _MAKERS))
    if parts.password is not None:
        raise ConfigError(
            "a URL with a password ends up in histories and logs; leave it out and set the environment "
            "variable PGPASSWORD, QDRANT_API_KEY or MILVUS_TOKEN"
        )
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"the port of a {scheme} URL must be a number from 0 to 65535") from error
    folders = tuple(unquote(part) for part in parts.path.split("/") if part)
    if not folders:
        raise ConfigError(f"a {scheme} URL must end in the name of a table, as in {_EXAMPLES[scheme]}")
    allowed = _MAKERS[scheme][1]
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for option in options:
        if option not in allowed:
            raise ConfigError(unknown(f"option of a {scheme} URL", option, allowed or ["none"]))
    if scheme == "lancedb" and parts.netloc:
        raise ConfigError(f"a lancedb URL has three slashes and a folder, as in {_EXAMPLES['lancedb']}")
    return _Place(parts, scheme, port, folders[:-1], check_name(folders[-1]), options, timeout_s)


def _postgres(place: _Place) -> Table:
    from nestling.search.stores.postgres.table import PostgresTable

    psycopg = require("psycopg", "postgres")
    if len(place.folders) != 1:
        raise ConfigError(f"a postgres URL names a database and a table, as in {_EXAMPLES['postgres']}")
    settings = {
        "host": place.options.get("host", place.url.hostname),
        "port": place.port,
        "user": None if place.url.username is None else unquote(place.url.username),
        "dbname": place.folders[0],
        "sslmode": place.options.get("sslmode"),
        "connect_timeout": min(_CONNECT_TIMEOUT_S, max(1, round(place.timeout_s))),
        "options": f"-c statement_timeout={round(place.timeout_s * 1000)}",
    }
    given = {name: value for name, value in settings.items() if value is not None}
    code: Any = place.options.get("code")
    return PostgresTable(lambda: psycopg.connect(autocommit=True, **given), place.table, code=code)


def _qdrant(place: _Place) -> Table:
    if place.url.hostname is None:
        from nestling.search.stores.qdrant.edge import QdrantEdgeTable

        return QdrantEdgeTable(place.folder, place.table)
    from nestling.search.stores.qdrant.table import QdrantTable

    _refuse_folders(place)
    key = os.environ.get("QDRANT_API_KEY")
    client = require("qdrant_client", "qdrant").QdrantClient(
        host=place.url.hostname,
        port=place.port or 6333,
        https=_flag(place, "https", default=key is not None),
        api_key=key,
        timeout=max(1, round(place.timeout_s)),
        check_compatibility=False,
    )
    names = {"shards": "shard_number", "replicas": "replication_factor"}
    return QdrantTable(client, place.table, owned=True, options=_numbers(place, names))


def _milvus(place: _Place) -> Table:
    from nestling.search.stores.milvus.table import MilvusTable

    milvus = require("pymilvus", "milvus")
    if place.url.hostname is None:
        if not str(place.folder).endswith(".db"):
            raise ConfigError("Milvus Lite keeps a file that ends in .db, as in milvus:///data/items.db/docs")
        require("milvus_lite", "milvus")
        with _opening(place.folder):
            place.folder.parent.mkdir(parents=True, exist_ok=True)
        uri, token = str(place.folder), ""
    else:
        _refuse_folders(place)
        token = os.environ.get("MILVUS_TOKEN", "")
        scheme = "https" if _flag(place, "https", default=bool(token)) else "http"
        uri = f"{scheme}://{place.url.hostname}:{place.port or 19530}"
    try:
        client = milvus.MilvusClient(uri, token=token, timeout=min(_CONNECT_TIMEOUT_S, place.timeout_s))
    except milvus.MilvusException as error:
        if place.url.hostname is None:
            raise StoreError(
                f"Milvus Lite cannot open {uri}: another process has it open (close it there, or run a "
                "server for several: milvus://host:19530/collection), or its files cannot be read: "
                f"{error.message}"
            ) from error
        raise StoreBusyError(f"Milvus does not answer: {error.message}") from error
    options = _numbers(place, {"shards": "num_shards"})
    return MilvusTable(client, place.table, owned=True, timeout_s=place.timeout_s, options=options)


def _lancedb(place: _Place) -> Table:
    from nestling.search.stores.lance.table import LanceTable

    lancedb = require("lancedb", "lancedb")
    _, _, cloud = place.url.scheme.partition("+")
    home = "/".join((f"{cloud}://{place.url.netloc}", *place.folders)) if cloud else str(place.folder)
    with _opening(home):
        database = lancedb.connect(home)
    return LanceTable(database, place.table, refresh_s=_CLOUD_REFRESH_S if cloud else 0.0)


@contextmanager
def _opening(place: object) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(f"{place} cannot be opened: {error}") from error


def _refuse_folders(place: _Place) -> None:
    if place.folders:
        raise ConfigError(
            f"after the host of a {place.url.scheme} URL comes the collection alone, as in "
            f"{_EXAMPLES[place.url.scheme]}"
        )


def _flag(place: _Place, option: str, *, default: bool) -> bool:
    given = place.options.get(option, "true" if default else "false")
    if given not in ("true", "false"):
        raise ConfigError(f"{option}={given!r} must be true or false")
    return given == "true"


def _numbers(place: _Place, names: dict[str, str]) -> dict[str, int]:
    found = {}
    for option, name in names.items():
        given = place.options.get(option)
        if given is not None:
            if not given.isdecimal() or int(given) < 1:
                raise ConfigError(f"{option}={given!r} must be a whole number of at least 1")
            found[name] = int(given)
    return found


_Maker = Callable[[_Place], Table]
_MAKERS: dict[str, tuple[_Maker, tuple[str, ...]]] = {
    "postgres": (_postgres, ("code", "host", "sslmode")),
    "qdrant": (_qdrant, ("https", "shards", "replicas")),
    "milvus": (_milvus, ("https", "shards")),
    "lancedb": (_lancedb, ()),
    "lancedb+s3": (_lancedb, ()),
    "lancedb+gs": (_lancedb, ()),
    "lancedb+az": (_lancedb, ()),
}
_EXAMPLES = {
    "postgres": "postgres://user@host:5432/database/table",
    "qdrant": "qdrant://host:6333/collection",
    "milvus": "milvus://host:19530/collection",
    "lancedb": "lancedb:///folder/table",
    "lancedb+s3": "lancedb+s3://bucket/folder/table",
    "lancedb+gs": "lancedb+gs://bucket/folder/table",
    "lancedb+az": "lancedb+az://container/folder/table",
}
