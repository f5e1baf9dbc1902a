"""The same index on databases, for when one machine is not enough: one adapter each, one contract."""

import warnings
from typing import Any

from nestling.search.stores.database import DatabaseStore
from nestling.search.stores.layout import Layout
from nestling.search.stores.migrate import Copied, copy, export_index, read_store
from nestling.search.stores.store import Batch, Hits
from nestling.search.stores.urls import create_store, open_store

__all__ = [
    "Batch",
    "Copied",
    "DatabaseStore",
    "Hits",
    "Layout",
    "copy",
    "create_store",
    "export_index",
    "open_store",
    "read_store",
]


def __getattr__(name: str) -> Any:
    if name == "Store":  # a protocol with one implementation until 0.2
        warnings.warn(
            "nestling.search.stores.Store is DatabaseStore now; the old name ends with nestling 0.3",
            DeprecationWarning,
            stacklevel=2,
        )
        return DatabaseStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
