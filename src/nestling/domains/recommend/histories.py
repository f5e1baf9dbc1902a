"""Histories as rows of the catalogue, and as padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nestling.arguments.constraints import OneOf, checked
from nestling.arguments.ids import as_ids
from nestling.cut import name_rows
from nestling.data.interactions.interactions import Interactions, Rows
from nestling.domains.recommend.items import Items
from nestling.errors import DataError

Unknown = Literal["error", "skip"]
AnyHistories = Interactions | Sequence[Sequence[Any]]
"""Accepted as histories: interactions, or item ids of each user in order."""

_EVENTS_AT_A_TIME = 1 << 14


@dataclass(frozen=True, eq=False)
class Histories:
    """Events of users as rows of a catalogue.

    Args:
        rows: ``Int64[events]``.
        offsets: ``Int64[users + 1]``: the events of user ``u`` are ``rows[offsets[u]:offsets[u + 1]]``.
    """

    rows: Rows
    offsets: Rows

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Rows:
        """The number of events of each user."""
        return np.diff(self.offsets)

    def rows_of(self, users: NDArray[np.int64]) -> Rows:
        """The events of some users, one user after the other."""
        return np.concatenate([self.rows[self.offsets[user] : self.offsets[user + 1]] for user in users])

    def padded(self, users: NDArray[np.int64], longest: int | None = None) -> tuple[Tensor, Tensor]:
        """The last events of some users, ``Int64[users, length]``, and the mask; padding is at the end.

        Args:
            users: their numbers.
            longest: events that are kept of each; all by default.
        """
        ends, lengths = self.offsets[users + 1], self.lengths[users]
        if longest is not None:
            lengths = np.minimum(lengths, longest)
        places = np.arange(lengths.max())
        mask = places < lengths[:, None]
        rows = self.rows[np.where(mask, (ends - lengths)[:, None] + places, 0)]
        return torch.from_numpy(np.where(mask, rows, 0)), torch.from_numpy(mask)

    def batches(self) -> Iterator[NDArray[np.int64]]:
        """The numbers of all users in batches of similar length."""
        order = np.argsort(self.lengths, kind="stable")
        lengths, start = self.lengths[order], 0
        while start < len(order):
            longest = lengths[start : start + _EVENTS_AT_A_TIME]
            padded = longest * np.arange(1, len(longest) + 1)
            count = max(1, int(np.searchsorted(padded, _EVENTS_AT_A_TIME)))
            yield order[start : start + count]
            start += count


@checked(unknown=OneOf(("error", "skip")))
def read_histories(given: AnyHistories, items: Items, unknown: Unknown = "error") -> Histories:
    """Histories of users as rows of the catalogue.

    Args:
        given: interactions, or item ids of each user in order.
        items: the catalogue.
        unknown: raise an error for items that the catalogue lacks, or skip them.

    Raises:
        DataError: for unknown items (named), and for users without any item (named).
    """
    if isinstance(given, Interactions):
        ids, lengths = given.item_ids[given.items], given.lengths
    else:
        sequences = [list(sequence) for sequence in given]
        flat = [item for sequence in sequences for item in sequence]
        ids, lengths = as_ids(flat, "item ids"), np.array([*map(len, sequences)], np.int64)
    rows = items.places(ids) if unknown == "skip" else items.rows(ids)
    users = np.repeat(np.arange(len(lengths)), lengths)
    lengths = np.bincount(users[rows >= 0], minlength=len(lengths))
    if not lengths.all() or not len(lengths):
        which = name_rows(np.flatnonzero(lengths == 0)) if len(lengths) else "all"
        raise DataError(
            f"the histories of {which} have no known item, so nothing can be recommended from them; leave "
            "them out, or recommend what is popular"
        )
    return Histories(rows[rows >= 0], np.concatenate([[0], np.cumsum(lengths)]))
