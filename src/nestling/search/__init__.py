"""Search among vectors at any prefix size: exact, and by a funnel of growing sizes."""

from nestling.search.certified.scan import CertifiedScan
from nestling.search.exact.funnel import Funnel
from nestling.search.exact.neighbours import Neighbours, nearest, nearest_each
from nestling.search.plan.plan import Plan, Point

__all__ = ["CertifiedScan", "Funnel", "Neighbours", "Plan", "Point", "nearest", "nearest_each"]
