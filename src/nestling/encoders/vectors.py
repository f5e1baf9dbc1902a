"""Embeddings that already exist made nested: the principal axes, and a learned map."""

from nestling.encoders.maps.adapter import NestedAdapter
from nestling.encoders.maps.pca import PCARotation

__all__ = ["NestedAdapter", "PCARotation"]
