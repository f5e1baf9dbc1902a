"""The binary form of pgvector's vectors for psycopg, so that numbers are not sent as text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.errors import StoreError, require

_OLDEST = (0, 8)
_HEADER_BYTES = 4


def adapt_vectors(connection: Any) -> None:
    """Make ``connection`` take and give numpy vectors.

    Raises:
        StoreError: if the database lacks pgvector, or has one older than 0.8.
    """
    version = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    if version is None or tuple(map(int, version[0].split(".")[:2])) < _OLDEST:
        found = "no pgvector" if version is None else f"pgvector {version[0]}"
        raise StoreError(
            f"the database has {found}, and 0.8 or newer is needed; its owner installs it with: "
            "CREATE EXTENSION vector (or ALTER EXTENSION vector UPDATE)"
        )
    types, adapt = require("psycopg.types", "postgres"), require("psycopg.adapt", "postgres")
    binary = require("psycopg.pq", "postgres").Format.BINARY
    info = types.TypeInfo.fetch(connection, "vector")
    info.register(connection)
    dumper = type("VectorDumper", (adapt.Dumper,), {"format": binary, "oid": info.oid, "dump": _dump})
    loader = type("VectorLoader", (adapt.Loader,), {"format": binary, "load": _load})
    connection.adapters.register_dumper(np.ndarray, dumper)
    connection.adapters.register_loader(info.oid, loader)


def _dump(_: Any, vector: NDArray[np.float32]) -> bytes:
    """Number of entries in two bytes, two bytes unused, then the entries, all big-endian."""
    return len(vector).to_bytes(2, "big") + b"\0\0" + vector.astype(">f4").tobytes()


def _load(_: Any, data: Any) -> NDArray[np.float32]:
    return np.frombuffer(data, ">f4", offset=_HEADER_BYTES).astype(np.float32)
