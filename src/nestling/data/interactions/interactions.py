"""Interactions of users with items, in order: who bought, read or clicked what, and when."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.arrays import as_array
from nestling.arguments.ids import Ids, as_ids
from nestling.errors import DataError, EvaluationWarning, unknown

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Interactions:
    """The items of each user, the earliest first.

    Made by :meth:`from_sequences`, :meth:`from_columns`, :meth:`from_frame`, or
    :func:`~nestling.data.interactions.reading.read_interactions`.

    Args:
        user_ids: ``[users]``, all different.
        item_ids: ``[items]``, all different.
        offsets: ``Int64[users + 1]``: the events of user ``u`` are ``items[offsets[u]:offsets[u + 1]]``.
        items: ``Int64[events]``, places in ``item_ids``.
        times: ``Float64[events]``, if they are known.

    >>> shop = Interactions.from_sequences([["tea", "cup"], ["pot"]])
    >>> len(shop), shop.users, shop.history(0).tolist()
    (3, 2, ['tea', 'cup'])
    """

    user_ids: Ids
    item_ids: Ids
    offsets: Rows
    items: Rows
    times: NDArray[np.float64] | None = None

    @classmethod
    def from_sequences(cls, sequences: Iterable[Sequence[Any]], users: Any = None) -> Self:
        """The items of each user, in order.

        Args:
            sequences: item ids, whole numbers or strings.
            users: their ids; numbers from 0 by default.

        Raises:
            DataError: for no users, an empty sequence, or ids of another kind.
        """
        given = [list(sequence) for sequence in sequences]
        empty = [number for number, sequence in enumerate(given) if not sequence]
        if not given or empty:
            what = f"user {empty[0]} has no items" if empty else "there are no users"
            raise DataError(f"{what}; give at least one item a user")
        ids = np.arange(len(given)) if users is None else as_ids(users, "user ids")
        if len(ids) != len(given) or len(np.unique(ids)) != len(ids):
            raise DataError(f"{len(given)} sequences need as many different user ids")
        item_ids, items = _numbered([item for sequence in given for item in sequence])
        offsets = np.cumsum([0, *map(len, given)])
        return cls(ids, item_ids, offsets, items)

    @classmethod
    def from_columns(cls, users: Any, items: Any, times: ArrayLike | None = None) -> Self:
        """One event a row. Events of a user are sorted by time; without times they keep their order.

        Args:
            users: user ids, whole numbers or strings.
            items: item ids.
            times: numbers, such as seconds.

        Raises:
            DataError: for no rows, columns of different lengths, ids of another kind, or times that are not
                finite.

        Warns:
            EvaluationWarning: if times of one user are equal, as the order of those events is then that of
                the rows.
        """
        who, what = as_ids(users, "user ids"), as_ids(items, "item ids")
        when = None if times is None else _read_times(times)
        counts = {len(column) for column in (who, what, who if when is None else when)}
        if len(counts) > 1 or not len(who):
            raise DataError(
                f"users, items and times must be equally many, at least one, not {sorted(counts)}"
            )
        user_ids, user = _numbered(who)
        item_ids, item = _numbered(what)
        order = np.argsort(user, kind="stable") if when is None else np.lexsort((when, user))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(user_ids)))])
        made = cls(user_ids, item_ids, offsets, item[order], None if when is None else when[order])
        made._warn_of_ties()
        return made

    @classmethod
    def from_frame(
        cls, frame: Any, user: str = "user_id", item: str = "item_id", time: str | None = None
    ) -> Self:
        """The events of a data frame of pandas, or of anything with columns by name.

        Args:
            frame: the table.
            user: the column of user ids.
            item: that of item ids.
            time: that of times, numbers or dates; without it, rows are in order.

        Raises:
            DataError: for a column that there is not, and as :meth:`from_columns` does.
        """
        known = [str(name) for name in getattr(frame, "columns", frame)]
        for name in (user, item, time):
            if name is not None and name not in known:
                raise DataError(unknown("column", name, known))
        return cls.from_columns(_column(frame, user), _column(frame, item), time and _column(frame, time))

    def __len__(self) -> int:
        return len(self.items)

    @property
    def users(self) -> int:
        """The number of users."""
        return len(self.user_ids)

    @property
    def lengths(self) -> Rows:
        """The number of events of each user."""
        return np.diff(self.offsets)

    @property
    def positions(self) -> Rows:
        """The place of each event among those of its user, from 0."""
        return np.arange(len(self)) - np.repeat(self.offsets[:-1], self.lengths)

    @property
    def ties(self) -> float:
        """The share of consecutive events of one user that have equal times; 0 without times."""
        if self.times is None:
            return 0.0
        follows = self.positions[1:] > 0
        return float((self.times[1:] == self.times[:-1])[follows].mean()) if follows.any() else 0.0

    def history(self, user: int) -> Ids:
        """The item ids of the user that is number ``user``."""
        return self.item_ids[self.items[self.offsets[user] : self.offsets[user + 1]]]

    def histories(self) -> Iterator[Ids]:
        """The item ids of each user."""
        return map(self.history, range(self.users))

    def first(self, counts: ArrayLike) -> Interactions:
        """The first ``counts[u]`` events of each user; users without any are left out."""
        return self.between(np.zeros(self.users, np.int64), np.asarray(counts))

    def between(self, start: Rows, stop: Rows) -> Interactions:
        """The events ``start[u]`` up to ``stop[u]`` of each user; users without any are left out."""
        positions, lengths = self.positions, self.lengths
        kept = (positions >= np.repeat(start, lengths)) & (positions < np.repeat(stop, lengths))
        counts = np.add.reduceat(kept, self.offsets[:-1], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(counts[counts > 0])])
        times = None if self.times is None else self.times[kept]
        return Interactions(self.user_ids[counts > 0], self.item_ids, offsets, self.items[kept], times)

    def rows_in(self, ids: Ids) -> Rows:
        """The events as rows of a catalogue.

        Args:
            ids: the item ids of the catalogue, all different.

        Raises:
            DataError: for events with items that the catalogue lacks (named).
        """
        places = places_of(self.item_ids, ids)
        rows = places[self.items]
        if (rows < 0).any():
            lacking = self.item_ids[np.unique(self.items[rows < 0])]
            raise DataError(
                f"{int((rows < 0).sum())} events are of {len(lacking)} items that the catalogue does not "
                f"have, such as {', '.join(repr(each) for each in lacking[:3].tolist())}; add them, or leave "
                "the events out"
            )
        return rows

    def _warn_of_ties(self) -> None:
        if self.ties:
            warnings.warn(
                f"{self.ties:.0%} of consecutive events of a user have equal times; their order is that of "
                "the rows, and what a model gains from the order may be an artefact of the file",
                EvaluationWarning,
                stacklevel=4,
            )


def places_of(ids: Ids, among: Ids, order: Rows | None = None) -> Rows:
    """The place of each id among others that are all different; -1 where it is not one of them.

    Args:
        ids: what is looked up.
        among: where.
        order: that which sorts ``among``, if it is known.
    """
    if not len(among) or (ids.dtype.kind == "U") != (among.dtype.kind == "U"):
        return np.full(len(ids), -1)
    if order is None:
        order = np.argsort(among, kind="stable")
    found = order[np.searchsorted(among, ids, sorter=order).clip(max=len(among) - 1)]
    return np.where(among[found] == ids, found, -1)


def _numbered(given: Any) -> tuple[Ids, Rows]:
    """Different ids in order of their first appearance, and the number of each."""
    ids = given if isinstance(given, np.ndarray) else as_ids(given, "item ids")
    names, first, place = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return names[order], rank[place]


def _read_times(given: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(given)
    if array.dtype.kind == "M":
        missing = np.isnat(array)
        array = np.where(missing, np.nan, array.astype("datetime64[us]").astype(np.int64) / 1e6)
    times = np.asarray(as_array(array, "times"), np.float64)
    if times.ndim != 1 or not np.isfinite(times).all():
        raise DataError(
            "times must be one finite number, or one date, for each event; fill or remove the rest"
        )
    return times


def _column(frame: Any, name: str) -> Any:
    column = frame[name]
    return column.to_numpy() if hasattr(column, "to_numpy") else column
