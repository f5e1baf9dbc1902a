"""Qdrant: servers, clusters, and Qdrant Edge in this process."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.search.stores.qdrant.table import QdrantTable as QdrantTable
    from nestling.search.stores.qdrant.table import ServerWords as ServerWords

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "QdrantTable": "table",
        "ServerWords": "table",
    },
)
