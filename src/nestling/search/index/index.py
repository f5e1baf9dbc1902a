"""The adaptive index: a folder of vectors that is searched at any size, and changed while it is."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from numpy.typing import ArrayLike

from nestling.arguments.paths import home_path
from nestling.cut import CutRule
from nestling.data.tables.fields.columns import Kinds
from nestling.errors import DataError, StorageError
from nestling.granularity import At, Nesting
from nestling.search.engine.engine import Engine
from nestling.search.exact.neighbours import Metric
from nestling.search.index.copy import remove_temporary_copy, write_copy, write_temporary_copy
from nestling.search.index.create import create_index, open_index
from nestling.search.index.files.ids import Ids
from nestling.search.index.info import Verification, verify_index
from nestling.search.index.intake import read_vectors
from nestling.search.index.reader import IndexReader
from nestling.search.index.snapshot.state import State, load
from nestling.search.index.spec import IndexSpec
from nestling.search.index.writer import LOG_BYTES, Writer, check_log_bytes
from nestling.search.plan.plan import Plan, Point
from nestling.storage.owner import Owner
from nestling.vectors.coding import with_code
from nestling.vectors.matrix import Sizes
from nestling.vectors.stored import StoredVectors
from nestling.vectors.vectors_like import VectorsLike


class AdaptiveIndex(IndexReader):
    """Vectors in a folder, searched by a plan at any size of their nesting while they may change.

    Updates are acknowledged once they are on the disk, and acknowledged updates survive a kill at any time.
    Any number of threads may search while one changes the index; each search sees a snapshot. Other
    processes may open it with ``read_only=True``. ``with`` closes it.

    Attributes:
        nesting: sizes it can be searched at, on the axis ``dim`` and, if it keeps codes, ``bits``.

    >>> import tempfile
    >>> import numpy as np
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
        self.folder, self.nesting = folder, state.manifest.nesting
        self._read_state, self._writer = state, writer
        self._remove: Callable[[], object] = lambda: None
        self._is_closed = False

    @classmethod
    def create(
        cls,
        folder: str | Path,
        vectors: VectorsLike | None = None,
        ids: Any = None,
        *,
        at: At = None,
        plan: Plan | str | None = None,
        dim: int | None = None,
        nesting: Sizes = None,
        rule: CutRule | None = None,
        metric: Metric = "dot",
        encoder: str | None = None,
        seed: int = 0,
        log_bytes: int = LOG_BYTES,
        workers: int | None = None,
        engine: Engine | None = None,
        fields: Any = None,
        kinds: Kinds | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> Self:
        """Make an index. The vectors pass through as a stream; a memory map may be larger than memory.

        An interrupted build leaves a folder that cannot be opened; the same call of ``create`` resumes it.

        Args:
            folder: target folder; it must not exist, or be empty.
            vectors: ``Float[n, dim]``, or :class:`~nestling.vectors.stored.StoredVectors`, which say
                ids, nesting, rule and encoder where these are not given.
            ids: n different numbers or strings; counted from 0 by default.
            at: size and precision of the stored rows, such as ``"dim=256,bits=2"`` for codes instead of
                floats. The code is that of the rule, or calibrated on these vectors. By default all entries,
                as floats, or as the codes of the stored vectors.
            plan: of searches; see :class:`~nestling.search.plan.plan.Plan`. An exact scan by default.
            dim: entries of a vector, where no vectors are given.
            nesting: sizes to search at; 8, 16, ... by default.
            rule: steps around a cut; cosines by default.
            metric: ``"dot"``, or ``"euclidean"`` distances.
            encoder: the name of the encoder of the vectors; :meth:`open` can require it.
            seed: of all random choices while building.
            log_bytes: length from which on a log of updates, or one batch, is written as a segment; codes
                count as the floats that they stand for.
            workers: threads that build; as many as there are cores by default.
            engine: built over these very vectors by the same plan, to be copied.
            fields: of the rows, to be filtered by and answered with: a mapping of names to columns, a data
                frame, or a list of one mapping per row.
            kinds: type of each field (``"int"``, ``"float"``, ``"bool"`` or ``"text"``), where the first
                rows do not determine it; no others are then taken.
            columns: names of the columns of the table that the rows come from, kept for later ones.

        Raises:
            DataError: for vectors or ids that cannot be used.
            ConfigError: for a plan or an engine that does not fit the vectors or codes.
            GranularityError: for an ``at`` that they do not have.
            ArtifactError: if ``folder`` holds anything.
            StorageError: if it cannot be written.
        """
        check_log_bytes(log_bytes)
        root = home_path(folder)
        if vectors is None and fields is not None:
            raise DataError("fields belong to rows, and no vectors are given; declare types with kinds=")
        about: Any = {"rule": rule, "encoder": encoder, "kinds": kinds, "columns": columns}
        rows = None
        if vectors is not None:
            rows = with_code(StoredVectors.of(vectors, nesting, ids=ids, fields=fields, **about), at)
        spec = IndexSpec.of(
            rows, at=at, plan=plan, dim=dim, nesting=nesting, metric=metric, seed=seed, **about
        )
        lock, loaded = create_index(root, spec, rows, workers=workers, engine=engine)
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
        """Verify every file of an index, and replay its write-ahead log.

        Args:
            folder: of the index.
            encoder: of the queries; it must be that of the vectors. None does not check.
            rule: steps around a cut of the queries; they must be those of the index. None does not check.
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
        root = home_path(folder)
        if read_only:
            state = load(root).state
            state.manifest.check_identity(root, encoder, rule)
            return cls(root, state, None)
        writer = open_index(root, encoder, rule, wait, log_bytes, workers)
        return cls(root, writer.state, writer)

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """:meth:`open`, for writing."""
        return cls.open(folder)

    def __repr__(self) -> str:
        closed = ", closed" if self._is_closed else ""
        about = f"{len(self):,} rows of {self.dim} dims, plan {str(self.plan)!r}"
        return f"AdaptiveIndex({self.folder}, {about}{closed})"

    @property
    def _state(self) -> State:
        if self._is_closed:
            raise StorageError(f"{self.folder} was closed; open it again")
        return self._last_state

    @property
    def _last_state(self) -> State:
        return self._read_state if self._writer is None else self._writer.state

    def add(self, vectors: ArrayLike, ids: Any = None, fields: Any = None) -> Ids:
        """Add rows; when this returns, they are on the disk.

        Args:
            vectors: ``Float[n, dim]``; codes are made of whole vectors, also those of fewer dims.
            ids: n different new numbers or strings; by default numbers that no row had before.
            fields: of the rows, as for :meth:`create`; those that are not named are missing.

        Returns:
            The ids of the rows.

        Raises:
            DataError: for vectors that cannot be used (rows named), or ids that are taken.
            StorageError: if they cannot be written; nothing was then changed.
        """
        return self._put(vectors, ids, fields, replaces=False)

    def update(self, vectors: ArrayLike | None, ids: Any, fields: Any = None) -> Ids:
        """Replace rows by their ids, and add those that are new; see :meth:`add`.

        Args:
            vectors: as for :meth:`add`; None keeps those that are there.
            ids: of the rows.
            fields: those that are named are replaced, and the others kept.

        Raises:
            DataError: as :meth:`add`, and where neither vectors nor fields are given.
        """
        if ids is None:
            raise DataError("update needs the ids of the rows to replace; use add for new rows")
        if vectors is None and fields is None:
            raise DataError(
                "an update without vectors (or texts) and without fields changes nothing; give fields="
            )
        return self._put(vectors, ids, fields, replaces=True)

    def _put(self, vectors: ArrayLike | None, ids: Any, fields: Any, *, replaces: bool) -> Ids:
        matrix = None if vectors is None and replaces else read_vectors(vectors, self.manifest.adds)
        return self._changed.put(matrix, ids, fields, replaces=replaces)

    def delete(self, ids: Any, *, missing_ok: bool = False) -> int:
        """Delete rows by their ids; how many there were.

        Raises:
            DataError: for ids of no row (unless ``missing_ok``); nothing was then deleted.
            StorageError: if it cannot be written; nothing was then changed.
        """
        return self._changed.delete(ids, missing_ok=missing_ok)

    def flush(self) -> None:
        """Write the memtable into a segment. Not needed for safety: its rows are in the write-ahead log."""
        self._changed.flush()

    def compact(self) -> None:
        """Merge all segments into one, built by the plan, without what was deleted.

        Searches continue meanwhile; if interrupted, it leaves everything as it was.
        """
        self._changed.compact()

    def write_table(
        self,
        table: Iterable[Mapping[str, Any]],
        *,
        point: Point | None = None,
        k: int = 0,
        sampled: bool = False,
        reason: str | None = None,
    ) -> None:
        """Write measured points into the manifest, and the one that was chosen.

        Args:
            table: rows of JSON values.
            point: of searches that name none; None is that of the plan.
            k: neighbours for which it was measured.
            sampled: whether rows of the index were the queries.
            reason: reason for the choice of the plan; None keeps the last one.
        """
        chosen: dict[str, Any] = {"default_point": "" if point is None else str(point), "default_k": k}
        chosen["sampled"] = sampled
        chosen |= {} if reason is None else {"reason": reason}
        self._changed.write_settings(table=tuple(dict(row) for row in table), **chosen)

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

    def extract(self, at: At, folder: str | Path | None = None) -> AdaptiveIndex:
        """A smaller index of the leading entries and bits alone; it takes the same queries.

        Args:
            at: number of leading entries, or a granularity such as ``"dim=128,bits=4"``.
            folder: target folder; None is a temporary folder, which is removed when the index is closed.
        """
        granularity = self.nesting.resolve(at)
        if folder is not None:
            write_copy(self._state, home_path(folder), granularity)
            return AdaptiveIndex.open(folder)
        place = write_temporary_copy(self._state, granularity)
        small = AdaptiveIndex.open(place)
        small._remove = weakref.finalize(small, remove_temporary_copy, place, Owner(place))
        return small

    def save(self, folder: str | Path, /) -> None:
        """Write a copy of the index as it is now."""
        write_copy(self._state, home_path(folder), self.nesting.full)

    def verify(self) -> Verification:
        """Read and check every file again.

        Raises:
            ArtifactError: for the first that is missing or altered; the message says what to do.
        """
        return verify_index(self.folder, self._state)

    def refresh(self) -> bool:
        """Load what a writer in another process committed; whether there was anything. For ``read_only``."""
        if self._writer is not None:
            return False
        before, self._read_state = self._read_state, load(self.folder, self._read_state).state
        return not before.same_as(self._read_state)

    def close(self) -> None:
        """Let another writer open the index; everything is on the disk already.

        Rows can then be neither read nor changed; :meth:`info` still works.
        """
        self._is_closed = True
        if self._writer is not None:
            self._writer.close()
        self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
