"""The adaptive index: a folder of vectors that is searched at any size, and changed while it is."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from nestling.cut import CutRule
from nestling.elastic import Cost, resolve_each
from nestling.encoders.matrix import Sizes
from nestling.errors import ConfigError, DataError, StorageError
from nestling.granularity import At, Granularity, Nesting
from nestling.owner import Owner
from nestling.search.copying import remove_temporary_copy, write_copy, write_temporary_copy
from nestling.search.creation import create_index, open_index
from nestling.search.engine import Engine
from nestling.search.exact import Metric
from nestling.search.frontier import measured_point
from nestling.search.generation import Generation
from nestling.search.ids import Ids, check_kind, read_ids
from nestling.search.incoming import as_matrix, check_prefixes, read_queries
from nestling.search.plan import Plan, Point
from nestling.search.report import IndexInfo, Verification, describe, verify_index
from nestling.search.segments import Rows
from nestling.search.snapshot import Hits
from nestling.search.state import State, load
from nestling.search.writer import LOG_BYTES, Writer, check_log_bytes


class AdaptiveIndex:
    """Vectors in a folder, searched by a plan at any size of their nesting, and changed while they are.

    Updates are acknowledged when they lie on the disk, and nothing acknowledged is lost whenever the
    process is killed. Any number of threads may search while one changes the index; each search sees it
    as it was at one moment. Other processes may open it with ``read_only=True``. ``with`` closes it.

    Attributes:
        nesting: sizes it can be searched at, on the axis ``dim``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     index = AdaptiveIndex.create(Path(folder) / "index", np.eye(3), ["a", "b", "c"], plan="flat@full")
    ...     index.delete(["b"])
    ...     index.search(np.array([[0.1, 1.0, 0.3]]), k=2).ids.tolist()
    ...     index.close()
    1
    [['c', 'a']]
    """

    nesting: Nesting

    def __init__(self, folder: Path, state: State, writer: Writer | None) -> None:
        self.folder, self.nesting = folder, state.generation.nesting
        self._read_state, self._writer = state, writer
        self._remove: Callable[[], object] = lambda: None

    @classmethod
    def create(
        cls,
        folder: str | Path,
        vectors: Any = None,
        ids: Any = None,
        *,
        plan: Plan | str = "flat@full",
        dim: int | None = None,
        nesting: Sizes = None,
        rule: CutRule | None = None,
        metric: Metric = "dot",
        encoder: str | None = None,
        seed: int = 0,
        log_bytes: int = LOG_BYTES,
        workers: int | None = None,
        engine: Engine | None = None,
    ) -> Self:
        """Make an index. The vectors pass through as a stream; a memory map may be larger than memory.

        A build that was interrupted leaves a folder that ``create`` takes up again and nothing opens.

        Args:
            folder: where to; it must not exist, or be empty.
            vectors: ``Float[n, dim]``, or :class:`~nestling.encoders.stored.StoredVectors`, which say
                ids, nesting, rule and encoder where these are not given.
            ids: n different numbers or strings; counted from 0 by default.
            plan: how the rows are searched; see :class:`~nestling.search.plan.Plan`.
            dim: entries of a vector, where no vectors are given.
            nesting: sizes to search at; 8, 16, ... by default.
            rule: how vectors are treated around a cut; cosines by default.
            metric: ``"dot"``, or ``"euclidean"`` distances.
            encoder: what made the vectors; asked for by :meth:`open`.
            seed: of what is drawn while building.
            log_bytes: length from which on a log of updates, or one batch, is written as a segment.
            workers: threads that build; as many as there are cores by default.
            engine: built over these very vectors by the same plan, to be copied.

        Raises:
            DataError: for vectors or ids that cannot be used.
            ConfigError: for a plan or an engine that does not fit the vectors.
            ArtifactError: if ``folder`` holds anything.
            StorageError: if it cannot be written.
        """
        check_log_bytes(log_bytes)
        root = Path(folder)
        lock, loaded = create_index(
            root,
            vectors,
            ids,
            plan=plan,
            dim=dim,
            nesting=nesting,
            rule=rule,
            metric=metric,
            encoder=encoder,
            seed=seed,
            workers=workers,
            engine=engine,
        )
        return cls(root, loaded.state, Writer(root, lock, loaded, log_bytes=log_bytes, workers=workers))

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        encoder: str | None = None,
        rule: CutRule | None = None,
        read_only: bool = False,
        wait: float = 0,
        log_bytes: int = LOG_BYTES,
        workers: int | None = None,
    ) -> Self:
        """Verify every file of an index, and take in the updates of its log.

        Args:
            folder: of the index.
            encoder: what makes the queries; it must be what made the vectors. None does not ask.
            rule: how the queries are to be treated; it must be that of the index. None does not ask.
            read_only: leave the right to write to others; see :meth:`refresh`.
            wait: seconds to wait for another writer to close it.
            log_bytes: see :meth:`create`.
            workers: threads that build.

        Raises:
            ArtifactError: if anything is missing, altered, of another kind or too new.
            ConfigError: for another encoder or cut rule.
            StorageError: if another writer has it open, or its file system knows no locks.
        """
        check_log_bytes(log_bytes)
        root = Path(folder)
        if read_only:
            state = load(root).state
            state.generation.check_identity(root, encoder, rule)
            return cls(root, state, None)
        writer = open_index(root, encoder, rule, wait, log_bytes, workers)
        return cls(root, writer.state, writer)

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """:meth:`open`, for writing."""
        return cls.open(folder)

    @property
    def _state(self) -> State:
        return self._read_state if self._writer is None else self._writer.state

    @property
    def generation(self) -> Generation:
        """What lies on the disk: settings and files."""
        return self._state.generation

    @property
    def plan(self) -> Plan:
        """How rows are searched."""
        return self.generation.terms.plan

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return self.generation.settings.dim

    @property
    def metric(self) -> Metric:
        """Of comparisons."""
        return self.generation.settings.metric

    @property
    def rule(self) -> CutRule:
        """How vectors given to the index are treated around a cut."""
        return self.generation.rule

    @property
    def table(self) -> tuple[dict[str, Any], ...]:
        """What was measured of the index; empty before it was."""
        return self.generation.settings.table

    def __len__(self) -> int:
        return len(self._state.snapshot)

    def __contains__(self, name: object) -> bool:
        ids = read_ids([name])
        check_kind(ids, self._state.numbering.kind)
        return bool(self._state.snapshot.has(ids)[0])

    def ids(self) -> Ids:
        """The ids of all rows, oldest segment first."""
        return self._state.snapshot.ids()

    def rows(self) -> Rows:
        """All rows as of now: their ids, and their vectors block by block, done with what precedes a cut."""
        return self._state.snapshot.rows()

    def add(self, vectors: Any, ids: Any = None) -> Ids:
        """Add rows; when this returns, they are on the disk.

        Args:
            vectors: ``Float[n, dim]``.
            ids: n different new numbers or strings; by default numbers that no row had before.

        Returns:
            The ids of the rows.

        Raises:
            DataError: for vectors that cannot be used (rows named), or ids that are taken.
            StorageError: if they cannot be written; nothing was then changed.
        """
        return self._put(vectors, ids, replaces=False)

    def update(self, vectors: Any, ids: Any) -> Ids:
        """Put rows in the place of those of the same ids, and add those that are new; see :meth:`add`."""
        if ids is None:
            raise DataError("update needs ids, which say what rows are replaced; use add for new rows")
        return self._put(vectors, ids, replaces=True)

    def _put(self, vectors: Any, ids: Any, *, replaces: bool) -> Ids:
        matrix = as_matrix(vectors, "the vectors", self.generation.settings.dim)
        smallest = self.generation.smallest_dim
        return self._changed.put(matrix, ids, smallest=smallest, replaces=replaces)

    def delete(self, ids: Any, *, missing_ok: bool = False) -> int:
        """Delete rows by their ids; how many there were.

        Raises:
            DataError: for ids of no row (unless ``missing_ok``); nothing was then deleted.
            StorageError: if it cannot be written; nothing was then changed.
        """
        return self._changed.delete(ids, missing_ok=missing_ok)

    def flush(self) -> None:
        """Write the rows in memory into a segment. Not needed for safety: they are in the log."""
        self._changed.flush()

    def compact(self) -> None:
        """Merge all segments into one, built by the plan, without what was deleted.

        Searches go on meanwhile; interrupted, it leaves everything as it was.
        """
        self._changed.compact()

    def write_table(self, table: Iterable[Mapping[str, Any]]) -> None:
        """Keep what was measured of the index in its manifest: rows of JSON values."""
        self._changed.write_table(tuple(dict(row) for row in table))

    def check_writable(self) -> None:
        """Refuse where rows cannot be changed, before any other work.

        Raises:
            StorageError: if it was opened read-only, or by the process that this one is a fork of.
        """
        self._changed.check()

    @property
    def _changed(self) -> Writer:
        if self._writer is None:
            raise StorageError(f"{self.folder} was opened read-only; open it without read_only=True")
        return self._writer

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        at: At = None,
        point: Point | str | None = None,
        recall: float | None = None,
        filter: Any = None,  # noqa: A002 - the word of the field
        workers: int | None = None,
    ) -> Hits:
        """The ``k`` best rows of every query.

        Args:
            queries: ``Float[queries, dim]``, or their first ``at`` entries alone.
            k: how many, at least 1.
            at: the size to search at; no stage then reads a longer prefix.
            point: parameters of the search, or their text such as ``"nprobe=16,shortlist=200"``.
            recall: in place of ``point``, the fastest that was measured to find this share.
            filter: ids that may be found, or flags: row with number ``i`` may be if ``filter[i]``,
                numbers beyond its end not.
            workers: threads.

        Raises:
            DataError: for queries, ``k`` or a filter that cannot be used.
            GranularityError: for a size outside the nesting.
            ConfigError: for a point and a recall at once, or a recall that was not measured.
        """
        if recall is not None:
            if point is not None:
                raise ConfigError(f"give recall={recall} or point={point}, not both")
            point = measured_point(self.table, recall)
        return next(iter(self._search(queries, k, (at,), point, filter, workers).values()))

    def _search(
        self,
        queries: Any,
        k: int,
        granularities: Iterable[At] | None,
        point: Point | str | None = None,
        allow: Any = None,
        workers: int | None = None,
    ) -> dict[Granularity, Hits]:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise DataError(f"k={k!r} rows cannot be found; give a whole number of at least 1")
        state, wanted = self._state, resolve_each(self.nesting, granularities)
        generation, largest = state.generation, max(g["dim"] for g in wanted)
        found = Point.parse(point) if isinstance(point, str) else point
        asked = read_queries(queries, generation.takes, generation.settings.dim, largest)
        if found is not None:  # of the plan, also where no segment is large enough yet to follow it
            generation.terms.plan.check_point(found)
        check_prefixes(asked, generation.rule, generation.smallest_dim, "the queries")
        return {
            g: state.snapshot.search(asked, int(k), dim=g["dim"], point=found, allow=allow, workers=workers)
            for g in wanted
        }

    def __call__(self, queries: Any, /, at: At = None) -> Hits:
        """The ten best rows of every query at one size."""
        return self.search(queries, at=at)

    def forward_each(
        self, queries: Any, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Hits]:
        """The ten best rows at several sizes."""
        return self._search(queries, 10, granularities)

    def extract(self, at: At, folder: str | Path | None = None) -> AdaptiveIndex:
        """A smaller index of the leading entries alone; it takes the same queries.

        Args:
            at: how many.
            folder: where to; None is a temporary folder, which goes when the index is closed.
        """
        granularity = self.nesting.resolve(at)
        if folder is not None:
            write_copy(self._state, Path(folder), granularity)
            return AdaptiveIndex.open(folder)
        place = write_temporary_copy(self._state, granularity)
        small = AdaptiveIndex.open(place)
        small._remove = weakref.finalize(small, remove_temporary_copy, place, Owner(place))
        return small

    def save(self, folder: str | Path, /) -> None:
        """Write a copy of the index as it is now."""
        write_copy(self._state, Path(folder), self.nesting.full)

    def cost(self, at: At = None) -> Cost:
        """Multiply-adds of one query, bytes of all files a search reads, and of one vector."""
        return self._state.snapshot.cost(self.nesting.resolve(at)["dim"])

    def info(self) -> IndexInfo:
        """What the index holds and how it is searched."""
        return describe(self._state)

    def verify(self) -> Verification:
        """Read and check every file again.

        Raises:
            ArtifactError: for the first that is missing or altered; the message says what to do.
        """
        return verify_index(self.folder, self._state)

    def refresh(self) -> bool:
        """See what a writer in another process did since; whether it did anything. For ``read_only``."""
        if self._writer is not None:
            return False
        before, self._read_state = self._read_state, load(self.folder, self._read_state).state
        return not before.same_as(self._read_state)

    def close(self) -> None:
        """Let another writer open the index; everything is on the disk already."""
        if self._writer is not None:
            self._writer.close()
        self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
