"""Tasks, builders, built arrays and scanners: the types that stages take and return."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nestling.bits import BitCode
from nestling.cut import RAW, cut
from nestling.errors import ArtifactError
from nestling.search.exact.faiss_arrays import faiss
from nestling.search.exact.filters import Allowed
from nestling.search.exact.reranker import Reranker
from nestling.search.exact.space import Floats, Ints, Space, read_rows
from nestling.search.graph.equal_rows import Equal, find_equal
from nestling.storage.resumable import Arrays, ResumableArrays
from nestling.vectors.planes import BitPlanes
from nestling.vectors.precision import Values

if TYPE_CHECKING:
    from nestling.search.exact.neighbours import Neighbours
    from nestling.search.plan.plan import Plan
    from nestling.search.plan.point import Point

_ENTRIES_AT_A_TIME = 1 << 22


@dataclass(frozen=True)
class Task:
    """A build: the plan, and the vectors, which are read block by block.

    Args:
        plan: with sizes as numbers.
        vectors: ``Float[rows, full]``, or codes.
        space: the metric.
        seed: of samples, clusterings, rotations and graphs.
        code: nested code that the cut rule has, if any.
    """

    plan: Plan
    vectors: Values
    space: Space
    seed: int
    code: BitCode | None = None

    @property
    def rows(self) -> int:
        """Number of vectors."""
        return len(self.vectors)

    @property
    def block(self) -> int:
        """Vectors read at a time."""
        return max(1, _ENTRIES_AT_A_TIME // int(self.vectors.shape[1]))

    def identity(self) -> dict[str, Any]:
        """Identifies this task, with a digest of a thousand vectors."""
        rows = np.linspace(0, self.rows - 1, min(self.rows, 1000)).astype(np.int64)
        digest = _digest(self.vectors[rows])
        return {
            "plan": str(self.plan),
            "vectors": f"{self.vectors.dtype} {self.vectors.shape} {digest}",
            "metric": f"{self.space.metric} normalised={self.space.is_normalised}",
            "seed": self.seed,
            "faiss": faiss.__version__,
            **({} if self.code is None else {"code": _digest(self.code.centre, self.code.spread)}),
        }

    def sample(self, most: int, dim: int) -> Floats:
        """Prefixes of at most ``most`` vectors, drawn by the seed and prepared."""
        rows: Any = slice(None)
        if most < self.rows:
            rows = np.sort(np.random.default_rng(self.seed).choice(self.rows, most, replace=False))
        values = read_rows(cut(self.vectors, dim, RAW)[rows], "vectors to learn from")
        return self.space.prefix(values, dim, "vectors to learn from")

    def prefixes(self, span: slice, dim: int) -> Floats:
        """Prefixes of some rows, prepared."""
        values = read_rows(cut(self.vectors, dim, RAW)[span], "vectors", span.start)
        return self.space.prefix(values, dim, "vectors", span.start)

    def equal_rows(self, journal: ResumableArrays) -> Equal:
        """Groups of rows that no stage of the plan tells apart."""
        dim = self.plan.answer_dim

        def find() -> Arrays:
            first = find_equal(lambda span: self.prefixes(span, dim), self.rows, self.seed, self.block)
            return {"first": first}

        return Equal(np.array(journal.once("equal", find)["first"]))

    def drop_single_groups(self, journal: ResumableArrays) -> None:
        """Drops the table of equal rows if all rows differ."""
        if "equal." not in journal or not Equal(journal["equal.first"]).is_grouped:
            journal.drop_groups("equal")


def _digest(*arrays: NDArray[Any]) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(each).data for each in arrays)).hexdigest()


class Builder:
    """Builds the arrays of a stage; this base class builds none.

    Attributes:
        kinds: type and width of the arrays that it makes of each block of rows; a width of 0 is a vector.
        is_done: whether all of its arrays are in the journal, so that no rows need to be read.
    """

    kinds: Mapping[str, tuple[Any, int]] = {}
    is_done: bool = False

    def encode(self, values: Floats, start: int, made: Arrays) -> Arrays:
        """The arrays of some rows.

        Args:
            values: ``Float[rows, full]``.
            start: the number of the first.
            made: the output of the stages before it.
        """
        return {}

    def finish(self) -> Arrays:
        """Do what needs the arrays of all rows; what is returned replaces arrays that lie in memory."""
        return {}


class CoarseBuilder(Builder):
    """Builds the arrays of a coarse stage.

    Attributes:
        codes: the name of the codes of the scan until :meth:`finish`.
    """

    codes: str = "codes"

    def lists_of_sample(self, most: int) -> tuple[Ints, int] | None:
        """The inverted list of each row of a sample and their number, or None where there are no lists."""
        return None


@dataclass(frozen=True, eq=False)
class Built:
    """Built arrays, as the stages of a plan read them.

    Args:
        plan: cut to the size that is searched, with sizes as numbers.
        whole: the plan that the arrays were built for.
        arrays: by name.
        vectors: ``Float[rows, at least the size]``, or codes.
        space: the metric.
    """

    plan: Plan
    whole: Plan
    arrays: Arrays
    vectors: Values
    space: Space

    @property
    def rows(self) -> int:
        """Number of vectors."""
        return len(self.vectors)

    @property
    def planes(self) -> BitPlanes | None:
        """The nested code that the rows are held as; None where they are floats."""
        return self.vectors if isinstance(self.vectors, BitPlanes) else None

    def group(self, name: str) -> Arrays:
        """The arrays called ``name.key``, by key."""
        start = f"{name}."
        return {key.removeprefix(start): part for key, part in self.arrays.items() if key.startswith(start)}

    def copied(self, *starts: str) -> Arrays:
        """Copies of the arrays whose names begin so."""
        return {name: np.array(part) for name, part in self.arrays.items() if name.startswith(starts)}

    def equal_rows(self) -> Equal | None:
        """Groups of equal rows, of which one is linked in a graph."""
        first = self.arrays.get("equal.first")
        return None if first is None else Equal(np.array(first))

    def check_equal_rows(self, where: str) -> None:
        """Refuse groups of rows that are not there.

        Raises:
            ArtifactError: naming ``where`` the arrays lie.
        """
        equal = self.equal_rows()
        if equal is not None and not equal.fits(self.rows):
            raise ArtifactError(
                f"{where} says of rows that they are equal to others that are not there; build it again"
            )


class Scanner:
    """Finds the rows whose codes are nearest. All state is read only, so that threads may share it.

    Attributes:
        equal: groups of equal rows, of which it finds one each.
        last: puts rows in order where the scan ends the plan and its codes do not tell their order well.
    """

    equal: Equal | None = None
    last: Reranker | None = None

    def search(
        self, queries: Floats, k: int, least: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """Rows ``Int[queries, k]``, -1 where there are fewer, and their distance by the codes.

        ``least`` of them have to be found, if so many exist and are allowed: where parts are scanned they
        hold no fewer.
        """
        raise NotImplementedError

    def positions(self, rows: Ints) -> Ints:
        """Positions of the codes of these rows."""
        return rows

    def scores(self, queries: Floats, distances: Floats) -> Floats:
        """Distances as results show them: similarities, or distances."""
        return distances

    def fuse(self, first: Reranker, *, is_last: bool) -> FusedScanner | None:
        """This scan and the re-ranking after it as one call, if the stages have one.

        Args:
            first: re-ranks the rows that are found.
            is_last: whether no other stage follows.
        """
        return None


class FusedScanner:
    """A scan and the re-ranking after it in one call.

    Attributes:
        equal: groups of equal rows, where those are left to the stages that follow.
    """

    equal: Equal | None = None

    def search(
        self, queries: Floats, shortlist: int, k: int, point: Point, allowed: Allowed | None
    ) -> tuple[Ints, Floats]:
        """The ``k`` best of a shortlist: rows ``Int[queries, k]``, -1 where there are fewer, and scores."""
        raise NotImplementedError

    def answer(self, queries: Any, k: int, point: Point, workers: int | None) -> Neighbours:
        """The result of a search over all rows; it checks the queries itself."""
        raise NotImplementedError
