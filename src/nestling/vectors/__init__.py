"""Vectors with ids, nesting and cut rule: checked once, where they enter, and read from files."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.vectors.opening import open_vectors as open_vectors
    from nestling.vectors.stored import StoredVectors as StoredVectors

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "StoredVectors": "stored",
        "open_vectors": "opening",
    },
)
