"""Exact search over 4-bit codes whose error bounds prove that no neighbour was missed."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.search.certified.scan import Certificate as Certificate
    from nestling.search.certified.scan import CertifiedNeighbours as CertifiedNeighbours
    from nestling.search.certified.scan import CertifiedScan as CertifiedScan

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Certificate": "scan",
        "CertifiedNeighbours": "scan",
        "CertifiedScan": "scan",
    },
)
