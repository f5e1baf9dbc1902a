"""PostgreSQL with pgvector."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.search.stores.postgres.table import PostgresTable as PostgresTable

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "PostgresTable": "table",
    },
)
