"""How alike are two representations? Dissimilarity matrices, geometry and topology, inference; no torch."""

from nestling.compare.adaptive import adaptive_dependence
from nestling.compare.bars import plot_evaluation
from nestling.compare.comparators import compare
from nestling.compare.estimators import RatePrior
from nestling.compare.evaluation import Evaluation, evaluate
from nestling.compare.geodesic import Geodesic
from nestling.compare.identify import Identification, identify
from nestling.compare.layers import LayerSimilarities, compare_layers, plot_layers
from nestling.compare.noise import noise_precision
from nestling.compare.noise_ceiling import NoiseCeiling, noise_ceiling
from nestling.compare.patterns import linear_cka, procrustes
from nestling.compare.plot import map_stimuli, plot_maps, plot_matrices, plot_thresholds
from nestling.compare.rdm import rdm
from nestling.compare.rdms import RDMs
from nestling.compare.significance import (
    PermutationTest,
    adjusted,
    compare_groups,
    flip_signs,
    permute_stimuli,
)
from nestling.compare.threshold_search import ThresholdSearch, search_thresholds
from nestling.compare.thresholds import region_of, sample_thresholds, threshold_grid
from nestling.compare.topology import GeoTopological, SmoothTopological, geo_topological

__all__ = [
    "Evaluation",
    "GeoTopological",
    "Geodesic",
    "Identification",
    "LayerSimilarities",
    "NoiseCeiling",
    "PermutationTest",
    "RDMs",
    "RatePrior",
    "SmoothTopological",
    "ThresholdSearch",
    "adaptive_dependence",
    "adjusted",
    "compare",
    "compare_groups",
    "compare_layers",
    "evaluate",
    "flip_signs",
    "geo_topological",
    "identify",
    "linear_cka",
    "map_stimuli",
    "noise_ceiling",
    "noise_precision",
    "permute_stimuli",
    "plot_evaluation",
    "plot_layers",
    "plot_maps",
    "plot_matrices",
    "plot_thresholds",
    "procrustes",
    "rdm",
    "region_of",
    "sample_thresholds",
    "search_thresholds",
    "threshold_grid",
]
