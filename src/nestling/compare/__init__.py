"""Compare two representations: dissimilarity matrices, geometry, topology and inference; no torch."""

from nestling.compare.inference.ceiling import NoiseCeiling, noise_ceiling
from nestling.compare.inference.evaluation import Evaluation, evaluate
from nestling.compare.inference.identification import Identification, identify
from nestling.compare.inference.significance import (
    PermutationTest,
    adjusted,
    compare_groups,
    flip_signs,
    permute_stimuli,
)
from nestling.compare.inference.threshold_search import ThresholdSearch, search_thresholds
from nestling.compare.pictures.bars import plot_evaluation
from nestling.compare.pictures.maps import map_stimuli, plot_maps, plot_matrices, plot_thresholds
from nestling.compare.rdms.estimation.estimators import RatePrior
from nestling.compare.rdms.estimation.noise import noise_precision
from nestling.compare.rdms.from_patterns import rdm
from nestling.compare.rdms.rdms import RDMs
from nestling.compare.similarity.adaptive import adaptive_dependence
from nestling.compare.similarity.cka_procrustes import linear_cka, procrustes
from nestling.compare.similarity.comparators import compare
from nestling.compare.similarity.layers import LayerSimilarities, compare_layers, plot_layers
from nestling.compare.transforms.geodesic import Geodesic
from nestling.compare.transforms.thresholds import region_of, sample_thresholds, threshold_grid
from nestling.compare.transforms.topology import GeoTopological, SmoothTopological, geo_topological

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
