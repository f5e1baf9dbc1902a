"""Immutable index over a fixed set of rows: built from a plan, searched at any operating point."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.paths import home_path
from nestling.axes import CODE_BITS
from nestling.cut import RAW, CutRule, check_vectors, cut
from nestling.errors import ArtifactError, ConfigError, DataError
from nestling.kernels.planes.layout import stride_of
from nestling.search.engine.building import build_arrays
from nestling.search.engine.pipeline import Pipeline
from nestling.search.exact.faiss_arrays import faiss_threads
from nestling.search.exact.filters import Allowed
from nestling.search.exact.neighbours import Metric, Neighbours, check_k
from nestling.search.exact.space import Floats, Space, read_rows
from nestling.search.plan.plan import Plan, PlanCost, Point
from nestling.search.stages.building import Built, Task
from nestling.storage.artifact import open_array, write_file
from nestling.storage.npy import write_array, write_npy
from nestling.storage.resumable import Arrays
from nestling.vectors.matrix import blocks_of
from nestling.vectors.planes import BitPlanes
from nestling.vectors.precision import Values

if TYPE_CHECKING:
    from nestling.search.stages.kinds.certified import CertifiedPipeline

_SIZES_KEPT = 8


class Engine:
    """An index over immutable rows. Any number of threads may search it at once, each at its own point.

    Made by :func:`build` or :meth:`load`.

    Attributes:
        plan: with sizes as numbers.
        vectors: ``Float[rows, full]``, after what comes before a cut; read by re-ranking and by filters
            that leave few rows. Or the codes of rows that are held as nothing else, which read like it.
        rule: steps after a cut.
        metric: ``"dot"`` or ``"euclidean"``.
    """

    def __init__(
        self,
        plan: Plan,
        arrays: Arrays,
        vectors: Values,
        rule: CutRule,
        metric: Metric,
        certified: CertifiedPipeline | None = None,
    ) -> None:
        self.plan, self.vectors, self.rule, self.metric = plan, vectors, rule, metric
        self._arrays, self._space, self._certified = arrays, Space.of(rule, metric), certified
        whole = Built(plan, plan, arrays, vectors, self._space)
        self._full = certified or Pipeline(whole)
        # Those used last are kept; without a lock, which a fork would inherit while another thread holds it.
        self._cut = lru_cache(_SIZES_KEPT)(partial(_cut_pipeline, whole))
        self._last_default = 10, plan.default_point(len(vectors))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def space(self) -> Space:
        """Metric of comparisons."""
        return self._space

    @property
    def dim(self) -> int:
        """The full size of the vectors."""
        return int(self.vectors.shape[1])

    def search(
        self,
        queries: Any,
        k: int,
        point: Point | None = None,
        *,
        dim: int | None = None,
        bits: int | None = None,
        allowed: NDArray[np.bool_] | None = None,
        workers: int | None = None,
    ) -> Neighbours:
        """The ``k`` nearest rows of every query.

        A filter that leaves few rows is answered by comparing them all; otherwise it goes into the scan,
        which then reads more lists or more of the graph until ``k`` rows are found. A shortlist longer than
        the rows are many is cut to them.

        Args:
            queries: ``Float[queries, full]``, or as wide as ``dim`` where that is given.
            k: at least 1.
            point: parameters of this call; by default those of ``plan.default_point``.
            dim: no stage reads more entries than this.
            bits: no stage reads more bits of each entry of a nested code.
            allowed: ``Bool[rows]``, true where a row may be found.
            workers: threads of this call; by default as many as faiss uses.

        Returns:
            Row numbers and scores, best first; -1 and nan where fewer than ``k`` rows were found.

        Raises:
            DataError: for queries or a filter that cannot be used, or ``k`` below 1.
            ConfigError: for a point that does not fit the plan, or codes that cannot be cut to ``dim``.
        """
        k = check_k(k)
        pipeline = self._at(dim, bits)
        point = self._check_point(point, k, pipeline.plan)
        if pipeline.whole is not None and allowed is None and dim in (None, self.dim) and k <= len(self):
            # One call does all, and checks the queries itself.
            return pipeline.whole.answer(queries, k, point, workers)
        asked = self._check_queries(queries, dim)
        chosen = None if allowed is None else Allowed(allowed, len(self))
        if chosen is not None and chosen.count == 0:
            shape = (len(asked), k)
            return Neighbours(np.full(shape, -1), np.full(shape, np.nan, np.float32))
        if chosen is not None and chosen.count == len(self):
            chosen = None
        rows, scores = pipeline.search(asked, k, point, chosen, workers)
        return Neighbours(rows, np.where(rows < 0, np.float32(np.nan), scores))

    def extract(self, dim: int, folder: Path | str | None = None, *, bits: int | None = None) -> Engine:
        """A smaller engine with the same results as this one at ``dim``, and shares nothing with it.

        Args:
            dim: its full size.
            folder: an existing folder to write its vectors to, as ``vectors.npy``, block by block; None
                holds them in memory, and so are codes.
            bits: that it keeps of each entry, of rows that are held as codes; all by default.

        Raises:
            ConfigError: for codes that cannot be cut to ``dim``, or bits that the rows do not have.
        """
        built = self.built(dim, bits)
        if self._certified is not None:
            return self
        arrays: Arrays = {}
        for number, stage in built.plan.numbered():
            arrays |= stage.extract(built, number)
        vectors: Values
        if isinstance(self.vectors, BitPlanes):
            vectors = self.vectors.cut(dim, bits or self.vectors.bits)
        elif folder is None:
            vectors = np.array(cut(self.vectors, dim, RAW), order="C")
        else:
            path, kind_of = home_path(folder) / "vectors.npy", self.vectors.dtype
            blocks = (cut(self.vectors[rows], dim, RAW) for rows in blocks_of(self.vectors))
            write_npy(path, blocks, (len(self), dim), kind_of)
            vectors = open_array(path)
        return Engine(built.plan, arrays, vectors, self.rule, self.metric)

    def built(self, dim: int | None = None, bits: int | None = None) -> Built:
        """What the stages read at one size."""
        return Built(self._at(dim, bits).plan, self.plan, self._arrays, self.vectors, self._space)

    def cost(self, point: Point | None = None, dim: int | None = None, bits: int | None = None) -> PlanCost:
        """The cost of one query at a point and a size, and of storage; at a smaller size, as if extracted."""
        plan, size = self._at(dim, bits).plan, self.dim if dim is None else dim
        cost = plan.cost(len(self), size, point, **plan.scan.known_sizes(self._arrays))
        more = sum(stage.uncounted_bytes(self._arrays, number) for number, stage in plan.numbered())
        on_disk = cost.bytes_on_disk
        if isinstance(self.vectors, BitPlanes):  # what the plan reads of the codes is counted as stored
            held = stride_of(size) * min(bits or self.vectors.bits, self.vectors.bits)
            on_disk = len(self) * (held - plan.code_bytes)
        return replace(cost, bytes_stored=cost.bytes_stored + more, bytes_on_disk=on_disk)

    def save(self, folder: Path | str) -> None:
        """Write all arrays but the vectors, as plain ``.npy`` files, to an existing folder.

        Arrays that were built in that folder are not written again.

        Raises:
            StorageError: if writing fails.
        """
        for name, array in self._arrays.items():
            path = home_path(folder) / f"{name}.npy"
            where = getattr(array, "filename", None)
            if where is None or not path.is_file() or not path.samefile(where):
                write_array(path, array)
        if self._certified is not None:
            self._certified.save(home_path(folder))
        write_file(home_path(folder) / _NAMES, "\n".join(sorted(self._arrays)) + "\n")

    @classmethod
    def load(
        cls, folder: Path | str, vectors: Values, plan: Plan, rule: CutRule, metric: Metric = "dot"
    ) -> Self:
        """Read what :meth:`save` wrote; the caller has verified the files.

        Args:
            folder: folder that it was saved in.
            vectors: those that the engine was built over.
            plan: of the saved engine.
            rule: of the saved engine.
            metric: of the saved engine.

        Raises:
            ArtifactError: if files are missing or are not of these vectors.
        """
        plan = plan.resolve(vectors.shape[1])
        if plan.certify is not None:
            certified = plan.certify.load(plan, vectors, home_path(folder))
            return cls(plan, {}, vectors, rule, metric, certified)
        try:
            names = (home_path(folder) / _NAMES).read_text(encoding="utf-8").split()
            arrays = {name: open_array(home_path(folder) / f"{name}.npy") for name in names}
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{folder} cannot be read as an engine: {error}; build it again") from error
        _check_arrays(Built(plan, plan, arrays, vectors, Space.of(rule, metric)), str(folder))
        return cls(plan, arrays, vectors, rule, metric)

    def _at(self, dim: int | None, bits: int | None = None) -> Pipeline | CertifiedPipeline:
        """The stages at one size."""
        if bits is not None:
            self._check_bits(bits)
        if dim in (None, self.dim):
            return self._full if bits is None else self._part(self.dim, bits)
        if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or not 1 <= dim < self.dim:
            raise ConfigError(f"dim={dim} does not fit vectors of {self.dim} entries; choose 1 to {self.dim}")
        if self._certified is not None:
            raise ConfigError(
                f"{self.plan} searches at dim={self.dim}, not at {dim}; build over vectors cut to {dim}"
            )
        return self._part(int(dim), bits)

    def _part(self, dim: int, bits: int | None) -> Pipeline | CertifiedPipeline:
        return self._full if self.plan.cut(dim, bits) == self.plan else self._cut(dim, bits)

    def _check_bits(self, bits: int) -> None:
        held = self.vectors.bits if isinstance(self.vectors, BitPlanes) else None
        if held is None:
            raise ConfigError(f"bits={bits} is of rows that are held as codes, and these are floats")
        if bits not in CODE_BITS or bits > held:
            allowed = ", ".join(str(each) for each in CODE_BITS if each <= held)
            raise ConfigError(f"bits={bits} does not fit rows that are held in {held} bits; choose {allowed}")

    def _check_point(self, point: Point | None, k: int, plan: Plan) -> Point:
        if point is None:
            return self._default_point(k)
        plan.check_point(point)
        if point.shortlists and point.shortlists[-1] < min(k, len(self)):
            raise ConfigError(
                f"a shortlist of {point.shortlists[-1]} cannot hold k={k} results; make it at least {k}"
            )
        if plan.coarse is not None:
            plan.coarse.check_point(point)
        default = self._default_point(k)
        if (point.nprobe is None) != (default.nprobe is None) or (point.ef is None) != (default.ef is None):
            return replace(point, nprobe=default.nprobe, ef=default.ef)
        return point

    def _default_point(self, k: int) -> Point:
        """Default point of every size, as it depends on the number of stages; cached."""
        last = self._last_default
        if last[0] != k:
            self._last_default = last = k, self.plan.default_point(len(self), k)
        return last[1]

    def _check_queries(self, queries: Any, dim: int | None) -> Floats:
        asked = check_vectors(queries, "queries")
        if asked.shape[1] not in (self.dim, dim):
            allowed = f"{self.dim}" if dim is None else f"{self.dim} or {dim}"
            hint = "; to ask with a prefix, say so with dim=" if dim is None else ""
            raise DataError(f"queries have {asked.shape[1]} entries, but {allowed} are expected{hint}")
        return read_rows(asked, "queries") if asked.dtype != np.float32 else np.ascontiguousarray(asked)


def _cut_pipeline(whole: Built, dim: int, bits: int | None) -> Pipeline:
    """The stages at one size, from the arrays of all sizes."""
    return Pipeline(replace(whole, plan=whole.plan.cut(dim, bits)))


_NAMES = "arrays.txt"


def _check_arrays(built: Built, where: str) -> None:
    """Refuse arrays of other vectors or another plan before faiss reads through them."""
    plan, arrays, rows = built.plan, built.arrays, built.rows
    lengths = {name: n for number, each in plan.numbered() for name, n in each.lengths(built, number).items()}
    for name, length in lengths.items():
        if name not in arrays:
            raise ArtifactError(f"{where} holds no {name}, which {plan} needs; load it with its own plan")
        if length is not None and len(arrays[name]) != length:
            raise ArtifactError(
                f"{where} holds {len(arrays[name])} {name}, and {plan} over {rows} vectors needs {length}; "
                "load it with the plan and vectors it was built over, or build it again"
            )
    for stage in plan.stages():
        stage.check_arrays(built, where)


def build(
    plan: Plan | str,
    vectors: Values,
    *,
    rule: CutRule = CutRule(),
    metric: Metric = "dot",
    seed: int = 0,
    workers: int | None = None,
    folder: Path | str | None = None,
) -> Engine:
    """Build an engine over ``vectors`` as a stream.

    Lists and codes are learned from samples; then the vectors are read once, block by block, so they may
    be a memory map larger than memory. With a folder, an interrupted build that is started again with the
    same arguments resumes where it stopped and gives the same engine (a graph: with ``workers=1``).

    Args:
        plan: the plan to build.
        vectors: ``Float[rows, full]``, after what comes before a cut; kept, not copied. Codes
            (:class:`~nestling.vectors.planes.BitPlanes`) are searched as they are, and nothing is built.
        rule: with ``l2`` after the cut every prefix is scaled to length one.
        metric: ``"dot"`` or ``"euclidean"``.
        seed: of everything that is drawn.
        workers: threads; by default as many as faiss uses.
        folder: for arrays and checkpoints; None holds them in memory.

    Raises:
        ConfigError: for a plan that does not fit the vectors, or a folder with the start of another build.
        DataError: for vectors that cannot be used; rows are named.
        StorageError: if the folder cannot be written.
    """
    space = Space.of(rule, metric)
    if vectors.ndim != 2 or 0 in vectors.shape or vectors.dtype.kind != "f":
        check_vectors(vectors)
    plan = (Plan.parse(plan) if isinstance(plan, str) else plan).resolve(vectors.shape[1])
    if isinstance(vectors, BitPlanes):
        plan.check_held(vectors.bits)
    if plan.certify is not None:
        certified = plan.certify.build(plan, vectors, rule, metric, seed)
        return Engine(plan, {}, vectors, rule, metric, certified)
    with faiss_threads(workers):
        arrays = build_arrays(
            Task(plan, vectors, space, seed, rule.code), None if folder is None else home_path(folder)
        )
        return Engine(plan, arrays, vectors, rule, metric)
