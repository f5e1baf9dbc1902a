"""Base class of scans over faiss codes, and the exhaustive scan of all rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nestling.errors import ArtifactError
from nestling.process.progress import Progress
from nestling.search.exact.faiss_arrays import Codes, faiss
from nestling.search.exact.filters import Allowed, keep_allowed, length_to_fetch
from nestling.search.exact.reranker import Reranker, fetch_vectors
from nestling.search.exact.space import Floats, Ints
from nestling.search.stages.building import Builder, Built, CoarseBuilder, Scanner, Task
from nestling.search.stages.faiss_codes import Code
from nestling.search.stages.stage import Scan
from nestling.storage.resumable import Arrays, ResumableArrays

if TYPE_CHECKING:
    from nestling.search.plan.point import Point

_ROWS_TO_LEARN_A_CODE = 1 << 16


class CodedScan(Scan):
    """A scan whose codes a faiss index encodes, compares and decodes; each kind says which one."""

    code_type: ClassVar[type[Code]] = Code
    is_scalar: ClassVar[bool] = False
    """Whether each entry is quantised by itself; slices of unit vectors then have no unit length."""
    moves_mean: ClassVar[bool] = True
    """Whether a mean that lies far from zero is taken off before rows are coded."""
    stretches: ClassVar[bool] = False
    """Whether codes lose less along a far mean if rows are made longer along it."""
    is_relative: ClassVar[bool] = False
    """Whether codes are relative to the mean of the inverted list of the row, where there are lists."""
    depends_on_metric: ClassVar[bool] = False
    """Whether codes for distances differ from those for inner products."""

    @abstractmethod
    def empty(self, metric: int) -> Any:
        """A faiss index of these codes without rows, which is to be trained."""

    @abstractmethod
    def inverted(self, quantiser: Any, lists: int, trained: Any, code_bytes: int) -> Any:
        """A faiss index of the same codes in inverted lists.

        Args:
            quantiser: says the centres of the lists.
            lists: number of lists.
            trained: result of :meth:`empty`, after training.
            code_bytes: of a row; maybe more than ``trained`` reads.
        """

    def rotation(self, rows: Floats, seed: int, trained: Any) -> Floats | None:
        """``Float[dim, dim]`` that rows and queries are multiplied by before they are coded, if any."""
        return None

    def copy_trained(self, trained: Any, small: Any) -> None:
        """Bring what was learned into the index of a shorter prefix."""

    def reading(self, trained: Any, code_bytes: int) -> Any:
        """The trained index, for codes of which so many bytes are a row."""
        return trained

    def packed(self, index: Any) -> Any:
        """An index over all rows, packed for speed where faiss has such a type."""
        return index

    def packed_lists(self, index: Any) -> Any:
        """An index over inverted lists, packed likewise."""
        return index

    def learn(self, sample: Floats, task: Task, lists: tuple[Ints, int] | None) -> Code:
        """The code, learned from a sample of prefixes."""
        with Progress(f"learning the code {self}"):
            return self.code_type.train(self, task.space, sample, task.seed, *(lists or (None, 0)))

    def begin(self, task: Task, journal: ResumableArrays, coarse: CoarseBuilder) -> Builder:
        """See :class:`~nestling.search.stages.stage.Scan`."""

        def train() -> Arrays:
            lists = coarse.lists_of_sample(_ROWS_TO_LEARN_A_CODE) if self.is_relative else None
            return self.learn(task.sample(_ROWS_TO_LEARN_A_CODE, self.size), task, lists).to_parts()

        code = self.code_type.from_parts(self, task.space, journal.once("scan", train))
        return _CodeBuilder(code, coarse.codes)

    def lengths(self, built: Built, number: int) -> Mapping[str, int | None]:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        return {"codes": built.rows, "scan.trained": None}

    def open(self, built: Built) -> Scanner:
        """See :class:`~nestling.search.stages.stage.Scan`."""
        code, codes = self._code(built)
        coarse = built.plan.coarse
        codes = code.readable(codes)
        scanner = FlatScanner(code, codes) if coarse is None else coarse.open(built, code, codes)
        if code.is_sliced:
            scanner.last = Reranker(built.space, code.dim, code.fetch(codes, scanner.positions))
        elif self.is_exact and built.space.is_normalised and built.space.is_rising:
            # Rounding to length one costs distances of near duplicates their last digits.
            scanner.last = Reranker(built.space, code.dim, fetch_vectors(built.vectors, code.dim))
        return scanner

    def extract(self, built: Built, number: int) -> Arrays:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        code, codes = self._code(built)
        if code.dim == built.whole.scan.dim:
            return {"codes": np.array(codes), **built.copied("scan.")}
        parts = {f"scan.{key}": part for key, part in code.to_parts().items()}
        return {"codes": code.slices(codes), **built.copied("scan."), **parts}

    def _code(self, built: Built) -> tuple[Code, Codes]:
        """The code of this prefix, and the codes of the prefix that was built."""
        whole, codes = built.whole.scan, built.arrays["codes"]
        assert isinstance(whole, CodedScan)
        code = whole.code_type.from_parts(whole, built.space, built.group("scan"))
        if codes.shape[1:] != (code.trained.sa_code_size(),):
            raise ArtifactError(f"codes of shape {codes.shape} are not those of {whole}; build it again")
        return code.cut(self.size), codes


class _CodeBuilder(Builder):
    def __init__(self, code: Code, name: str) -> None:
        self._code, self._name = code, name
        self.kinds = {name: (np.uint8, code.trained.sa_code_size())}

    def encode(self, values: Floats, start: int, made: Arrays) -> Arrays:
        prefixes = self._code.space.prefix(values, self._code.dim, "vectors", start)
        return {self._name: self._code.encode(prefixes, made.get("lists"))}


class CodedScanner(Scanner):
    """Base class of scanners of such codes.

    Args:
        code: decodes and compares the codes.
    """

    def __init__(self, code: Code) -> None:
        self._code = code

    def asked(self, queries: Floats) -> Floats:
        """Queries as they are compared with codes."""
        return self._code.query(self._code.space.prefix(queries, self._code.dim, "queries"))

    def scores(self, queries: Floats, distances: Floats) -> Floats:
        """See :class:`~nestling.search.stages.building.Scanner`."""
        return self._code.scores(self._code.space.prefix(queries, self._code.dim, "queries"), distances)


class FlatScanner(CodedScanner):
    """Compares the codes of all rows.

    Args:
        code: decodes and compares the codes.
        codes: ``UInt8[rows, size]``.
    """

    def __init__(self, code: Code, codes: Codes) -> None:
        super().__init__(code)
        self._codes, self._index = codes, code.flat(codes)
        # faiss takes a filter only where it compares row by row.
        self._takes_filters = isinstance(self._index, (faiss.IndexFlat, faiss.IndexScalarQuantizer))

    def search(
        self, queries: Floats, k: int, least: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """See :class:`~nestling.search.stages.building.Scanner`."""
        asked = self.asked(queries)
        if allowed is None:
            return rows_first(self._index.search(asked, k))
        if self._takes_filters:
            parameters = faiss.SearchParameters(sel=allowed.selector)
            return rows_first(self._index.search(asked, k, params=parameters))
        fetched = length_to_fetch(k, allowed.share, len(self._codes))
        while True:
            rows, distances = rows_first(self._index.search(asked, fetched))
            kept, places = keep_allowed(rows, allowed.mask, k, 0)
            if fetched == len(self._codes) or kept[:, : min(k, allowed.count)].min() >= 0:
                return widened(kept, np.take_along_axis(distances, places, 1), k)
            fetched = min(2 * fetched, len(self._codes))


def rows_first(found: tuple[Floats, Ints]) -> tuple[Ints, Floats]:
    """The results of faiss, in our order."""
    return found[1], found[0]


def widened(rows: Ints, distances: Floats, k: int) -> tuple[Ints, Floats]:
    """``k`` columns, of which the last hold no rows if there are fewer."""
    missing = ((0, 0), (0, k - rows.shape[1]))
    return np.pad(rows, missing, constant_values=-1), np.pad(distances, missing)
