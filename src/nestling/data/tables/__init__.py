"""Tables of records (CSV, TSV, JSON lines, parquet, plain lines): parsing, columns, types, roles."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.data.tables.description import TableFile as TableFile
    from nestling.data.tables.fields.words import said_by as said_by
    from nestling.data.tables.table import read_table as read_table

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "TableFile": "description",
        "read_table": "table",
        "said_by": "fields.words",
    },
)
