"""Quality and cost at every granularity as a curve: choosing, tables, plots, reports."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.measure.curve.curve import Curve as Curve

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Curve": "curve",
    },
)
