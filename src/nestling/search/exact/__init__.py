"""Exact nearest neighbours, and the geometry, scores and top-k selection that all searches share."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.search.exact.neighbours import Neighbours as Neighbours
    from nestling.search.exact.neighbours import nearest as nearest
    from nestling.search.exact.neighbours import nearest_each as nearest_each

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Neighbours": "neighbours",
        "nearest": "neighbours",
        "nearest_each": "neighbours",
    },
)
