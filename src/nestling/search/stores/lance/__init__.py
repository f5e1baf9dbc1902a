"""LanceDB, in this process or on object storage."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.search.stores.lance.table import LanceTable as LanceTable

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "LanceTable": "table",
    },
)
