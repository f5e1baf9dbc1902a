"""One model, every budget: representations whose cost is chosen at the moment of use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nestling.extras import name_missing_packages
from nestling.forks import prepare_forks

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nestling.cut import CutRule as CutRule
    from nestling.elastic import Cost as Cost
    from nestling.elastic import Elastic as Elastic
    from nestling.encoders.text.encoder import TextEncoder as TextEncoder
    from nestling.encoders.vectors import NestedAdapter as NestedAdapter
    from nestling.encoders.vectors import PCARotation as PCARotation
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
prepare_forks()  # here: whoever loads faiss or torch, it holds

# Loaded when first used, so that importing the package costs no torch.
_HOMES = {
    "CutRule": "cut",
    "Cost": "elastic",
    "Elastic": "elastic",
    "StoredVectors": "encoders.stored",
    "TextEncoder": "encoders.text",
    "NestedAdapter": "encoders.vectors",
    "PCARotation": "encoders.vectors",
    "Granularity": "granularity",
    "Nesting": "granularity",
    "Nested": "losses.nested",
    "Curve": "measure.curve",
    "sweep": "measure.sweep",
    "NestedClassifier": "nn.heads",
    "AdaptiveIndex": "search.index",
    "Plan": "search.plan",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nestling' has no attribute {name!r}")
    value = getattr(import_module(f"nestling.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
