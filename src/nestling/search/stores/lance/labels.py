"""Older tables of LanceDB, whose metadata are ``field=value`` texts in a list of labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from nestling.data.tables.fields.kinds import Value
from nestling.search.stores.lance.columns import (
    arrow_field,
    column_name,
    columns_needed,
    columns_of,
    values_of,
)

LABELS = "labels"
_ROWS = 5000


def give_columns(table: Any, arrow: Any) -> None:
    """Move the metadata of a table into columns; after an interruption, calling it again resumes.

    Its indexes are dropped: that of the prefixes may be of another distance.
    """
    needed = list(dict.fromkeys(c for _, rows in _labelled(table) for c in columns_needed(rows)))
    if missing := [column for column in needed if column_name(column) not in table.schema.names]:
        table.add_columns(arrow.schema([arrow_field(arrow, column) for column in missing]))
    columns = {name: c for name, c in columns_of(table.schema.names).items() if c in needed}
    for ids, rows in _labelled(table):
        made = {name: values_of(column, rows) for name, column in columns.items()}
        fields = [table.schema.field("id"), *(table.schema.field(name) for name in made)]
        incoming = arrow.table([ids, *made.values()], schema=arrow.schema(fields))
        table.merge_insert("id").when_matched_update_all().execute(incoming)
    for index in table.list_indices():
        table.drop_index(index.name)
    table.drop_columns([LABELS])


def _labelled(table: Any) -> Iterator[tuple[list[str], list[dict[str, Value]]]]:
    for batch in table.search().select(["id", LABELS]).to_batches(_ROWS):
        yield batch["id"].to_pylist(), [_read(labels) for labels in batch[LABELS].to_pylist()]


def _read(labels: list[str] | None) -> dict[str, Value]:
    split = [label.partition("=") for label in labels or []]
    return {field: json.loads(value) for field, _, value in split}
