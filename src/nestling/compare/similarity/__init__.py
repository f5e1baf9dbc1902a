"""How alike two representations are: comparators of RDMs, CKA, Procrustes, layers against layers."""

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
