"""Texts with their ids and fields, given as a table or as lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nestling.data.tables.description import TableFile
from nestling.data.tables.fields.columns import Columns, Kinds
from nestling.data.tables.fields.kinds import FieldKind
from nestling.errors import ConfigError, DataError

TEXT = "text"
"""The field that holds the texts, unless a table calls it otherwise."""


@dataclass(frozen=True)
class TextSource:
    """Texts with their ids and fields.

    Args:
        texts: can be iterated over several times.
        ids: of the texts; None numbers them.
        kinds: type of each field.
        fields: gives the columns of the fields, from the start at each call.
        columns: names of the columns in the table, by their part (``text``, ``id``).
    """

    texts: Iterable[str]
    ids: Any
    kinds: Kinds
    fields: Callable[[], Iterator[Columns]]
    columns: Mapping[str, str]

    @classmethod
    def of(cls, texts: TableFile | Iterable[str], ids: Any, fields: Any, name: str = TEXT) -> TextSource:
        """Texts as a table, or as a list with ids and fields beside it.

        Args:
            texts: a table, which has its own fields, or texts.
            ids: of the texts; None takes those of the table, if there are any.
            fields: of a list of texts.
            name: the field for the texts of a list.

        Raises:
            ConfigError: for fields beside a table.
            DataError: for one text instead of a list, or a field called ``name``.
        """
        if isinstance(texts, TableFile):
            if fields is not None:
                raise ConfigError("a table of texts has its own fields; leave out fields=")
            return cls(texts, texts.ids if ids is None else ids, texts.kinds, texts.fields, texts.columns)
        if isinstance(texts, Mapping) or hasattr(texts, "columns"):
            raise DataError(
                "texts must be a list of texts, not a table; give one column as texts and others as fields"
            )
        if isinstance(texts, str):
            raise DataError("texts must be a list of texts, not one text; put it in a list")
        rows = list(texts)
        given = Columns.read(fields, len(rows))
        if name in given.by_name:
            raise DataError(f"the field {name!r} is reserved for the texts; rename yours")
        kinds: dict[str, FieldKind] = {name: "text", **given.kinds}

        def columns() -> Iterator[Columns]:
            own = Columns.read({name: rows}, len(rows), {name: "text"})
            yield Columns({**own.by_name, **given.by_name}, len(rows))

        return cls(rows, ids, kinds, columns, {"text": name})
