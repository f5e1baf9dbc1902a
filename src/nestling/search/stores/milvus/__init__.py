"""Milvus, from Milvus Lite to a cluster."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.search.stores.milvus.table import MilvusTable as MilvusTable

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "MilvusTable": "table",
    },
)
