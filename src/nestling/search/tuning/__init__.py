"""Choosing a plan by measurement: candidates are built, searched and compared."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.search.tuning.planner import build as build

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "build": "planner",
    },
)
