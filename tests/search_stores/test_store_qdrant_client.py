"""The adapter of Qdrant servers, against the client's own twin of a server in this process.

The engine itself is asked in the other files; here it is the calls of the client that are tested.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from nestling.errors import ArtifactError, StoreBusyError, StoreError
from nestling.granularity import Nesting
from nestling.search.stores import DatabaseStore, Layout
from nestling.search.stores.qdrant.table import QdrantTable
from nestling.testing import STORE_LAWS, StoreExample

# The twin compares every row, has no indexes of payloads, and tells so; neither is a fault here.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Local mode performs exact:UserWarning", "ignore:Payload indexes have no effect:UserWarning"
)


@pytest.mark.parametrize("law", STORE_LAWS, ids=lambda law: law.__name__)
def test_the_client_keeps_the_law(law: Callable[[StoreExample], None]) -> None:
    client = QdrantClient(":memory:")

    def make(name: str, **layout: Any) -> DatabaseStore:
        return DatabaseStore.create(QdrantTable(client, name), Layout(**layout))

    def reopen(name: str, **expected: Any) -> DatabaseStore:
        return DatabaseStore.open(QdrantTable(client, name), **expected)

    def write(name: str, ids: list[str], vectors: dict[int, Any], metadata: list[Any]) -> None:
        for row, tags in enumerate(metadata):
            named = {f"dim{dim}": matrix[row].tolist() for dim, matrix in vectors.items()}
            payload = {"id": ids[row], "metadata": tags}
            client.upsert(name, [models.PointStruct(id=str(uuid.uuid4()), vector=named, payload=payload)])

    law(StoreExample(make, reopen, rows=150, write=write))
    client.close()


class Failing:
    """A client whose calls fail."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        def fail(*_: object, **__: object) -> None:
            raise self.error

        return fail


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ResponseHandlingException(TimeoutError("timed out")), StoreBusyError),
        (UnexpectedResponse(503, "Service Unavailable", b"", {}), StoreBusyError),
        (UnexpectedResponse(429, "Too Many Requests", b"", {}), StoreBusyError),
        (UnexpectedResponse(401, "Unauthorized", b"", {}), StoreError),
        (UnexpectedResponse(400, "Bad Request", b"", {}), StoreError),
    ],
)
def test_errors_of_the_server_become_ours(error: Exception, kind: type[Exception]) -> None:
    table = QdrantTable(Failing(error), "docs")
    with pytest.raises(kind) as caught:
        table.count()
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error


def test_a_collection_of_others_is_left_alone() -> None:
    client = QdrantClient(":memory:")
    client.create_collection("others", models.VectorParams(size=4, distance=models.Distance.DOT))
    with pytest.raises(ArtifactError, match="not made by nestling"):
        DatabaseStore.create(QdrantTable(client, "others"), Layout(Nesting.chain(dim=(8, 16)), 8))
    client.close()


def test_a_client_that_was_given_stays_open() -> None:
    client = QdrantClient(":memory:")
    store = DatabaseStore.create(QdrantTable(client, "docs"), Layout(Nesting.chain(dim=(8, 16)), 8))
    store.add(["a"], np.ones((1, 16)))
    store.close()
    assert client.count("docs").count == 1
    client.close()
