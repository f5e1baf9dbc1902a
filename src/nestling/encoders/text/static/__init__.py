"""Static text encoders without torch: a table of token vectors, and the layers after their mean."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.encoders.text.static.encoder import StaticEncoder as StaticEncoder

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "StaticEncoder": "encoder",
    },
)
