"""Stages of a plan: candidate selection, code scan, re-ranking; one file per kind in ``kinds``.

The algorithms of ``graph`` and ``certify`` are rooms of their own; their stages put them into plans.
"""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.search.stages.kinds.rerank import Rerank as Rerank
    from nestling.search.stages.registry import STAGES as STAGES
    from nestling.search.stages.registry import parse_stage as parse_stage
    from nestling.search.stages.stage import Coarse as Coarse
    from nestling.search.stages.stage import Scan as Scan
    from nestling.search.stages.stage import Stage as Stage
    from nestling.search.stages.stage import StageText as StageText

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Coarse": "stage",
        "Rerank": "kinds.rerank",
        "STAGES": "registry",
        "Scan": "stage",
        "Stage": "stage",
        "StageText": "stage",
        "parse_stage": "registry",
    },
)
