"""How alike are two representations? Dissimilarity matrices, geometry and topology, inference; no torch."""

from nestling.compare.estimators import RatePrior
from nestling.compare.noise import noise_precision
from nestling.compare.rdm import rdm
from nestling.compare.rdms import RDMs

__all__ = ["RDMs", "RatePrior", "noise_precision", "rdm"]
