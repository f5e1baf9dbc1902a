"""Search among vectors at any prefix size: exact, and by a funnel of growing sizes."""

from nestling.search.certified import CertifiedScan
from nestling.search.exact import Neighbours, nearest, nearest_each
from nestling.search.funnel import Funnel
from nestling.search.plan import Plan, Point

__all__ = ["CertifiedScan", "Funnel", "Neighbours", "Plan", "Point", "nearest", "nearest_each"]
