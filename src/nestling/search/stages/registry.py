"""The kinds of stages that plans may name. A new kind is a file in ``kinds`` and a line here."""

from __future__ import annotations

from nestling.search.stages.kinds.bits import Bits
from nestling.search.stages.kinds.certified import Certify
from nestling.search.stages.kinds.flat import Flat
from nestling.search.stages.kinds.graph import Graph
from nestling.search.stages.kinds.hnsw import HNSW
from nestling.search.stages.kinds.ivf import IVF
from nestling.search.stages.kinds.pq import OPQ, PQ
from nestling.search.stages.kinds.rabitq import RaBitQ
from nestling.search.stages.kinds.rerank import Rerank
from nestling.search.stages.kinds.scalar import Fp16, Int4, Int8
from nestling.search.stages.stage import Scan, Stage, StageText

STAGES: dict[str, type[Stage]] = {
    "ivf": IVF,
    "hnsw": HNSW,
    "flat": Flat,
    "fp16": Fp16,
    "int8": Int8,
    "int4": Int4,
    "bits": Bits,
    "pq": PQ,
    "opq": OPQ,
    "rabitq": RaBitQ,
    "graph": Graph,
    "rerank": Rerank,
    "certify": Certify,
}
"""Kinds by their name in a plan. Those of others are added: ``STAGES["sign"] = Sign``."""


def parse_stage(text: str) -> Stage:
    """Read what ``str`` of a stage writes.

    Raises:
        ConfigError: for what is no stage.
    """
    apart = StageText.read(text, list(STAGES))
    return STAGES[apart.name].parse(apart)


def sliceable_names() -> list[str]:
    """The scans that can be searched at shorter prefixes than they were built for."""
    return [name for name, kind in STAGES.items() if issubclass(kind, Scan) and kind.is_sliceable]
