"""``graph64@128``: beam search over a graph of neighbours by 2-bit codes of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, cut
from nestling.errors import ConfigError
from nestling.kernels.graph import LINE_BYTES, CodedGraph, Residuals, aligned
from nestling.process.progress import Progress
from nestling.search.exact.centring import Centring
from nestling.search.exact.faiss_arrays import faiss
from nestling.search.exact.filters import Allowed
from nestling.search.exact.neighbours import Neighbours
from nestling.search.exact.reranker import Reranker
from nestling.search.exact.space import Floats, Ints
from nestling.search.graph.equal_rows import Equal
from nestling.search.graph.requests import LINKS
from nestling.search.graph.scan import GraphScan
from nestling.search.graph.stored_graph import (
    BUILDING,
    Coding,
    check_graph,
    grow_links,
    in_lines,
    in_memory,
    residuals_of,
)
from nestling.search.stages.building import Builder, Built, CoarseBuilder, FusedScanner, Scanner, Task
from nestling.search.stages.kinds.rerank import Rerank
from nestling.search.stages.stage import LINK_BYTES, BeamSearch, Coarse, Scan, StageCost
from nestling.storage.resumable import Arrays, Checkpoints, ResumableArrays

if TYPE_CHECKING:
    from nestling.search.plan.point import Point

_NUMBER_BYTES = 8  # in double precision
_HUBS = 512
_COPIES = "graph-"


@dataclass(frozen=True)
class Graph(BeamSearch, Scan):
    """A graph whose links lead past codes of its own, so that it takes the place of a coarse stage as well.

    Args:
        dim: the prefix that is linked and coded; None is the full size.
        links: of a row, 8 to 1024.

    Raises:
        ConfigError: for another number of links.
    """

    name = "graph"
    usual_width = 100
    reads_all = False

    def __post_init__(self) -> None:
        if not LINKS.admits(self.links):
            raise ConfigError(
                f"{self} has {self.links} links a row; choose {LINKS.least} to {LINKS.most}, 64 for most"
            )

    def check_neighbours(self, coarse: Coarse | None, reranks: Sequence[Rerank]) -> None:
        """See :class:`~nestling.search.stages.stage.Scan`."""
        if coarse is not None:
            raise ConfigError(f"{self} picks its rows itself; leave out {coarse} before it")
        if not reranks:
            raise ConfigError(
                f"the two bits per entry of {self} are too coarse to rank by; "
                f"add a rerank stage: {self} > rerank:fp16@full"
            )

    def row_bytes(self, dim: int) -> int:
        """A line of the cache: the least. Rows whose variance is spread evenly take more."""
        return LINE_BYTES

    def first_shortlist(self, k: int) -> int:
        """Three quarters of the beam."""
        return self.default_point(0, k)["ef"] * 3 // 4

    def cost(self, rows: int, picked: float, point: Point, code_bytes: int | None = None) -> StageCost:
        """The hubs, and the rows that the links of the beam lead to; ``picked`` is all rows here."""
        dim, size, width = self.size, code_bytes or self.row_bytes(self.size), point.ef or 1
        hubs = min(_HUBS, rows)
        hub_bytes, links = hubs * size, self.links * LINK_BYTES
        visited = min(rows, width * self.links)
        tables = hub_bytes + hubs * LINK_BYTES + (dim * dim + dim) * _NUMBER_BYTES
        return StageCost(
            hubs * dim + visited * dim + dim * dim,
            width * links + hub_bytes + visited * size,
            rows * links + tables + rows * size,
            visited,
        )

    def copies(self, rerank: Rerank, number: int) -> bool:
        """8 bits per entry of what its codes leave out, for ``rerank:int8`` of the same prefix."""
        return number == 0 and rerank == Rerank(self.dim, "int8")

    def copy_bytes(self, code_bytes: int) -> int:
        """See :class:`~nestling.search.stages.stage.Scan`."""
        return max(4 * code_bytes, -(-self.size // LINE_BYTES) * LINE_BYTES)

    def has_copies(self, arrays: Arrays, number: int) -> bool:
        """See :class:`~nestling.search.stages.stage.Scan`."""
        return number == 0 and "residuals" in arrays

    def known_sizes(self, arrays: Arrays) -> Mapping[str, int]:
        """Bytes of a row's code, and of what it leaves out."""
        rest = arrays.get("residuals")
        copy_bytes = self.size if rest is None else rest.shape[1]
        return {"code_bytes": arrays["codes"].shape[1], "copy_bytes": copy_bytes}

    def begin(self, task: Task, journal: ResumableArrays, coarse: CoarseBuilder) -> Builder:
        """See :class:`~nestling.search.stages.stage.Scan`."""
        return _GraphBuilder(self, task, journal)

    def lengths(self, built: Built, number: int) -> Mapping[str, int | None]:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        rows = built.rows
        needed: dict[str, int | None] = {"codes": rows, "links.rows": rows}
        needed |= dict.fromkeys(("graph.basis", "graph.mean", "graph.numbers", "links.hubs"))
        if "residuals" in built.arrays:
            needed |= {"residuals": rows, "residual_steps": rows}
        return needed

    def check_arrays(self, built: Built, where: str) -> None:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        built.check_equal_rows(where)
        check_graph(built.arrays, built.rows, self.size, self.links, f"{built.whole}", where)

    def open(self, built: Built) -> Scanner:
        """See :class:`~nestling.search.stages.stage.Scan`."""
        return BeamScanner(built, self.size)

    def extract(self, built: Built, number: int) -> Arrays:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        return built.copied("codes", "graph.", "links.", "residual", "equal.")

    def uncounted_bytes(self, arrays: Arrays, number: int) -> int:
        """The steps of residuals, and the groups of equal rows."""
        return sum(arrays[name].nbytes for name in ("residual_steps", "equal.first") if name in arrays)


class _GraphBuilder(Builder):
    """Codes all rows, then links them; copies of the links are written on the way."""

    def __init__(self, stage: Graph, task: Task, journal: ResumableArrays) -> None:
        self._stage, self._task, self._journal = stage, task, journal
        self._prefixes = cut(task.vectors, stage.size, RAW)
        self.is_done = "links." in journal
        fitted: list[Coding] = []

        def fit() -> Arrays:
            with Progress("learning the code of the graph"):
                fitted.append(Coding.fit(self._prefixes, task.space, task.seed))
            return fitted[0].to_parts()

        parts = journal.once("graph", fit)
        if not self.is_done:
            coding = fitted[0] if fitted else Coding.from_parts(parts, task.space, self._prefixes)
            reranks = task.plan.reranks
            with_residuals = any(stage.copies(each, number) for number, each in enumerate(reranks))
            self._coding = replace(coding, with_residuals=with_residuals)
            self.kinds = self._coding.kinds

    def encode(self, values: Floats, start: int, made: Arrays) -> Arrays:
        return self._coding.encode(self._prefixes, slice(start, start + len(values)))

    def finish(self) -> Arrays:
        """Link the rows; an interrupted build resumes from the last copy of the links."""
        codes: Arrays = {}
        copies = Checkpoints(self._journal, _COPIES)
        if not self.is_done:
            graph = self._link(self._task.equal_rows(self._journal), copies)
            codes = {"codes": graph.codes}  # they begin where a line of the cache does
        copies.drop()
        self._journal.drop(*BUILDING)
        self._task.drop_single_groups(self._journal)
        return codes

    def _link(self, equal: Equal, copies: Checkpoints) -> CodedGraph:
        journal, last = self._journal, copies.last()

        def note(linked: int, links: NDArray[np.int32]) -> None:
            if copies.is_due:
                copies.keep(linked, {"links": links})

        begun = None if last is None else (last[0], last[1]["links"])
        graph = grow_links(
            self._coding,
            self._prefixes,
            journal.__getitem__,
            self._stage.links,
            self._task.seed,
            equal,
            begun,
            note,
        )
        journal.once("links", lambda: {"rows": graph.links, "hubs": graph.hubs})
        return graph


class BeamScanner(Scanner):
    """Searches the graph. Rows come as promising as their codes say, without scores.

    Args:
        built: the built arrays.
        dim: the prefix that is linked.
    """

    def __init__(self, built: Built, dim: int) -> None:
        self._built, self._dim, self.equal = built, dim, built.equal_rows()
        self._coding = Coding.from_parts(built.group("graph"), built.space)
        arrays = built.arrays
        codes, hubs = in_lines(arrays["codes"]), in_memory(arrays["links.hubs"])
        # In memory: a page of a file would be looked up for each row that is reached.
        near = aligned(len(hubs), codes.shape[1])
        near[:] = codes[hubs]
        self._graph = CodedGraph(
            codes, in_memory(arrays["links.rows"]), hubs, near, self._coding.codec.biased
        )
        self._scan = self._over(built.vectors, self._coding.centring)

    def search(
        self, queries: Floats, k: int, least: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """See :class:`~nestling.search.stages.building.Scanner`; with a filter the beam is wider."""
        asked = np.ascontiguousarray(cut(queries, self._dim, RAW))  # scaled when they are coded
        mask = None if allowed is None else np.ascontiguousarray(allowed.mask)
        ef, workers = max(point.ef or 1, k), faiss.omp_get_max_threads()
        found = self._scan.candidates(asked, k, ef=ef, allowed=mask, workers=workers)
        return found.astype(np.int64), np.zeros(found.shape, np.float32)

    def fuse(self, first: Reranker, *, is_last: bool) -> FusedScanner | None:
        """Beam search and re-ranking by the same prefix in one call of compiled code."""
        stored = first.stored
        if first.dim != self._dim or stored is None or first.origin is not None:
            return None
        columns, equal = self._coding.codec.columns, self.equal if is_last else None
        residuals = residuals_of(self._built.arrays, len(stored.values), columns)
        centring = replace(self._coding.centring, inverse_norms=stored.scale)
        fused = RankedBeam(
            self._over(stored.values, centring, residuals, equal), self._dim, len(stored.values)
        )
        fused.equal = None if is_last else self.equal
        return fused

    def _over(
        self,
        vectors: NDArray[Any],
        centring: Centring,
        residuals: Residuals | None = None,
        equal: Equal | None = None,
    ) -> GraphScan:
        coding = self._coding
        return GraphScan(vectors, centring, coding.codec, self._graph, coding.metric, residuals, equal)


class RankedBeam(FusedScanner):
    """Beam search whose candidates are ranked by the first re-ranking stage.

    Args:
        scan: the graph, and the vectors that rank the candidates.
        dim: the prefix.
        rows: number of rows.
    """

    def __init__(self, scan: GraphScan, dim: int, rows: int) -> None:
        self._scan, self._dim, self._rows = scan, dim, rows

    def search(
        self, queries: Floats, shortlist: int, k: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """See :class:`~nestling.search.stages.building.FusedScanner`."""
        found = self._scan.search(
            cut(queries, self._dim, RAW),
            min(k, self._rows),
            ef=point.ef or 1,
            shortlist=min(shortlist, self._rows),
            allowed=None if allowed is None else allowed.mask,
            workers=faiss.omp_get_max_threads(),
        )
        if k <= self._rows:
            return found.indices, found.scores
        more = ((0, 0), (0, k - self._rows))
        return np.pad(found.indices, more, constant_values=-1), np.pad(found.scores, more)

    def answer(self, queries: Any, k: int, point: Point, workers: int | None) -> Neighbours:
        """See :class:`~nestling.search.stages.building.FusedScanner`."""
        kept = min(max(k, point.shortlists[0]), self._rows)
        return self._scan.search(queries, k, ef=point.ef or 1, shortlist=kept, workers=workers)
