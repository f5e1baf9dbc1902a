"""Fields of whole numbers that become fields of floats, because a float was added."""

from __future__ import annotations

from collections.abc import Iterable

from nestling.errors import DataError
from nestling.search.index.snapshot.snapshot import Snapshot


def check_floats(snapshot: Snapshot, names: Iterable[str]) -> None:
    """Fields of whole numbers whose values are all floats too.

    Args:
        snapshot: the rows that will be there.
        names: of the fields that become floats.

    Raises:
        DataError: if a value has more digits than a float.
    """
    lives = [*(part.live for part in snapshot.segments), snapshot.memtable.live]
    for name in names:
        for fields, live in zip(snapshot.all_fields(), lives, strict=True):
            if (lost := fields.by_name[name].first_inexact(live)) is not None:
                raise DataError(
                    f"the field {name!r} holds whole numbers, and floats cannot take their place: {lost} has "
                    "more digits than a float; give whole numbers, or build the index again with texts there"
                )
