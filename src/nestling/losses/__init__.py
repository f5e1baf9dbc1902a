"""Base losses on embeddings, and :class:`Nested`, which trains any loss at every size of a nesting."""

from nestling.losses.alignment import AlignScores, AlignVectors, Compress
from nestling.losses.classification import CrossEntropy
from nestling.losses.contrastive import InfoNCE
from nestling.losses.gradient_cache import GradientCache
from nestling.losses.nested import Nested, Parts
from nestling.losses.one_encoding import OneEncoding
from nestling.losses.quantisation import Quantisation
from nestling.losses.ranking import AnglE, CoSENT, CosineRegression, Triplet
from nestling.losses.similarity import SimilarityMatch

__all__ = [
    "AlignScores",
    "AlignVectors",
    "AnglE",
    "CoSENT",
    "Compress",
    "CosineRegression",
    "CrossEntropy",
    "GradientCache",
    "InfoNCE",
    "Nested",
    "OneEncoding",
    "Parts",
    "Quantisation",
    "SimilarityMatch",
    "Triplet",
]
