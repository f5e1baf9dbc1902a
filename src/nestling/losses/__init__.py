"""A base loss each, and :class:`Nested`, which turns any of them, or anybody's, into one over a nesting."""

from nestling.losses.alignment import AlignScores, AlignVectors, Compress
from nestling.losses.classification import CrossEntropy
from nestling.losses.contrastive import InfoNCE
from nestling.losses.gradient_cache import GradientCache
from nestling.losses.nested import Nested, Parts
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
    "Parts",
    "SimilarityMatch",
    "Triplet",
]
