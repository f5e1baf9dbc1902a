"""The nested code of a plan: one set of bit planes, of which each stage reads its own dims and bits.

It is built from floats, beside them; or the rows are held as such a code, and it is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nestling.bits import BitCode, cell_values
from nestling.cut import RAW, cut
from nestling.errors import ArtifactError
from nestling.kernels import LANES, padded, planes
from nestling.kernels.planes.layout import CodeSlice, stride_of
from nestling.process.blocks import blocks, shares
from nestling.search.exact.faiss_arrays import faiss
from nestling.search.exact.reranker import Reranker
from nestling.search.exact.space import Floats, Ints, Space
from nestling.search.stages.building import Builder, Built, Task
from nestling.search.stages.stage import Stage
from nestling.storage.resumable import Arrays, ResumableArrays
from nestling.vectors.planes import BitPlanes

if TYPE_CHECKING:
    from nestling.search.plan.plan import Plan

Doubles = NDArray[np.float64]
Found = tuple[Ints, NDArray[Any]]

_ROWS_TO_CALIBRATE = 1 << 16
# Rows that take a thread many times as long as its start.
_ROWS_TO_SHARE = 1 << 16
_SCORES_AT_A_TIME = 1 << 20
_OF_STAGE = "bits"


def readers(plan: Plan) -> list[Stage]:
    """The stages of a plan that read its nested code, in order; the first one builds it."""
    return [stage for stage in plan.stages() if stage.code_bits is not None]


def size_of(plan: Plan) -> tuple[int, int]:
    """The dims and bits of the nested code of a plan whose sizes are numbers; none, none without one."""
    stages = readers(plan)
    return max((each.size for each in stages), default=0), max(
        (each.code_bits or 0 for each in stages), default=0
    )


def row_bytes(plan: Plan) -> int:
    """Bytes of a row of the nested code, which all stages share."""
    dim, bits = size_of(plan)
    return stride_of(dim) * bits


def begin(task: Task, journal: ResumableArrays, stage: Stage, *, measured: bool = False) -> Builder:
    """Calibrate the code, unless the cut rule has one, and say how rows are coded.

    Args:
        task: the build.
        journal: keeps what was made.
        stage: the first that reads the code builds it; others build nothing.
        measured: keep what a scan of the slice of this stage needs of each row.
    """
    if readers(task.plan)[0] != stage:
        return Builder()
    kind = _Measurer if isinstance(task.vectors, BitPlanes) else _CodeBuilder
    return kind(task, journal, stage if measured else None)


def _names(bits: int) -> list[str]:
    """The arrays of planes, from the most significant one."""
    return [f"plane{place + 1}" for place in range(bits)]


def _held(built: Built, bits: int) -> tuple[NDArray[np.uint8], ...]:
    if built.planes is not None:
        return built.planes.planes[:bits]
    return tuple(built.arrays[name] for name in _names(bits))


def lengths(built: Built) -> Mapping[str, int | None]:
    """The arrays of the code, and how long each must be."""
    if built.planes is not None:
        return {}
    bits = size_of(built.whole)[1]
    needed: dict[str, int | None] = dict.fromkeys(_names(bits), built.rows)
    return needed | dict.fromkeys(("code.centre", "code.spread"))


def check_arrays(built: Built, where: str) -> None:
    """Refuse planes that compiled code could not read.

    Raises:
        ArtifactError: naming ``where`` they lie.
    """
    if built.planes is not None:  # which were checked when they were opened
        return
    dim, bits = size_of(built.whole)
    held = _held(built, bits)
    numbers = [built.arrays[f"code.{name}"] for name in ("centre", "spread")]
    fits = all(each.shape == (built.rows, stride_of(dim)) and each.dtype == np.uint8 for each in held)
    if not fits or any(each.shape != (dim,) or each.dtype != np.float32 for each in numbers):
        raise ArtifactError(f"{where} does not hold codes of {dim} dims and {bits} bits; build it again")


def extract(built: Built, stage: Stage) -> Arrays:
    """The planes that the cut plan reads, if this stage is the one that builds them."""
    if readers(built.plan)[0] != stage or built.planes is not None:
        return {}
    dim, bits = size_of(built.plan)
    code = BitCode(built.arrays["code.centre"], built.arrays["code.spread"], size_of(built.whole)[0])
    small = BitPlanes(_held(built, bits), code).cut(dim, bits)
    found = dict(zip(_names(bits), small.planes, strict=True))
    return found | {"code.centre": np.array(small.code.centre), "code.spread": np.array(small.code.spread)}


def slice_of(built: Built, dim: int, bits: int) -> CodeSlice:
    """The leading dims and bits of the code, as kernels compare them."""
    if built.planes is not None:
        code = built.planes.code.cut(dim)
        spread, centre = code.spread, code.centre
    else:
        spread, centre = (
            np.array(cut(np.asarray(built.arrays[f"code.{name}"]), dim, RAW)) for name in ("spread", "centre")
        )
    space = built.space
    kind: Any = "cosine" if space.is_normalised else "distance" if space.is_rising else "dot"
    return CodeSlice(_held(built, bits), cell_values(bits), spread, centre, kind)


def measure(codes: CodeSlice) -> Arrays:
    """Squared lengths of the rows of a slice, and the largest lengths that bounds on its scores need."""
    found = planes.measure(codes)
    return {"squares": found[:, 0].astype(np.float32), "bounds": np.sqrt(found[:, 1:].max(axis=0))}


def bounded(codes: CodeSlice, measured: Mapping[str, NDArray[Any]]) -> CodeSlice:
    """A slice with what :func:`measure` found of it."""
    reach, rest = measured["bounds"]
    return codes.bounded(np.asarray(measured["squares"]), float(reach), float(rest))


def in_threads(search: Callable[[slice, slice], Found], queries: int, rows: int, k: int) -> Found:
    """Rows and scores of all queries, which threads share; few queries share the rows instead.

    Args:
        search: of some queries and some rows: row numbers and scores ``[queries, k]``, higher ones first.
        queries: number of queries.
        rows: number of rows.
        k: of each query.
    """
    workers = faiss.omp_get_max_threads()
    by_rows = min(workers, rows // _ROWS_TO_SHARE)
    if workers == 1 or (queries < workers and by_rows < 2):
        return search(slice(0, queries), slice(0, rows))
    if queries >= workers:
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(lambda some: search(some, slice(0, rows)), shares(queries, workers)))
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    spans = [
        slice(each.start * LANES, min(each.stop * LANES, rows))
        for each in shares(padded(rows) // LANES, by_rows)
    ]
    with ThreadPoolExecutor(by_rows) as pool:
        parts = list(pool.map(lambda span: search(slice(0, queries), span), spans))
    found, scores = (np.concatenate([part[place] for part in parts], axis=1) for place in (0, 1))
    order = np.lexsort((found, -scores, found < 0))[:, :k]
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1)


def shown(space: Space, scores: Doubles) -> Floats:
    """Scores of kernels as results show them: similarities, or distances."""
    if not space.is_rising:
        return scores.astype(np.float32)
    squares = 2 - 2 * scores if space.is_normalised else -scores
    return np.sqrt(np.maximum(squares, 0)).astype(np.float32)


class CodeReranker(Reranker):
    """Puts rows in order by a slice of the nested code.

    Args:
        space: metric of comparisons.
        codes: the slice.
    """

    def __init__(self, space: Space, codes: CodeSlice) -> None:
        super().__init__(space, codes.dim, lambda rows: _values(codes, rows))
        self._codes = codes

    def order(self, queries: Floats, shortlist: Ints, k: int) -> tuple[Ints, Floats]:
        """See :class:`~nestling.search.exact.reranker.Reranker`."""
        asked = self._space.prefix(queries, self.dim, "queries").astype(np.float64)
        shortlist = np.sort(shortlist, axis=1).astype(np.int64, copy=False)
        scores = shown(self._space, planes.score(self._codes, asked, shortlist))
        return self._space.best_first(shortlist, scores, k)


class CodeSubset:
    """Finds the best among given rows, by a slice of the code that they are held in.

    Args:
        built: over rows that are held as codes.
    """

    def __init__(self, built: Built) -> None:
        plan = built.plan
        self._codes = slice_of(built, plan.answer_dim, plan.answer_bits or 0)
        self._reranker = CodeReranker(built.space, self._codes)

    def best(self, queries: Floats, k: int, rows: Ints) -> tuple[Ints, Floats]:
        """The ``k`` best of some rows, in rising order, for each query of full size, and their scores."""
        kept, step = min(k, len(rows)), max(1, _SCORES_AT_A_TIME // len(rows))
        parts = [
            self._reranker.order(queries[some], np.tile(rows, (some.stop - some.start, 1)), kept)
            for some in blocks(len(queries), step)
        ]
        found, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        missing = ((0, 0), (0, k - kept))
        return np.pad(found, missing, constant_values=-1), np.pad(scores, missing)


def _values(codes: CodeSlice, rows: Ints) -> Floats:
    held = planes.unpacked([plane[rows, : stride_of(codes.dim)] for plane in codes.planes], codes.dim)
    return planes.decode(held, codes.values, codes.spread, codes.centre)


class _Measurer(Builder):
    """Measures the slice that a scan reads, of rows that are held as codes."""

    is_done = True

    def __init__(self, task: Task, journal: ResumableArrays, measured: Stage | None) -> None:
        self._task, self._journal, self._measured = task, journal, measured

    def finish(self) -> Arrays:
        stage, task = self._measured, self._task
        if stage is not None:
            arrays = {name: self._journal[name] for name in self._arrays()}
            built = Built(task.plan, task.plan, arrays, task.vectors, task.space)
            codes = slice_of(built, stage.size, stage.code_bits or 0)
            self._journal.once(_OF_STAGE, lambda: measure(codes))
        return {}

    def _arrays(self) -> list[str]:
        """The arrays that the slice is read from."""
        return []


class _CodeBuilder(_Measurer):
    """Codes rows, and measures the slice."""

    is_done = False

    def __init__(self, task: Task, journal: ResumableArrays, measured: Stage | None) -> None:
        super().__init__(task, journal, measured)
        self._dim, self._bits = size_of(task.plan)
        parts = journal.once("code", self._calibrate)
        self._code = BitCode(parts["centre"], parts["spread"], task.vectors.shape[1])
        self.kinds = dict.fromkeys(_names(self._bits), (np.uint8, stride_of(self._dim)))

    def _calibrate(self) -> Arrays:
        task, full = self._task, int(self._task.vectors.shape[1])
        known = task.code if task.code is not None and task.code.full == task.code.dim == full else None
        code = (known or BitCode.calibrate(task.sample(_ROWS_TO_CALIBRATE, full))).cut(self._dim)
        return {"centre": np.array(code.centre), "spread": np.array(code.spread)}

    def encode(self, values: Floats, start: int, made: Arrays) -> Arrays:
        whole = self._task.space.prefix(values, values.shape[1], "vectors", start)
        return dict(zip(_names(self._bits), planes.packed(self._code.encode(whole), self._bits), strict=True))

    def _arrays(self) -> list[str]:
        return [*self.kinds, "code.centre", "code.spread"]
