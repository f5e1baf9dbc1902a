"""Stages of a plan: what picks rows, what compares them, what puts the best in order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from nestling.errors import ConfigError, unknown
from nestling.kernels.graph import LINE_BYTES

CoarseKind = Literal["ivf", "hnsw"]
Code = Literal["flat", "fp16", "int8", "int4", "pq", "opq", "rabitq", "graph"]
Store = Literal["flat", "fp16", "int8"]

SLICEABLE: tuple[Code, ...] = ("flat", "fp16", "int8", "int4")
"""Codes that hold each entry by itself, so that the code of a prefix is a prefix of the code."""

QUANTISERS = ("pq", "opq")
BYTES_PER_ENTRY = {"flat": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5}
_RABITQ_FACTOR_BYTES = 8
LINK_BYTES = 4
_STAGE = re.compile(r"(fp16|int8|int4|[a-z]+)(\d*)(?:x(\d+))?(?::(\w+))?@(full|\d+)")
EXAMPLE = "such as 'ivf1024@64 > pq32x4@128 > rerank@full'"


def _at(dim: int | None) -> str:
    return "full" if dim is None else str(dim)


@dataclass(frozen=True)
class Coarse:
    """How rows are picked for the scan: inverted lists, or a graph of neighbours, on a prefix.

    Args:
        kind: ``ivf`` or ``hnsw``.
        count: inverted lists, or links of a node (twice as many on the lowest level).
        dim: the prefix that is clustered or linked; None is the full size.
    """

    kind: CoarseKind
    count: int
    dim: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}{self.count}@{_at(self.dim)}"


@dataclass(frozen=True)
class Scan:
    """The code of the prefix that picked rows are compared by.

    Args:
        code: ``flat`` (float32), ``fp16``, ``int8`` and ``int4`` hold each entry by itself; ``pq`` is a
            product quantiser, ``opq`` one behind a learned rotation, ``rabitq`` one bit an entry; ``graph``
            is two bits for each main direction, met along the links of a graph.
        dim: the prefix; None is the full size.
        subspaces: parts of a product quantiser, each with a code of its own.
        bits: of each such code, 4 or 8.
        links: of a row of the graph, 8 to 1024.
    """

    code: Code
    dim: int | None = None
    subspaces: int | None = None
    bits: int | None = None
    links: int | None = None

    def __str__(self) -> str:
        parts = "" if self.subspaces is None else f"{self.subspaces}x{self.bits}"
        parts += "" if self.links is None else f"{self.links}"
        return f"{self.code}{parts}@{_at(self.dim)}"

    @property
    def is_sliceable(self) -> bool:
        """Whether shorter prefixes can be scanned without another code."""
        return self.code in SLICEABLE

    def row_bytes(self, dim: int) -> int:
        """Bytes of one row's code of a prefix of ``dim`` entries.

        Of a graph it is the least: rows whose variance is spread evenly take more lines of the cache.
        """
        if self.code == "graph":
            return LINE_BYTES
        if self.subspaces is not None and self.bits is not None:
            return -(-self.subspaces * self.bits // 8)
        if self.code == "rabitq":
            return -(-dim // 8) + _RABITQ_FACTOR_BYTES
        return -(-int(dim * 2 * BYTES_PER_ENTRY[self.code]) // 2)


@dataclass(frozen=True)
class Rerank:
    """A stage that puts a shortlist in order by a longer prefix.

    Args:
        dim: the prefix; None is the full size.
        store: what it reads: the vectors themselves (``flat``), or a smaller copy of them.
    """

    dim: int | None = None
    store: Store = "flat"

    def __str__(self) -> str:
        store = "" if self.store == "flat" else f":{self.store}"
        return f"rerank{store}@{_at(self.dim)}"


def parse_stage(text: str) -> Coarse | Scan | Rerank | Literal["certify"]:
    """Read what ``str`` of a stage writes.

    Raises:
        ConfigError: for what is no stage.
    """
    match = _STAGE.fullmatch(text)
    names = [*get_args(CoarseKind), *get_args(Code), "rerank", "certify"]
    if match is None:
        raise ConfigError(f"the stage {text!r} cannot be read; write stages {EXAMPLE}")
    name: Any
    store: Any
    name, count, parts, store, size = match.groups()
    if name not in names:
        raise ConfigError(unknown("stage", name, names))
    dim = None if size == "full" else int(size)
    allowed = {
        "store": name == "rerank",
        "parts": name in QUANTISERS,
        "count": name in ("ivf", "hnsw", "graph", *QUANTISERS),
    }
    given = {"store": store is not None, "parts": parts is not None, "count": bool(count)}
    if any(given[each] and not allowed[each] for each in given) or (allowed["count"] and not count):
        raise ConfigError(f"the stage {text!r} cannot be read; write stages {EXAMPLE}")
    if name == "certify":
        if dim is not None:
            raise ConfigError(f"{text!r} can only certify the full size; write certify@full")
        return "certify"
    if name == "rerank":
        if store is not None and store not in get_args(Store):
            raise ConfigError(unknown("store", store, get_args(Store)))
        return Rerank(dim, store or "flat")
    if name in get_args(CoarseKind):
        return Coarse(name, int(count), dim)
    if name == "graph":
        return Scan(name, dim, links=int(count))
    return Scan(name, dim, int(count) if count else None, int(parts) if parts else None)
