"""Nearest neighbours at any prefix size: exact, and by indexes whose stages read prefixes of their own."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.search.certified.scan import CertifiedScan as CertifiedScan
    from nestling.search.exact.funnel import Funnel as Funnel
    from nestling.search.exact.neighbours import Neighbours as Neighbours
    from nestling.search.exact.neighbours import nearest as nearest
    from nestling.search.exact.neighbours import nearest_each as nearest_each
    from nestling.search.index.index import AdaptiveIndex as AdaptiveIndex
    from nestling.search.plan.frontier import Frontier as Frontier
    from nestling.search.plan.plan import Plan as Plan
    from nestling.search.plan.point import Point as Point
    from nestling.search.tuning.planner import build as build
    from nestling.search.tuning.planner import tune as tune

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "AdaptiveIndex": "index.index",
        "CertifiedScan": "certified.scan",
        "Frontier": "plan.frontier",
        "Funnel": "exact.funnel",
        "Neighbours": "exact.neighbours",
        "Plan": "plan.plan",
        "Point": "plan.point",
        "build": "tuning.planner",
        "nearest": "exact.neighbours",
        "nearest_each": "exact.neighbours",
        "tune": "tuning.planner",
    },
)
