"""Base classes of plan stages: text form, parameters, cost, stored arrays."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self

from nestling.errors import ConfigError, unknown

if TYPE_CHECKING:
    from nestling.search.exact.faiss_arrays import Codes
    from nestling.search.plan.point import Point
    from nestling.search.stages.building import Builder, Built, CoarseBuilder, Scanner, Task
    from nestling.search.stages.faiss_codes import Code
    from nestling.search.stages.kinds.rerank import Rerank
    from nestling.storage.resumable import Arrays, ResumableArrays

EXAMPLE = "such as 'ivf1024@64 > pq32x4@128 > rerank@full'"
LINK_BYTES = 4
ROW_NUMBER_BYTES = 8  # as faiss holds them in inverted lists


@dataclass(frozen=True)
class StageText:
    """The text of a stage, taken apart: ``name[count][xparts][:option]@dim``.

    Args:
        text: all of it.
        name: of the kind.
        count: the number behind the name.
        parts: the number behind an ``x``.
        option: the word behind a colon.
        dim: the prefix; None is the full size.
    """

    text: str
    name: str
    count: int | None
    parts: int | None
    option: str | None
    dim: int | None

    @classmethod
    def read(cls, text: str, names: Sequence[str]) -> Self:
        """Take a text apart.

        Args:
            text: such as ``"pq32x4@128"``.
            names: of the kinds that there are.

        Raises:
            ConfigError: for a text of another form, or an unknown name.
        """
        known = "|".join(sorted(map(re.escape, names), key=len, reverse=True))  # int8 before int
        match = re.fullmatch(rf"({known}|[a-z]+)(\d*)(?:x(\d+))?(?::(\w+))?@(full|\d+)", text)
        if match is None:
            raise ConfigError(f"the stage {text!r} cannot be read; write stages {EXAMPLE}")
        name, count, parts, option, dim = match.groups()
        if name not in names:
            raise ConfigError(unknown("stage", name, names))
        numbers = [int(each) if each else None for each in (count, parts)]
        return cls(text, name, numbers[0], numbers[1], option, None if dim == "full" else int(dim))

    def only(self, *, needs_count: bool = False, parts: bool = False, option: bool = False) -> Self:
        """This text, if it has what its kind takes and nothing else.

        Raises:
            ConfigError: if a count lacks, or there is what the kind does not take.
        """
        is_surplus = (self.parts is not None and not parts) or (self.option is not None and not option)
        if is_surplus or needs_count != (self.count is not None):
            raise ConfigError(f"the stage {self.text!r} cannot be read; write stages {EXAMPLE}")
        return self


@dataclass(frozen=True)
class StageCost:
    """The cost that a stage adds to one query.

    Args:
        operations: multiply-adds, or sums of a table.
        bytes_read: of codes, links and vectors.
        bytes_stored: kept in memory for all rows.
        rows: number of rows for the next stage.
    """

    operations: float = 0.0
    bytes_read: float = 0.0
    bytes_stored: float = 0.0
    rows: float = 0.0


@dataclass(frozen=True)
class Stage(ABC):
    """One stage of a plan. A kind derives from :class:`Coarse`, :class:`Scan` or ``Rerank``.

    Stages are frozen dataclasses: those of equal parameters are equal, and plans are hashable. ``number`` is
    the place of a re-ranking stage among the others, from 0; its arrays carry it in their names.

    Args:
        dim: the prefix that is read; None is the full size.
    """

    name: ClassVar[str]
    """Its name in plans."""
    parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters of a point that it reads: some of ``"nprobe"`` and ``"ef"``."""

    dim: int | None = None

    @classmethod
    def parse(cls, text: StageText) -> Self:
        """The stage of a text that begins with its name.

        Raises:
            ConfigError: for parameters that it does not have, or that lie outside their range.
        """
        return cls(text.only().dim)

    def __str__(self) -> str:
        return f"{self.name}{self._settings()}@{'full' if self.dim is None else self.dim}"

    def _settings(self) -> str:
        """The text between the name and the prefix."""
        return ""

    @property
    def size(self) -> int:
        """The prefix as a number, of a stage that was resolved."""
        return int(self.dim or 0)

    @property
    def code_bits(self) -> int | None:
        """The leading bits that it reads of the nested code of the plan; None if it reads something else."""
        return None

    def resolve(self, full: int) -> Self:
        """The stage with its prefix as a number, for vectors of ``full`` entries."""
        return replace(self, dim=self.dim or full)

    def check_size(self) -> None:  # noqa: B027 # most kinds code any prefix
        """Whether the prefix, which is a number, can be coded.

        Raises:
            ConfigError: for one that cannot.
        """

    def cut(self, dim: int, bits: int | None = None) -> Self:
        """The stage, reading no more than ``dim`` entries; of one whose prefix is a number.

        Of a nested code it reads no more than ``bits`` of each entry.
        """
        return replace(self, dim=min(self.size, dim))

    def check_held(self, bits: int) -> None:
        """Whether it can be built over rows that are held as a nested code of so many bits, and nothing else.

        Raises:
            ConfigError: if it keeps anything else, or reads more bits.
        """
        if self.code_bits is None:
            raise ConfigError(
                f"{self} needs floats, and these rows are held as codes of {bits} bits; scan and re-rank "
                f"codes, such as 'bits1@full > rerank:bits{bits}@full', or keep floats"
            )
        if self.code_bits > bits:
            raise ConfigError(
                f"{self} reads {self.code_bits} bits of each entry, and these rows are held in {bits}; "
                f"read at most {bits}, or keep more"
            )

    @property
    def centroids(self) -> int:
        """Number of centroids learned from the rows (of each part); a small part of an index has none."""
        return 0

    def check_rows(self, rows: int) -> None:  # noqa: B027 # most kinds learn from any rows
        """Whether so many rows are enough to learn from.

        Raises:
            ConfigError: for fewer than are needed.
        """

    def default_point(self, rows: int, k: int) -> Mapping[str, int]:
        """Parameters to start from."""
        return {}

    def smallest_point(self, rows: int, k: int) -> Mapping[str, int]:
        """The smallest parameters that make sense: where tuning begins."""
        return {}

    def larger_point(self, point: Point, rows: int) -> Mapping[str, int]:
        """Parameters doubled; nothing where larger ones read no more."""
        return {}

    def lengths(self, built: Built, number: int) -> Mapping[str, int | None]:
        """The arrays that it needs, and how long each must be; None is any length."""
        return {}

    def check_arrays(self, built: Built, where: str) -> None:  # noqa: B027 # most need no more
        """Refuse arrays, of the right lengths, that could not be read safely.

        Raises:
            ArtifactError: naming ``where`` they lie.
        """

    def extract(self, built: Built, number: int) -> Arrays:
        """Copies of its arrays, cut to its own prefix, for a smaller index."""
        return {}

    def uncounted_bytes(self, arrays: Arrays, number: int) -> int:
        """Bytes in memory that its cost leaves out, as they depend on the rows."""
        return 0


class Coarse(Stage):
    """A stage that picks the rows whose codes are compared."""

    def check_point(self, point: Point) -> None:  # most have no limit
        """Warn of parameters that make no difference."""

    @abstractmethod
    def cost(self, rows: int, point: Point) -> StageCost:
        """The cost of selecting candidates; ``rows`` of the result is their number."""

    @abstractmethod
    def begin(self, task: Task, journal: ResumableArrays) -> CoarseBuilder:
        """Learn what has to be learned from a sample, and say what is kept of each block of rows."""

    @abstractmethod
    def open(self, built: Built, code: Code, codes: Codes) -> Scanner:
        """A scanner of the codes of candidates."""


@dataclass(frozen=True)
class BeamSearch(Stage):
    """A stage that follows links between rows with a beam of ``ef``.

    Args:
        dim: see :class:`Stage`.
        links: of a row.
    """

    parameters = ("ef",)
    usual_width: ClassVar[int]
    """Width of the beam to start from, where few neighbours are wanted."""

    links: int = field(kw_only=True)

    @classmethod
    def parse(cls, text: StageText) -> Self:
        """See :class:`Stage`."""
        return cls(text.dim, links=text.only(needs_count=True).count or 0)

    def _settings(self) -> str:
        return str(self.links)

    def default_point(self, rows: int, k: int) -> Mapping[str, int]:
        """A beam of some times ``k``."""
        return {"ef": max(self.usual_width, 4 * k)}

    def smallest_point(self, rows: int, k: int) -> Mapping[str, int]:
        """A beam that holds ``k``."""
        return {"ef": max(k, 16)}

    def larger_point(self, point: Point, rows: int) -> Mapping[str, int]:
        """A beam twice as wide, as far as there are rows."""
        width = point.ef or 1
        return {"ef": min(2 * width, rows)} if width < rows else {}


class Scan(Stage):
    """A stage that compares the codes of picked rows, or of all."""

    is_sliceable: ClassVar[bool] = False
    """Whether the code of a prefix is a prefix of the code, so that shorter ones can be compared."""
    is_exact: ClassVar[bool] = False
    """Whether it compares the entries as they are."""
    reads_all: ClassVar[bool] = True
    """Whether it reads the codes of all rows where no coarse stage picks some."""

    @abstractmethod
    def row_bytes(self, dim: int) -> int:
        """Bytes of one row's code of a prefix of ``dim`` entries."""

    def check_neighbours(self, coarse: Coarse | None, reranks: Sequence[Rerank]) -> None:
        """Whether it fits between these stages of a plan.

        Raises:
            ConfigError: if not.
        """

    def check_cut(self, whole: Scan) -> None:
        """Whether the codes of ``whole``, which were built, can be read at this prefix.

        Raises:
            ConfigError: for a shorter prefix of codes that mix all entries.
        """
        if self.size != whole.size and not self.is_sliceable:
            raise ConfigError(
                f"the codes {whole} mix all {whole.size} entries and cannot be cut to {self.size}; choose a "
                f"dim of {whole.size} or more, or build with {self}, or with a code that can be cut, such as "
                f"int8@{whole.size}"
            )

    def cost(self, rows: int, picked: float, point: Point, code_bytes: int | None = None) -> StageCost:
        """The cost of comparing.

        Args:
            rows: number of vectors.
            picked: those that are compared.
            point: parameters of the search.
            code_bytes: of a row, where that is known better than :meth:`row_bytes` tells it.
        """
        size = code_bytes or self.row_bytes(self.size)
        operations = picked * self.operations() + self.preparation()
        return StageCost(operations, picked * size, rows * size, picked)

    def operations(self) -> float:
        """Multiply-adds, or sums of a table, to compare one row."""
        return self.size

    def preparation(self) -> float:
        """Multiply-adds for a query before its rows are compared."""
        return 0.0

    def first_shortlist(self, k: int) -> int:
        """Rows for the first re-ranking stage to start from."""
        return 10 * k

    def copies(self, rerank: Rerank, number: int) -> bool:
        """Whether it keeps, with its codes, the copy that a re-ranking stage after it reads."""
        return False

    def copy_bytes(self, code_bytes: int) -> int:
        """Bytes of a row's copy, beside a code of so many."""
        return 0

    def has_copies(self, arrays: Arrays, number: int) -> bool:
        """The same of arrays that were built, maybe by an earlier version."""
        return False

    def known_sizes(self, arrays: Arrays) -> Mapping[str, int]:
        """Sizes of the built arrays, for :meth:`Plan.cost <nestling.search.plan.plan.Plan.cost>`."""
        return {}

    @abstractmethod
    def begin(self, task: Task, journal: ResumableArrays, coarse: CoarseBuilder) -> Builder:
        """Learn the code from a sample, and say how blocks of rows are coded.

        Args:
            task: the build.
            journal: keeps what was made, so that an interrupted build resumes.
            coarse: the stage that selects the candidates.
        """

    @abstractmethod
    def open(self, built: Built) -> Scanner:
        """A scanner that finds the rows whose codes are nearest."""
