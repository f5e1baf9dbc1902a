"""``ivf1024@64``: selects the rows of the nearest inverted lists, clustered on a prefix."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np

from nestling.cut import RAW, cut
from nestling.errors import ArtifactError, ConfigError
from nestling.process.progress import Progress
from nestling.search.exact.faiss_arrays import Codes, faiss
from nestling.search.exact.filters import Allowed
from nestling.search.exact.space import Floats, Ints, Space
from nestling.search.stages.building import Built, CoarseBuilder, Scanner, Task
from nestling.search.stages.coded_scan import CodedScanner
from nestling.search.stages.faiss_codes import Code
from nestling.search.stages.stage import ROW_NUMBER_BYTES, Coarse, StageCost, StageText
from nestling.storage.resumable import Arrays, ResumableArrays

if TYPE_CHECKING:
    from nestling.search.plan.point import Point

_ROWS_A_CENTROID = 256
_CLUSTERING_ROUNDS = 10
_BYTES_SORTED_AT_A_TIME = 1 << 26
# A filter is far from a query if less than this share of what it allows on average is allowed nearby.
_FAR, _TIMES_MORE_FAR = 1 / 2, 8


@dataclass(frozen=True)
class IVF(Coarse):
    """Inverted lists: rows by the nearest centroid of their prefix.

    Args:
        dim: the prefix that is clustered; None is the full size.
        lists: number of lists, at least 1.

    Raises:
        ConfigError: for fewer.
    """

    name = "ivf"
    parameters = ("nprobe",)

    lists: int = field(kw_only=True)

    def __post_init__(self) -> None:
        if self.lists < 1:
            raise ConfigError(f"{self} is too small; give it at least 1 list")

    @classmethod
    def parse(cls, text: StageText) -> Self:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        return cls(text.dim, lists=text.only(needs_count=True).count or 0)

    def _settings(self) -> str:
        return str(self.lists)

    @property
    def centroids(self) -> int:
        """One for each list."""
        return self.lists

    def check_rows(self, rows: int) -> None:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        if self.lists > rows:
            raise ConfigError(
                f"{self} needs at least as many vectors as lists, and there are {rows}; choose fewer lists "
                f"(about {max(1, round(4 * rows**0.5))} suit them)"
            )

    def default_point(self, rows: int, k: int) -> Mapping[str, int]:
        """A twentieth of the lists."""
        return {"nprobe": max(1, round(self.lists / 20))}

    def smallest_point(self, rows: int, k: int) -> Mapping[str, int]:
        """A single list."""
        return {"nprobe": 1}

    def larger_point(self, point: Point, rows: int) -> Mapping[str, int]:
        """Twice as many lists, as far as there are."""
        read = point.nprobe or 1
        return {"nprobe": min(2 * read, self.lists)} if read < self.lists else {}

    def check_point(self, point: Point) -> None:
        """Warn of more lists than there are."""
        if (point.nprobe or 0) > self.lists:
            warnings.warn(
                f"nprobe={point.nprobe} reads all {self.lists} lists; there are no more", stacklevel=5
            )

    def cost(self, rows: int, point: Point) -> StageCost:
        """All centroids are compared, and the rows of some lists are scanned."""
        numbers = self.size * self.lists
        share = min(point.nprobe or 1, self.lists) / self.lists
        return StageCost(numbers, 4.0 * numbers, 4.0 * numbers + rows * ROW_NUMBER_BYTES, rows * share)

    def begin(self, task: Task, journal: ResumableArrays) -> CoarseBuilder:
        """See :class:`~nestling.search.stages.stage.Coarse`."""
        centroids = journal.once("coarse", lambda: {"centroids": self._cluster(task)})["centroids"]
        return _ListBuilder(self, task, journal, np.array(centroids))

    def _cluster(self, task: Task) -> Floats:
        clustering = faiss.Kmeans(
            self.size,
            self.lists,
            niter=_CLUSTERING_ROUNDS,
            seed=task.seed % (1 << 31),
            min_points_per_centroid=1,  # or faiss prints a warning; too few are refused before
            max_points_per_centroid=_ROWS_A_CENTROID,
        )
        with Progress(f"finding the {self.lists:,} lists"):
            clustering.train(task.sample(_ROWS_A_CENTROID * self.lists, self.size))
        return np.asarray(clustering.centroids, np.float32)

    def lengths(self, built: Built, number: int) -> Mapping[str, int | None]:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        return {"rows": built.rows, "starts": self.lists + 1, "coarse.centroids": self.lists}

    def check_arrays(self, built: Built, where: str) -> None:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        end = built.arrays["starts"][-1]
        if end != built.rows:
            raise ArtifactError(f"the lists in {where} end at row {end} of {built.rows}; build it again")

    def open(self, built: Built, code: Code, codes: Codes) -> Scanner:
        """See :class:`~nestling.search.stages.stage.Coarse`."""
        rows, starts = built.arrays["rows"], built.arrays["starts"]
        return ListScanner(code, codes, rows, starts, self._centroids(built))

    def extract(self, built: Built, number: int) -> Arrays:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        return built.copied("rows", "starts") | {"coarse.centroids": self._centroids(built).copy()}

    def _centroids(self, built: Built) -> Floats:
        """Centroids of this prefix; where vectors are scaled, their prefixes are too."""
        centroids = np.asarray(built.arrays["coarse.centroids"], np.float32)
        if self.size == centroids.shape[1]:
            return centroids
        return built.space.scaled(cut(centroids, self.size, RAW))


class _ListBuilder(CoarseBuilder):
    """Finds the list of each row, and brings codes into the order of the lists in the end."""

    codes = "codes_as_read"

    def __init__(self, stage: IVF, task: Task, journal: ResumableArrays, centroids: Floats) -> None:
        self._stage, self._task, self._journal, self._centroids = stage, task, journal, centroids
        self.kinds = {"lists": (np.int32, 0)}
        self.is_done = "starts" in journal

    def lists_of_sample(self, most: int) -> tuple[Ints, int]:
        prefixes = self._task.sample(most, self._stage.size)
        return _assign(prefixes, self._centroids), self._stage.lists

    def encode(self, values: Floats, start: int, made: Arrays) -> Arrays:
        prefixes = self._task.space.prefix(values, self._stage.size, "vectors", start)
        return {"lists": _assign(prefixes, self._centroids)}

    def finish(self) -> Arrays:
        """Sort the codes, so that a list is read in one piece."""
        if not self.is_done:
            self._sort()
        self._journal.drop("lists", self.codes)
        return {}

    def _sort(self) -> None:
        journal = self._journal
        lists, unsorted = journal["lists"], journal[self.codes]
        order = np.argsort(lists, kind="stable")
        kinds = {"codes": (np.uint8, unsorted.shape[1]), "rows": (np.int64, 0)}
        step = max(1, _BYTES_SORTED_AT_A_TIME // unsorted.shape[1])
        journal.grow(
            kinds, self._task.rows, step, lambda span: {"codes": unsorted[order[span]], "rows": order[span]}
        )
        sizes = np.bincount(lists, minlength=self._stage.lists)
        journal.keep("starts", np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
        # Mapped files are released on return: some systems do not remove files that are mapped.


def _assign(prefixes: Floats, centroids: Floats) -> Ints:
    return np.asarray(faiss.knn(prefixes, centroids, 1)[1][:, 0])


class ListScanner(CodedScanner):
    """Compares the codes of the rows whose inverted lists are nearest to the query.

    Args:
        code: decodes and compares the codes.
        codes: ``UInt8[rows, size]``, list by list.
        rows: the number of the row of each code.
        starts: first position of each list, and the end of the last.
        centroids: ``Float[lists, dim]``, of the prefixes that were clustered.
    """

    def __init__(self, code: Code, codes: Codes, rows: Ints, starts: Ints, centroids: Floats) -> None:
        super().__init__(code)
        self._rows, self._starts = rows, starts
        self._centroids, self._sizes = np.ascontiguousarray(centroids), np.diff(starts)
        self._index, self._kept_alive = code.lists(codes, rows, starts)

    def search(
        self, queries: Floats, k: int, least: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """See :class:`~nestling.search.stages.building.Scanner`.

        Of lists that hold too few rows more are read, the nearest first.

        Where few rows near a query are allowed, its neighbours lie far away, spread over more lists; then
        several times as many are compared as without a filter.
        """
        space, asked = self._code.space, self.asked(queries)
        coarse = space.prefix(queries, self._centroids.shape[1], "queries")
        nprobe = min(point.nprobe or 1, len(self._centroids))
        nearness, lists = self._probe(coarse, nprobe)
        near = self._sizes[lists].sum(axis=1) if allowed is None else self._allowed_in(lists, allowed)
        wanted = self._wanted(lists, near, least, allowed)
        few = np.flatnonzero(near < wanted)
        if not len(few):
            return self._scan(asked, nearness, lists, k, allowed)
        sizes = self._sizes if allowed is None else self._allowed_sizes(allowed)
        wanted = np.minimum(wanted, int(sizes.sum()))
        every_nearness, every_list = self._probe(coarse[few], len(self._centroids))
        held = np.cumsum(sizes[every_list], axis=1)
        read = np.maximum((held < wanted[few, None]).sum(axis=1) + 1, nprobe)
        more = ((0, 0), (0, int(read.max()) - nprobe))
        nearness, lists = np.pad(nearness, more), np.pad(lists, more, constant_values=-1)
        width = lists.shape[1]
        nearness[few] = every_nearness[:, :width]
        is_read = (np.arange(width) < read[:, None]) & (sizes[every_list[:, :width]] > 0)
        lists[few] = np.where(is_read, every_list[:, :width], -1)
        return self._scan(asked, nearness, lists, k, allowed)

    def _wanted(self, lists: Ints, near: Ints, least: int, allowed: Allowed | None) -> Ints:
        """Number of rows that the lists must hold, if the nearest lists hold that many."""
        wanted = np.full(len(lists), least)
        if allowed is not None:
            compared = lists.shape[1] * len(self._rows) // len(self._sizes)
            is_far = near < _FAR * allowed.share * self._sizes[lists].sum(axis=1)
            wanted[is_far] = max(least, _TIMES_MORE_FAR * compared)
        return wanted

    def _allowed_in(self, lists: Ints, allowed: Allowed) -> Ints:
        """Number of allowed rows in each query's lists; where those are few, all others are not read."""
        lengths = self._sizes[lists]
        if lengths.sum() > len(self._rows):
            return np.asarray(self._allowed_sizes(allowed)[lists].sum(axis=1))
        each, until = lengths.ravel(), np.cumsum(lengths)
        places = np.arange(until[-1]) + np.repeat(self._starts[lists.ravel()] - until + each, each)
        counted = np.concatenate([[0], np.cumsum(allowed.mask[self._rows[places]])])
        ends = until[lists.shape[1] - 1 :: lists.shape[1]]
        return np.asarray(np.diff(counted[ends], prepend=0))

    def _allowed_sizes(self, allowed: Allowed) -> Ints:
        """Number of allowed rows of each list."""
        until = np.cumsum(allowed.mask[self._rows], dtype=np.int64)
        return np.diff(np.where(self._starts > 0, until[self._starts - 1], 0))

    def _probe(self, coarse: Floats, nprobe: int) -> tuple[Floats, Ints]:
        """The nearest lists."""
        nearness, lists = faiss.knn(coarse, self._centroids, nprobe, metric=_probing_metric(self._code.space))
        return nearness, lists

    def _scan(
        self, asked: Floats, nearness: Floats, lists: Ints, k: int, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """Scan given lists, -1 is none; the parameters travel with the call, nothing in the index is set."""
        rows = np.empty((len(asked), k), np.int64)
        distances = np.empty((len(asked), k), np.float32)
        parameters = faiss.SearchParametersIVF(
            nprobe=lists.shape[1], sel=None if allowed is None else allowed.selector
        )
        pointers = [faiss.swig_ptr(each) for each in (lists, nearness, distances, rows)]
        self._index.search_preassigned_c(len(asked), faiss.swig_ptr(asked), k, *pointers, False, parameters)
        return rows, distances

    def positions(self, rows: Ints) -> Ints:
        """See :class:`~nestling.search.stages.building.Scanner`."""
        return np.where(rows < 0, -1, self._inverse[rows])

    @cached_property
    def _inverse(self) -> Ints:
        inverse = np.empty_like(self._rows)
        inverse[self._rows] = np.arange(len(self._rows))
        return inverse


def _probing_metric(space: Space) -> int:
    """Lists are clustered by distance; for inner products those are read whose mean has the largest."""
    is_dot = space.metric == "dot" and not space.is_normalised
    return int(faiss.METRIC_INNER_PRODUCT if is_dot else faiss.METRIC_L2)
