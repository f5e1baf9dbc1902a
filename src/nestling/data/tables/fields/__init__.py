"""Metadata fields of rows: value kinds, parsing, typed columns in memory or on disk."""

from nestling._exports import old_names

_KINDS = "nestling.data.tables.fields.kinds"
__getattr__ = old_names(
    __name__,
    {
        name: f"{_KINDS}.{name}"
        for name in (
            "NOUNS",
            "Value",
            "check_kinds",
            "check_name",
            "converted",
            "joined_kind",
            "kind_of",
            "read_value",
            "widened",
        )
    },
)
