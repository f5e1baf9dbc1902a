"""Transforms of RDMs: geo-topological and geodesic, as scikit-learn transformers."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.compare.transforms.thresholds import threshold_grid as threshold_grid
    from nestling.compare.transforms.topology import GeoTopological as GeoTopological

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "GeoTopological": "topology",
        "threshold_grid": "thresholds",
    },
)
