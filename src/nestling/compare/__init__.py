"""How alike are two representations? Dissimilarity matrices, geometry and topology, inference; no torch."""

from nestling.compare.adaptive import adaptive_dependence
from nestling.compare.estimators import RatePrior
from nestling.compare.geodesic import Geodesic
from nestling.compare.identify import Identification, identify
from nestling.compare.noise import noise_precision
from nestling.compare.rdm import rdm
from nestling.compare.rdms import RDMs
from nestling.compare.threshold_search import ThresholdSearch, search_thresholds
from nestling.compare.thresholds import region_of, sample_thresholds, threshold_grid
from nestling.compare.topology import GeoTopological, SmoothTopological, geo_topological

__all__ = [
    "GeoTopological",
    "Geodesic",
    "Identification",
    "RDMs",
    "RatePrior",
    "SmoothTopological",
    "ThresholdSearch",
    "adaptive_dependence",
    "geo_topological",
    "identify",
    "noise_precision",
    "rdm",
    "region_of",
    "sample_thresholds",
    "search_thresholds",
    "threshold_grid",
]
