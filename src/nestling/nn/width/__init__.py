"""Layers whose leading slices are layers: linear maps, norms, embeddings, an output cut on dim."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.nn.width.embedding import NestedEmbedding as NestedEmbedding
    from nestling.nn.width.linear import NestedLinear as NestedLinear
    from nestling.nn.width.norm import NestedNorm as NestedNorm
    from nestling.nn.width.output import NestedOutput as NestedOutput
    from nestling.nn.width.width_part import WidthPart as WidthPart

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "NestedEmbedding": "embedding",
        "NestedLinear": "linear",
        "NestedNorm": "norm",
        "NestedOutput": "output",
        "WidthPart": "width_part",
    },
)
