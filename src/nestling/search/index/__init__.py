"""The adaptive index: a folder of vectors that is searched at any size while it is changed."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.search.index.index import AdaptiveIndex as AdaptiveIndex

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "AdaptiveIndex": "index",
    },
)
