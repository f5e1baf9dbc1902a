"""Measures quality and cost at every granularity: tasks, the sweep, and the curve that chooses."""

from nestling.measure.cascade import AdaptiveClassifier
from nestling.measure.curve.curve import Curve
from nestling.measure.curve.table import compare
from nestling.measure.encode import encode_task
from nestling.measure.sweep import sweep
from nestling.measure.tasks.fidelity import Fidelity
from nestling.measure.tasks.tasks import (
    STS,
    Clustering,
    HeadClassification,
    LinearProbe,
    NearestClassMean,
    NeighbourClassification,
    Retrieval,
    Robustness,
    Task,
)

__all__ = [
    "STS",
    "AdaptiveClassifier",
    "Clustering",
    "Curve",
    "Fidelity",
    "HeadClassification",
    "LinearProbe",
    "NearestClassMean",
    "NeighbourClassification",
    "Retrieval",
    "Robustness",
    "Task",
    "compare",
    "encode_task",
    "sweep",
]
