"""``rerank@full``, ``rerank:bits8@256``: re-ranks a shortlist by a longer prefix, a copy, or codes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, cut
from nestling.errors import ConfigError, unknown
from nestling.kernels.planes.layout import stride_of
from nestling.process.progress import Progress
from nestling.search.exact.reranker import Fetch, Reranker, fetch_vectors
from nestling.search.exact.space import Floats
from nestling.search.exact.subset import inverse_norms, stored_rows
from nestling.search.stages import nested_code
from nestling.search.stages.building import Builder, Built, Task
from nestling.search.stages.coded_scan import CodedScan
from nestling.search.stages.faiss_codes import Code
from nestling.search.stages.kinds.scalar import Fp16, Int8
from nestling.search.stages.nested_code import CodeReranker
from nestling.search.stages.stage import Stage, StageCost, StageText
from nestling.storage.resumable import Arrays, ResumableArrays
from nestling.vectors.matrix import blocks_of

Store = Literal["flat", "fp16", "int8", "bits1", "bits2", "bits3", "bits4", "bits8"]
_BITS = "bits"

_ROWS_TO_LEARN_A_CODE = 1 << 16
_BYTES_PER_ENTRY = {"flat": 4, "fp16": 2, "int8": 1}
_COPIES: dict[str, type[CodedScan]] = {"fp16": Fp16, "int8": Int8}


@dataclass(frozen=True)
class Rerank(Stage):
    """A stage that puts a shortlist in order by a longer prefix.

    Args:
        dim: the prefix; None is the full size.
        store: the vectors to read: themselves (``flat``), or a smaller copy.
    """

    name = "rerank"

    store: Store = "flat"

    @classmethod
    def parse(cls, text: StageText) -> Self:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        store: Any = text.only(option=True).option or "flat"
        if store not in get_args(Store):
            raise ConfigError(unknown("store", store, get_args(Store)))
        return cls(text.dim, store)

    def _settings(self) -> str:
        return "" if self.store == "flat" else f":{self.store}"

    @property
    def code_bits(self) -> int | None:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        return int(self.store.removeprefix(_BITS)) if self.store.startswith(_BITS) else None

    @property
    def has_copies(self) -> bool:
        """Whether it reads copies of its own, which are kept in memory."""
        return self.store in _COPIES

    def cut(self, dim: int, bits: int | None = None) -> Self:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        small, own = super().cut(dim), self.code_bits
        if own is None or bits is None or bits >= own:
            return small
        store: Any = f"{_BITS}{bits}"
        return replace(small, store=store)

    def _row_bytes(self) -> int:
        if self.code_bits is not None:
            return stride_of(self.size) * self.code_bits
        return self.size * _BYTES_PER_ENTRY[self.store]

    def cost(self, rows: int, length: int, copy_bytes: int | None = None) -> StageCost:
        """The cost of re-ranking.

        Args:
            rows: number of vectors.
            length: of the shortlist.
            copy_bytes: of a row, where the scan keeps its copy.
        """
        size = copy_bytes or self._row_bytes()
        return StageCost(length * self.size, length * size, rows * size if self.has_copies else 0, length)

    def begin(self, task: Task, journal: ResumableArrays, number: int) -> Builder:
        """Learn the code of the copies from a sample, and say how blocks of rows are copied."""
        if self.code_bits is not None:
            return nested_code.begin(task, journal, self)
        if task.plan.scan.copies(self, number):
            return _NormBuilder(self, number) if task.space.is_normalised else Builder()
        code = self._learn(task, journal, number) if self.has_copies else None
        return _CopyBuilder(self, task, number, code)

    def _learn(self, task: Task, journal: ResumableArrays, number: int) -> Code:
        kind = copied(self)

        def train() -> Arrays:
            sample = task.sample(_ROWS_TO_LEARN_A_CODE, self.size)
            with Progress(f"learning the code {kind}"):
                return Code.train_copy(kind, task.space, sample, task.seed).to_parts()

        return Code.from_parts(kind, task.space, journal.once(f"store{number}", train))

    def lengths(self, built: Built, number: int) -> Mapping[str, int | None]:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        needed: dict[str, int | None] = {}
        if self.code_bits is not None:
            return nested_code.lengths(built)
        if self.has_copies and not built.whole.scan.has_copies(built.arrays, number):
            needed |= {f"copies{number}": built.rows, f"store{number}.trained": None}
        if f"norms{number}" in built.arrays:
            needed[f"norms{number}"] = built.rows
        return needed

    def check_arrays(self, built: Built, where: str) -> None:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        if self.code_bits is not None:
            nested_code.check_arrays(built, where)

    def open(self, built: Built, number: int) -> Reranker:
        """A re-ranker of shortlists."""
        if self.code_bits is not None:
            return CodeReranker(built.space, nested_code.slice_of(built, self.size, self.code_bits))
        arrays, space, whole = built.arrays, built.space, built.whole.reranks[number]
        fetch: Fetch = fetch_vectors(built.vectors, self.size)
        values: NDArray[Any] | None = cut(built.vectors, self.size, RAW)
        if f"copies{number}" in arrays:
            code, copies = self._code(built, number).cut(self.size), arrays[f"copies{number}"]
            fetch = code.fetch(copies)
            if code.origin is not None:
                rows = code.moved_rows(copies) if self.store == "fp16" else None
                return Reranker(space, self.size, fetch, rows, code.origin)
            values = cut(copies.view(np.float16), self.size, RAW) if self.store == "fp16" else None
        norms = arrays.get(f"norms{number}") if self.dim == whole.dim else None
        stored = None if values is None else stored_rows(values, space, norms)
        return Reranker(space, self.size, fetch, stored)

    def extract(self, built: Built, number: int) -> Arrays:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        if self.code_bits is not None:
            return nested_code.extract(built, self)
        arrays, rows, whole = built.arrays, built.vectors, built.whole.reranks[number]
        names = (f"store{number}.", f"copies{number}", f"norms{number}")
        found = built.copied(*names)
        if self == whole:
            return found
        if f"copies{number}" in arrays:
            code = self._code(built, number).cut(self.size)
            copies = found[f"copies{number}"] = code.slices(arrays[f"copies{number}"])
            found.update({f"store{number}.{key}": part for key, part in code.to_parts().items()})
            rows = copies
        if f"norms{number}" in arrays:
            rows = rows.view(np.float16) if self.has_copies else rows
            parts = [inverse_norms(cut(rows[some], self.size, RAW)) for some in blocks_of(rows)]
            found[f"norms{number}"] = np.concatenate(parts)
        return found

    def _code(self, built: Built, number: int) -> Code:
        """The code of the copies that were built."""
        kind = copied(built.whole.reranks[number])
        return Code.from_parts(kind, built.space, built.group(f"store{number}"))

    def uncounted_bytes(self, arrays: Arrays, number: int) -> int:
        """Bytes of the factors that scale rows to length one."""
        return arrays[f"norms{number}"].nbytes if f"norms{number}" in arrays else 0


def copied(stage: Rerank) -> CodedScan:
    """The code of the copies of a re-ranking stage."""
    return _COPIES[stage.store](stage.dim)


class _NormBuilder(Builder):
    """Keeps what scales rows as they are stored to length one."""

    def __init__(self, stage: Rerank, number: int) -> None:
        self._dim, self._name = stage.size, f"norms{number}"
        self.kinds = {self._name: (np.float64, 0)}

    def encode(self, values: Floats, start: int, made: Arrays) -> Arrays:
        return {self._name: inverse_norms(cut(values, self._dim, RAW))}


class _CopyBuilder(Builder):
    """Keeps copies, and norms where compiled kernels can re-rank by the direction of what is stored."""

    def __init__(self, stage: Rerank, task: Task, number: int, code: Code | None) -> None:
        self._dim, self._space, self._code = stage.size, task.space, code
        self._copies, self._norms = f"copies{number}", f"norms{number}"
        self.kinds = {} if code is None else {self._copies: (np.uint8, code.trained.sa_code_size())}
        # Differences from the mean are compared by distance, and no kernel reads 8 bits per entry.
        is_moved = code is not None and code.origin is not None
        if task.space.is_normalised and stage.store != "int8" and not is_moved:
            self.kinds |= {self._norms: (np.float64, 0)}

    def encode(self, values: Floats, start: int, made: Arrays) -> Arrays:
        found: Arrays = {}
        rows: NDArray[Any] = cut(values, self._dim, RAW)
        if self._code is not None:
            prefixes = self._space.prefix(values, self._dim, "vectors", start)
            copies = found[self._copies] = self._code.encode(prefixes)
            rows = copies.view(np.float16) if self._norms in self.kinds else rows
        if self._norms in self.kinds:
            found[self._norms] = inverse_norms(rows)
        return found
