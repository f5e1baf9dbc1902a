"""Plans: which prefix and code each stage of an index reads, and what a query then costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

from nestling.errors import ConfigError
from nestling.kernels.graph import LINE_BYTES
from nestling.search.plan.point import Point as Point
from nestling.search.plan.stages import (
    BYTES_PER_ENTRY,
    EXAMPLE,
    LINK_BYTES,
    QUANTISERS,
    Coarse,
    Rerank,
    Scan,
    parse_stage,
)

_ROW_NUMBER_BYTES = 8  # as faiss holds them in inverted lists
_NUMBER_BYTES = 8  # in double precision
_FEWEST_LINKS, _MOST_LINKS = 8, 1024
_HUBS = 512


@dataclass(frozen=True)
class PlanCost:
    """What one query costs, and what is kept for it.

    Args:
        mflops: millions of multiply-adds, as the paper counts them, with the table sums, rotations and
            re-ordering that its model leaves out.
        bytes_read: of codes, graph and vectors.
        bytes_stored: of all rows in memory: codes, lists or graph, and copies for re-ordering.
        bytes_on_disk: of the vectors themselves.
    """

    mflops: float
    bytes_read: float
    bytes_stored: int
    bytes_on_disk: int


@dataclass(frozen=True)
class Plan:
    """An index as a line of text: ``[coarse >] scan [> rerank ...]`` or ``scan > certify``.

    Each stage reads its own prefix and code: few dims to pick rows, some more (or a few bits of each) to
    scan them, all of them to put the best in order.

    Args:
        scan: the code that is compared.
        coarse: what picks the rows to be scanned; None scans all.
        reranks: stages that re-order ever fewer rows by ever longer prefixes.
        certify: go on until no skipped row can be among the answers, in place of ``reranks``.

    Raises:
        ConfigError: for stages that do not fit together.

    Source: AdANNS, arXiv 2305.19435: AdANNS-IVF is ``ivf1024@64 > flat@128``, AdANNS-OPQ ``opq32x8@256``,
    the rigid baseline ``ivf1024@full > flat@full``.

    >>> plan = Plan.parse("ivf1024@64 > pq32x4@128 > rerank@full")
    >>> str(plan), plan.scan.subspaces, plan.resolve(768).reranks[0].dim
    ('ivf1024@64 > pq32x4@128 > rerank@full', 32, 768)
    """

    scan: Scan
    coarse: Coarse | None = None
    reranks: tuple[Rerank, ...] = ()
    certify: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "reranks", tuple(self.reranks))
        if self.coarse is not None and self.coarse.count < (2 if self.coarse.kind == "hnsw" else 1):
            raise ConfigError(
                f"{self.coarse} is too small; give a graph at least 2 links, or at least 1 list"
            )
        self._check_scan()
        if self.scan.code == "graph":
            self._check_graph()
        if self.certify and (self.reranks or self.coarse is not None):
            raise ConfigError(
                f"certify must follow a scan of all rows and ends the plan, but here it is {self}; "
                "leave out the other stages"
            )

    def _check_scan(self) -> None:
        scan = self.scan
        quantised = scan.code in QUANTISERS
        if quantised != (scan.subspaces is not None and scan.bits is not None):
            wanted = "needs its parts, such as pq32x4@128" if quantised else "takes no parts"
            raise ConfigError(f"the code {scan} {wanted}")
        if quantised and (scan.bits not in (4, 8) or not scan.subspaces):
            raise ConfigError(f"the code {scan} has {scan.bits} bits; choose 4 or 8, of at least one part")

    def _check_graph(self) -> None:
        # The graph is a scan and no coarse stage: its links lead past codes of its own, so nothing else
        # could be scanned along them, and it takes the place of both.
        links = self.scan.links or 0
        if not _FEWEST_LINKS <= links <= _MOST_LINKS:
            raise ConfigError(
                f"{self.scan} has {links} links a row; choose {_FEWEST_LINKS} to {_MOST_LINKS}, 64 for most"
            )
        if self.coarse is not None:
            raise ConfigError(f"{self.scan} picks its rows itself; leave out {self.coarse} before it")
        if not self.reranks:
            raise ConfigError(
                f"the two bits an entry of {self.scan} pick rows but do not put them in order; "
                f"let a rerank follow: {self.scan} > rerank:fp16@full"
            )

    def is_exact(self, full: int) -> bool:
        """Whether it compares all vectors of ``full`` entries as they are, so that nothing is missed."""
        is_whole = self.scan.code == "flat" and self.scan.dim in (None, full)
        return is_whole and self.coarse is None and not self.reranks

    @property
    def is_walked(self) -> bool:
        """Whether a graph is walked, so that points say how many nodes the walk keeps in view."""
        return self.scan.code == "graph" or (self.coarse is not None and self.coarse.kind == "hnsw")

    @property
    def keeps_residuals(self) -> bool:
        """Whether the first re-ordering reads 8 bits an entry of what the codes of a graph leave out."""
        return self.scan.code == "graph" and self.reranks[0] == Rerank(self.scan.dim, "int8")

    @property
    def smallest_dim(self) -> int:
        """The smallest size that a built index answers at; of a plan whose sizes are numbers."""
        return 1 if self.scan.is_sliceable else self.scan.dim or 1

    @property
    def is_listed(self) -> bool:
        """Whether inverted lists are read, so that points say how many."""
        return self.coarse is not None and self.coarse.kind == "ivf"

    def __str__(self) -> str:
        coarse = [] if self.coarse is None else [self.coarse]
        end = ["certify@full"] if self.certify else [*self.reranks]
        return " > ".join(map(str, [*coarse, self.scan, *end]))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` writes.

        Raises:
            ConfigError: naming the stage that cannot be read.
        """
        stages = [parse_stage(part.strip().lower()) for part in text.split(">")]
        found: dict[str, Any] = {"reranks": []}
        for stage in stages:
            if isinstance(stage, Rerank):
                found["reranks"].append(stage)
                continue
            name = "coarse" if isinstance(stage, Coarse) else "scan" if isinstance(stage, Scan) else "certify"
            # A stage stands before those that take its rows: coarse, scan, rerank or certify.
            later = {"coarse": ("scan", "certify"), "scan": ("certify",), "certify": ()}[name]
            if name in found or found["reranks"] or any(other in found for other in later):
                raise ConfigError(f"the stage {stage} of {text!r} stands twice or too late; write {EXAMPLE}")
            found[name] = True if name == "certify" else stage
        if "scan" not in found:
            raise ConfigError(f"the plan {text!r} scans nothing; add a code, {EXAMPLE}")
        return cls(**found)

    def stages(self) -> Iterator[Coarse | Scan | Rerank]:
        """The stages that read a prefix, in the order in which a query meets them."""
        if self.coarse is not None:
            yield self.coarse
        yield self.scan
        yield from self.reranks

    def resolve(self, full: int) -> Plan:
        """The plan with every size as a number, for vectors of ``full`` entries.

        Raises:
            ConfigError: for a size that the vectors do not have, re-ordering by less than was scanned, or
                a code that does not divide its prefix.
        """
        for stage in self.stages():
            if stage.dim is not None and not 1 <= stage.dim <= full:
                raise ConfigError(
                    f"the stage {stage} does not fit vectors of {full} entries; choose 1 to {full}"
                )
        coarse = None if self.coarse is None else replace(self.coarse, dim=self.coarse.dim or full)
        reranks = tuple(replace(stage, dim=stage.dim or full) for stage in self.reranks)
        found = replace(
            self, coarse=coarse, scan=replace(self.scan, dim=self.scan.dim or full), reranks=reranks
        )
        found._check_sizes()
        return found

    def _check_sizes(self) -> None:
        """Of a plan whose sizes are all numbers."""
        scan, dim = self.scan, self.scan.dim or 0
        ordered: list[Scan | Rerank] = [scan, *self.reranks]
        for before, after in pairwise(ordered):
            if (after.dim or 0) < (before.dim or 0):
                raise ConfigError(
                    f"{after} re-orders by less than {before} before it; re-order by longer prefixes"
                )
        if scan.subspaces is not None and dim % scan.subspaces:
            raise ConfigError(
                f"{scan} cannot divide {dim} entries into {scan.subspaces} parts of the same size; "
                f"choose a divisor of {dim}"
            )
        if scan.code == "int4" and dim % 2:
            raise ConfigError(f"{scan} packs two entries into a byte; choose an even prefix")

    @property
    def answer_dim(self) -> int:
        """The prefix that the last stage compares, of a plan whose sizes are numbers."""
        last = self.reranks[-1] if self.reranks else self.scan
        return int(last.dim or 0)

    def default_point(self, rows: int, k: int = 10) -> Point:
        """A point to start from: a twentieth of the lists, views and shortlists of some times ``k``."""
        ef, first = max(64, 4 * k), 10 * k
        if self.scan.code == "graph":
            ef = max(100, 4 * k)
            first = ef * 3 // 4
        lengths = [max(k, first >> stage) for stage in range(len(self.reranks))]
        return Point(
            nprobe=max(1, round(self.coarse.count / 20)) if self.coarse and self.is_listed else None,
            ef=ef if self.is_walked else None,
            shortlists=tuple(max(1, min(rows, length)) for length in lengths),
        )

    def check_point(self, point: Point) -> None:
        """Whether a point is one of this plan.

        Raises:
            ConfigError: for parameters of stages that the plan does not have, or too few or many shortlists.
        """
        for name, value, known, lacking in (
            ("nprobe", point.nprobe, self.is_listed, "reads no lists"),
            ("ef", point.ef, self.is_walked, "walks no graph"),
        ):
            if value is not None and not known:
                raise ConfigError(f"{name}={value} has no meaning for {self}, which {lacking}")
        if len(point.shortlists) != len(self.reranks):
            raise ConfigError(
                f"the point {point} has {len(point.shortlists)} shortlists, and {self} re-orders "
                f"{len(self.reranks)} times; give one length for each"
            )

    def cost(
        self,
        rows: int,
        full: int,
        point: Point | None = None,
        *,
        code_bytes: int | None = None,
        residual_bytes: int | None = None,
    ) -> PlanCost:
        """What one query over ``rows`` vectors of ``full`` entries costs at ``point``.

        A graph is counted as ``ef * links`` comparisons, which tells plans apart, not seconds. Tables of a
        few kilobytes are left out.

        Args:
            rows: how many vectors.
            full: entries of each.
            point: by default that of :meth:`default_point`.
            code_bytes: of a row of the scan, where that is known better than the plan can tell.
            residual_bytes: of what a row's code in a graph leaves out, likewise.

        Source: AdANNS, section 4.1 and appendix: ``d_c * lists + nprobe * d_s * rows / lists``.

        >>> Plan.parse("ivf64@64 > flat@64").cost(1_281_167, 2048, Point(nprobe=1)).mflops
        1.285263
        """
        plan = self.resolve(full)
        point = self.default_point(rows) if point is None else point
        scan, dim = plan.scan, plan.scan.dim or full
        code_bytes = code_bytes or scan.row_bytes(dim)
        if scan.code == "graph":
            scanned, operations, bytes_read, bytes_stored = plan._graph_cost(rows, point, code_bytes)
        else:
            scanned, operations, bytes_read, bytes_stored = plan._coarse_cost(rows, point)
        operations += scanned * _operations(scan, dim) + _preparation(scan, dim)
        bytes_read += scanned * code_bytes
        bytes_stored += rows * code_bytes
        for place, (stage, length) in enumerate(zip(plan.reranks, point.shortlists, strict=True)):
            size = stage.dim or full
            row_bytes = int(size * BYTES_PER_ENTRY[stage.store])
            if place == 0 and plan.keeps_residuals:
                row_bytes = residual_bytes or max(4 * code_bytes, -(-size // LINE_BYTES) * LINE_BYTES)
            operations += length * size
            bytes_read += length * row_bytes
            bytes_stored += 0 if stage.store == "flat" else rows * row_bytes
        return PlanCost(operations / 1e6, bytes_read, int(bytes_stored), rows * full * 4)

    def _coarse_cost(self, rows: int, point: Point) -> tuple[float, float, float, float]:
        """Rows that are scanned, and the operations, bytes read and bytes stored before that."""
        coarse = self.coarse
        if coarse is None or coarse.dim is None:
            return rows, 0.0, 0.0, 0.0
        if coarse.kind == "ivf":
            centroids = 4.0 * coarse.dim * coarse.count
            share = min(point.nprobe or 1, coarse.count) / coarse.count
            return rows * share, coarse.dim * coarse.count, centroids, centroids + rows * _ROW_NUMBER_BYTES
        links = 2.0 * coarse.count * LINK_BYTES
        visited = min(rows, (point.ef or 1) * coarse.count)
        return visited, 0.0, (point.ef or 1) * links, rows * links

    def _graph_cost(self, rows: int, point: Point, code_bytes: int) -> tuple[float, float, float, float]:
        """The same of a graph that is scanned: rows whose codes are met, and before that the hubs."""
        dim, links = self.scan.dim or 0, (self.scan.links or 0) * LINK_BYTES
        hubs = min(_HUBS, rows)
        hub_bytes = hubs * code_bytes
        visited = min(rows, (point.ef or 1) * (self.scan.links or 0))
        tables = hub_bytes + hubs * LINK_BYTES + (dim * dim + dim) * _NUMBER_BYTES
        return visited, hubs * dim, (point.ef or 1) * links + hub_bytes, rows * links + tables


def _operations(scan: Scan, dim: int) -> float:
    """Multiply-adds (or table sums) to compare one row; eight bits at a time for one-bit codes."""
    return scan.subspaces or (dim / 8 if scan.code == "rabitq" else dim)


def _preparation(scan: Scan, dim: int) -> float:
    """Multiply-adds for one query before its scan: a rotation and the tables of distances."""
    rotation = dim * dim if scan.code in ("opq", "rabitq", "graph") else 0
    return rotation + (0 if scan.bits is None else dim * (1 << scan.bits))
