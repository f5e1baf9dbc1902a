"""Quality and cost at every granularity: tasks, the sweep over them, and the curve that chooses."""

from nestling.measure.cascade import AdaptiveClassifier
from nestling.measure.curve import Curve
from nestling.measure.encode import encode_task
from nestling.measure.fidelity import Fidelity
from nestling.measure.sweep import sweep
from nestling.measure.table import compare
from nestling.measure.tasks import (
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
