"""Similarity of two representations: RDM comparators, CKA, Procrustes, layer by layer."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.compare.similarity.comparators import compare as compare

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "compare": "comparators",
    },
)
