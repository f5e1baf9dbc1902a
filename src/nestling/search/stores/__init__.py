"""The same index on databases, for when one machine is not enough: one adapter each, one contract."""

from nestling._exports import old_names
from nestling.search.stores.database import DatabaseStore
from nestling.search.stores.layout import Layout
from nestling.search.stores.migrate import Copied, copy, export_index, read_store
from nestling.search.stores.results import Batch, StoreHits
from nestling.search.stores.urls import create_store, open_store

__all__ = [
    "Batch",
    "Copied",
    "DatabaseStore",
    "Layout",
    "StoreHits",
    "copy",
    "create_store",
    "export_index",
    "open_store",
    "read_store",
]

__getattr__ = old_names(__name__, {"Hits": "StoreHits", "Store": "DatabaseStore"})
