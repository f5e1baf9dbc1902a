"""Representational dissimilarity matrices (RDMs): computed from patterns, labelled, saved and loaded."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.compare.rdms.estimation.noise import noise_precision as noise_precision
    from nestling.compare.rdms.estimation.products import write_pairs as write_pairs
    from nestling.compare.rdms.from_patterns import rdm as rdm
    from nestling.compare.rdms.rdms import RDMs as RDMs
    from nestling.compare.rdms.rdms import aligned as aligned
    from nestling.compare.rdms.rdms import as_rdms as as_rdms
    from nestling.compare.rdms.subjects import Subjects as Subjects

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "RDMs": "rdms",
        "Subjects": "subjects",
        "aligned": "rdms",
        "as_rdms": "rdms",
        "noise_precision": "estimation.noise",
        "rdm": "from_patterns",
        "write_pairs": "estimation.products",
    },
)
