"""Plans: prefix and code of each stage of an index, and cost of a query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

from nestling.errors import ConfigError
from nestling.search.plan.point import Point as Point
from nestling.search.stages import nested_code
from nestling.search.stages.kinds.certified import Certify
from nestling.search.stages.kinds.rerank import Rerank
from nestling.search.stages.registry import parse_stage
from nestling.search.stages.stage import EXAMPLE, Coarse, Scan, Stage, StageCost

# Ends of errors about a parameter that a plan does not read.
_LACKING = {"nprobe": "reads no lists", "ef": "searches no graph"}


@dataclass(frozen=True)
class PlanCost:
    """The cost of one query, and of storage.

    Args:
        mflops: millions of multiply-adds, as the paper counts them, with the table sums, rotations and
            re-ranking that its model leaves out.
        bytes_read: of codes, graph and vectors.
        bytes_stored: of all rows in memory: codes, lists or graph, and copies for re-ranking.
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
        coarse: selects the rows to scan; None scans all.
        reranks: stages that re-rank ever fewer rows by ever longer prefixes.
        certify: searches until no skipped row can be among the results, in place of ``reranks``.

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
    certify: Certify | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reranks", tuple(self.reranks))
        object.__setattr__(self, "certify", Certify() if self.certify else None)  # True was how to ask for it
        self.scan.check_neighbours(self.coarse, self.reranks)
        if self.certify is not None and (self.reranks or self.coarse is not None):
            raise ConfigError(
                f"certify must follow a scan of all rows and ends the plan, but here it is {self}; "
                "leave out the other stages"
            )

    def is_exact(self, full: int) -> bool:
        """Whether it compares all vectors of ``full`` entries as they are, so that nothing is missed."""
        is_whole = self.scan.is_exact and self.scan.dim in (None, full)
        return is_whole and self.coarse is None and not self.reranks

    @cached_property
    def parameters(self) -> frozenset[str]:
        """The parameters of a point that its stages read: ``"nprobe"`` (lists) or ``"ef"`` (beam width)."""
        return frozenset(name for stage in self.stages() for name in stage.parameters)

    @property
    def reads_all(self) -> bool:
        """Whether the codes of all rows are compared."""
        return self.coarse is None and self.scan.reads_all

    @property
    def smallest_dim(self) -> int:
        """The smallest size at which a built index can be searched; of a plan whose sizes are numbers."""
        return 1 if self.scan.is_sliceable and self.certify is None else self.scan.dim or 1

    def __str__(self) -> str:
        coarse = [] if self.coarse is None else [self.coarse]
        end = [*self.reranks] if self.certify is None else [self.certify]
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
            name = _role(stage)
            # A stage precedes those that take its rows: coarse, scan, rerank or certify.
            later = {"coarse": ("scan", "certify"), "scan": ("certify",), "certify": ()}[name]
            if name in found or found["reranks"] or any(other in found for other in later):
                raise ConfigError(
                    f"the stage {stage} of {text!r} is repeated or comes too late; write {EXAMPLE}"
                )
            found[name] = stage
        if "scan" not in found:
            raise ConfigError(f"the plan {text!r} scans nothing; add a code, {EXAMPLE}")
        return cls(**found)

    def stages(self) -> Iterator[Stage]:
        """The stages that read a prefix, in the order in which a query meets them."""
        if self.coarse is not None:
            yield self.coarse
        yield self.scan
        yield from self.reranks

    def numbered(self) -> Iterator[tuple[int, Stage]]:
        """The same stages, those that re-rank with their place among each other, from 0; others with 0."""
        yield from ((0, stage) for stage in (self.scan, self.coarse) if stage is not None)
        yield from enumerate(self.reranks)

    def resolve(self, full: int) -> Plan:
        """The plan with every size as a number, for vectors of ``full`` entries.

        Raises:
            ConfigError: for a size that the vectors do not have, re-ranking by less than was scanned, or
                a code that does not divide its prefix.
        """
        for stage in self.stages():
            if stage.dim is not None and not 1 <= stage.dim <= full:
                raise ConfigError(
                    f"the stage {stage} does not fit vectors of {full} entries; choose 1 to {full}"
                )
        found = self._with(lambda stage: stage.resolve(full))
        for before, after in pairwise([found.scan, *found.reranks]):
            if after.size < before.size:
                raise ConfigError(
                    f"{after} re-ranks by less than {before} before it; re-rank by longer prefixes"
                )
        for stage in found.stages():
            stage.check_size()
        return found

    def cut(self, dim: int, bits: int | None = None) -> Plan:
        """The plan with no stage that reads more than ``dim`` entries; it has as many stages as before.

        A code that mixes all entries of its prefix stays as it is, and so do the lists before it. Of a nested
        code no stage reads more than ``bits`` of each entry.
        """
        return self._with(lambda stage: stage.cut(dim, bits))

    def check_held(self, bits: int) -> None:
        """Whether it can be built over rows that are held as a nested code of so many bits, and nothing else.

        Raises:
            ConfigError: naming the stage that needs more.
        """
        for stage in self.stages():
            stage.check_held(bits)

    def _with(self, change: Callable[[Stage], Any]) -> Plan:
        """The plan with each stage changed."""
        coarse = None if self.coarse is None else change(self.coarse)
        return replace(self, coarse=coarse, scan=change(self.scan), reranks=tuple(map(change, self.reranks)))

    @property
    def answer_dim(self) -> int:
        """The prefix that the last stage compares, of a plan whose sizes are numbers."""
        return self._last.size

    @property
    def answer_bits(self) -> int | None:
        """The bits of each entry that the last stage compares; None if it does not read the nested code."""
        return self._last.code_bits

    @property
    def code_bytes(self) -> int:
        """Bytes of a row of the nested code that its stages share; of a plan whose sizes are numbers."""
        return nested_code.row_bytes(self)

    @property
    def _last(self) -> Stage:
        return self.reranks[-1] if self.reranks else self.scan

    def default_point(self, rows: int, k: int = 10) -> Point:
        """A point to start from: a twentieth of the lists, beams and shortlists of some times ``k``."""
        first = self.scan.first_shortlist(k)
        lengths = [max(k, first >> stage) for stage in range(len(self.reranks))]
        return self._point(
            (stage.default_point(rows, k) for stage in self.stages()),
            tuple(max(1, min(rows, length)) for length in lengths),
        )

    def smallest_point(self, rows: int, k: int) -> Point:
        """The smallest point that can find ``k``: where tuning begins."""
        parameters = (stage.smallest_point(rows, k) for stage in self.stages())
        return self._point(parameters, (min(rows, k),) * len(self.reranks))

    def larger_points(self, point: Point, rows: int) -> Iterator[Point]:
        """The point with each parameter but the shortlists doubled in turn, as far as that reads more."""
        for stage in self.stages():
            more: Mapping[str, Any] = stage.larger_point(point, rows)
            if more:
                yield replace(point, **more)

    @staticmethod
    def _point(parameters: Iterable[Mapping[str, int]], shortlists: tuple[int, ...]) -> Point:
        known: dict[str, Any] = {name: value for each in parameters for name, value in each.items()}
        return Point(**known, shortlists=shortlists)

    def check_point(self, point: Point) -> None:
        """Whether a point is one of this plan.

        Raises:
            ConfigError: for parameters of stages that the plan does not have, or too few or many shortlists.
        """
        for name, lacking in _LACKING.items():
            value = getattr(point, name)
            if value is not None and name not in self.parameters:
                raise ConfigError(f"{name}={value} has no meaning for {self}, which {lacking}")
        if len(point.shortlists) != len(self.reranks):
            raise ConfigError(
                f"the point {point} has {len(point.shortlists)} shortlists, and {self} re-ranks "
                f"{len(self.reranks)} times; give one length for each"
            )

    def cost(
        self,
        rows: int,
        full: int,
        point: Point | None = None,
        *,
        code_bytes: int | None = None,
        copy_bytes: int | None = None,
    ) -> PlanCost:
        """The cost of one query over ``rows`` vectors of ``full`` entries at ``point``.

        A graph is counted as ``ef * links`` comparisons, which tells plans apart, not seconds. Tables of a
        few kilobytes are left out.

        Args:
            rows: number of vectors.
            full: entries of each.
            point: by default that of :meth:`default_point`.
            code_bytes: of a row of the scan, where that is known better than the plan can tell.
            copy_bytes: of a copy of a row that the scan keeps for the re-ranking after it, likewise.

        Source: AdANNS, section 4.1 and appendix: ``d_c * lists + nprobe * d_s * rows / lists``.

        >>> Plan.parse("ivf64@64 > flat@64").cost(1_281_167, 2048, Point(nprobe=1)).mflops
        1.285263
        """
        plan = self.resolve(full)
        point = self.default_point(rows) if point is None else point
        code_bytes = code_bytes or plan.scan.row_bytes(plan.scan.size)
        picked = StageCost(rows=rows) if plan.coarse is None else plan.coarse.cost(rows, point)
        costs = [picked, plan.scan.cost(rows, picked.rows, point, code_bytes)]
        for number, (stage, length) in enumerate(zip(plan.reranks, point.shortlists, strict=True)):
            kept = None
            if plan.scan.copies(stage, number):
                kept = copy_bytes or plan.scan.copy_bytes(code_bytes)
            costs.append(stage.cost(rows, length, kept))
        return PlanCost(
            sum(each.operations for each in costs) / 1e6,
            sum(each.bytes_read for each in costs),
            int(sum(each.bytes_stored for each in costs)) + rows * plan.code_bytes,
            rows * full * 4,
        )


def _role(stage: Stage) -> str:
    """The part of a plan that a stage is."""
    return "coarse" if isinstance(stage, Coarse) else "scan" if isinstance(stage, Scan) else "certify"
