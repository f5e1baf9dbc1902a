"""Embeddings that already exist made nested: the principal axes, and a learned map."""

from nestling.encoders.adapter import NestedAdapter
from nestling.encoders.pca import PCARotation

__all__ = ["NestedAdapter", "PCARotation"]
