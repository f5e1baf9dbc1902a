"""One model, every budget: embeddings whose size and cost are chosen at use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestling._exports import exports
from nestling._moved import find_moved_modules
from nestling.process.extras import name_missing_packages
from nestling.process.forks import prepare_forks

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nestling.cut import CutRule as CutRule
    from nestling.elastic import Cost as Cost
    from nestling.elastic import Elastic as Elastic
    from nestling.encoders.maps.adapter import NestedAdapter as NestedAdapter
    from nestling.encoders.maps.pca import PCARotation as PCARotation
    from nestling.encoders.text.encoder import TextEncoder as TextEncoder
    from nestling.granularity import Granularity as Granularity
    from nestling.granularity import Nesting as Nesting
    from nestling.losses.nested import Nested as Nested
    from nestling.measure.curve.curve import Curve as Curve
    from nestling.measure.sweep import sweep as sweep
    from nestling.nn.heads import NestedClassifier as NestedClassifier
    from nestling.search.index.index import AdaptiveIndex as AdaptiveIndex
    from nestling.search.plan.plan import Plan as Plan
    from nestling.vectors.stored import StoredVectors as StoredVectors

name_missing_packages(__name__)
find_moved_modules()
prepare_forks()  # here: whoever loads faiss or torch, it holds

# Loaded when first used, so that importing the package costs no torch.
__getattr__, __dir__, _names = exports(
    __name__,
    {
        "CutRule": "cut",
        "Cost": "elastic",
        "Elastic": "elastic",
        "StoredVectors": "vectors.stored",
        "TextEncoder": "encoders.text.encoder",
        "NestedAdapter": "encoders.maps.adapter",
        "PCARotation": "encoders.maps.pca",
        "Granularity": "granularity",
        "Nesting": "granularity",
        "Nested": "losses.nested",
        "Curve": "measure.curve.curve",
        "sweep": "measure.sweep",
        "NestedClassifier": "nn.heads",
        "AdaptiveIndex": "search.index.index",
        "Plan": "search.plan.plan",
    },
)
__all__ = ["__version__", *_names]
