"""Interactions of users with items: the sequence of each user, from tables and files, and their splits."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.data.interactions.interactions import Interactions as Interactions
    from nestling.data.interactions.reading import read_interactions as read_interactions
    from nestling.data.interactions.splits import NextItems as NextItems
    from nestling.data.interactions.splits import Split as Split
    from nestling.data.interactions.splits import leave_one_out as leave_one_out
    from nestling.data.interactions.splits import split_by_time as split_by_time

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Interactions": "interactions",
        "NextItems": "splits",
        "Split": "splits",
        "leave_one_out": "splits",
        "read_interactions": "reading",
        "split_by_time": "splits",
    },
)
