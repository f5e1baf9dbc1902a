"""Conditions on the fields of rows: read from text or mappings, and matched against columns."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.search.where.argument import check_where as check_where
    from nestling.search.where.argument import read_where as read_where

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "check_where": "argument",
        "read_where": "argument",
    },
)
