"""Maps that make existing vectors nested: principal axes and a learned adapter."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.encoders.maps.adapter import NestedAdapter as NestedAdapter
    from nestling.encoders.maps.fit_report import FitReport as FitReport
    from nestling.encoders.maps.pca import PCARotation as PCARotation

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "FitReport": "fit_report",
        "NestedAdapter": "adapter",
        "PCARotation": "pca",
    },
)
