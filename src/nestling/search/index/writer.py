"""Changing an index: one writer at a time, every change on the disk before it is acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Whole, check
from nestling.arguments.ids import as_ids
from nestling.data.tables.fields.columns import Columns, parts_of
from nestling.errors import DataError, NestlingError, StorageError
from nestling.process.interrupts import held_interrupts, on_interrupt
from nestling.search.index.commit import write_files
from nestling.search.index.files.ids import Ids, check_kind, check_new_ids, name_ids, read_ids
from nestling.search.index.files.manifest import IndexManifest, commit_manifest, leftovers
from nestling.search.index.files.row_format import Held
from nestling.search.index.files.segments import Rows
from nestling.search.index.files.wal import HEADER_BYTES, LogContent, LogWriter, Record
from nestling.search.index.intake import held_blocks
from nestling.search.index.snapshot.memtable import Memtable
from nestling.search.index.snapshot.snapshot import LiveSegment, Snapshot
from nestling.search.index.snapshot.state import Loaded, Numbering, State, apply, load
from nestling.search.index.widening import check_floats
from nestling.storage.artifact import storage_errors
from nestling.storage.durable import discard, flush_folder
from nestling.storage.lock import WriterLock

_LONGEST_LOG = 1 << 30
_EMPTY_LOG = LogContent((), HEADER_BYTES, 0)
# A new segment takes in smaller ones written before it, as long as that rewrites no more than this many
# logs: each row is then rewritten a few times, and the segments stay few.
_MOST_MERGED = 16

LOG_BYTES = 16 << 20
"""The default length of a log, in bytes, at which its rows become a segment."""


def check_log_bytes(log_bytes: int) -> None:
    """The log is read into memory whole when an index is opened.

    Raises:
        ConfigError: for a length below 1 or above 1 GiB.
    """
    check("log_bytes", log_bytes, Whole(1, _LONGEST_LOG))


class Writer:
    """The single writer of an index. Readers use ``state``, which each change replaces.

    Args:
        root: the folder of the index.
        lock: keeps other writers out.
        loaded: the contents that were read.
        log_bytes: size of the log at which its rows are written into a segment.
        workers: threads that build.
    """

    def __init__(
        self, root: Path, lock: WriterLock, loaded: Loaded, *, log_bytes: int, workers: int | None
    ) -> None:
        self._root, self._lock, self._log_bytes, self._workers = root, lock, log_bytes, workers
        self._mutex = threading.RLock()
        self._is_closed = False
        self._resume_from(loaded)

    def put(
        self,
        vectors: NDArray[np.floating[Any]] | None,
        ids: Any,
        fields: Any = None,
        *,
        replaces: bool,
    ) -> Ids:
        """Add rows, or put them in the place of those of the same ids.

        Rows that are replaced keep the fields that are not given, and without ``vectors`` their vectors.

        Raises:
            DataError: for ids that are taken (unless ``replaces``) or cannot be used, or such vectors.
            StorageError: if they could not be written; nothing was then changed.
        """
        with self._changing():
            if vectors is None:
                ids = as_ids(ids)
            names = self._names(ids, len(ids if vectors is None else vectors))
            taken = self._taken(names)
            if taken.any() and not replaces:
                raise DataError(
                    f"{name_ids(names[taken], 'are')} in the index already; replace rows with update "
                    "(nestling index update), or choose other ids"
                )
            columns, manifest = self._columns(fields, names, taken), self.state.manifest
            if vectors is None:
                blocks = iter([self._held_there(names, taken)])
            else:
                blocks = held_blocks(vectors, manifest.adds, manifest.smallest_dim, manifest.terms.format)
            settles = len(names) > 0 and columns.kinds != manifest.terms.fields  # or widens
            if settles or self._is_large(len(names)):
                with self._explaining_interrupts():
                    self._commit_large(names, blocks, columns)
            elif len(names):
                self._append(Record("put", names, np.concatenate(list(blocks)), columns))
            return names

    def delete(self, ids: Any, *, missing_ok: bool) -> int:
        """Delete rows by their ids; how many there were.

        Raises:
            DataError: for ids of no row, unless ``missing_ok``; nothing was then deleted.
            StorageError: if it could not be written; nothing was then changed.
        """
        with self._changing():
            names = np.unique(read_ids(ids, any_order=True))
            check_kind(names, self.state.numbering.kind)
            found = self._taken(names)
            if not found.all() and not missing_ok:
                raise DataError(
                    f"{name_ids(names[~found], 'are')} not in the index, so nothing was deleted; "
                    "pass missing_ok=True to delete those that are"
                )
            if found.any():
                held = self.state.manifest.terms.format
                nothing = np.zeros((0, held.width), held.dtype)
                self._append(Record("delete", names[found], nothing, Columns({}, 0)))
            return int(found.sum())

    def flush(self) -> None:
        """Write the memtable and all deletions into files of a new manifest."""
        with self._changing(), self._explaining_interrupts():
            self._flush()

    def compact(self) -> None:
        """Write all live rows into one segment, built by the plan, unless they are in one already."""
        with self._changing(), self._explaining_interrupts():
            parts = self.state.snapshot.segments
            if self._log.length == HEADER_BYTES and [part.live_count for part in parts] == [
                len(part.segment) for part in parts[:1]
            ]:
                return
            self._commit((), self.state.snapshot.rows(), self.state.numbering)

    def write_settings(self, **settings: Any) -> None:
        """Write measured and chosen settings into the manifest."""
        with self._changing(), self._explaining_interrupts():
            snapshot = self.state.snapshot
            self._commit(snapshot.segments, snapshot.rows(()), self.state.numbering, **settings)

    def check(self) -> None:
        """Refuse to change anything in a fork of the process that opened the index.

        Raises:
            StorageError: there.
        """
        self._lock.check()

    def close(self) -> None:
        """Let another writer in; nothing needs to be written."""
        if (
            not self._lock.is_here
        ):  # a fork: it owns nothing, and another thread may hold the turn and never return it
            return
        with self._mutex:
            self._is_closed = True
            self._log.close()
            self._lock.release()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self._lock.check()  # first: in a fork another thread may hold the turn and never return it
        with self._mutex:
            if self._is_closed:
                raise StorageError(f"{self._root} was closed; open it again")
            self._reconcile()
            try:
                yield
            except BaseException:
                with suppress(NestlingError):  # the next change tries again, and says why it cannot
                    self._reconcile()
                raise

    @contextmanager
    def _in_one(self) -> Iterator[None]:
        """A change of the disk and then of memory: Ctrl-C waits, and after an error both are reconciled."""
        with held_interrupts():
            self._is_torn = True
            yield
            self._is_torn = False

    def _reconcile(self) -> None:
        """After a change that stopped between disk and memory, reload what the disk holds."""
        if self._is_torn:
            loaded = load(self._root, self.state)
            with storage_errors(self._root):
                flush_folder(self._root)  # its manifest may be new
            self._log.close()
            loaded.state = replace(loaded.state, messages=self.state.messages)
            self._resume_from(loaded)

    def _resume_from(self, loaded: Loaded) -> None:
        log = LogWriter(loaded.state.manifest.log(self._root), loaded.content)
        self.state, self._memtable, self._log = loaded.state, loaded.memtable, log
        self._is_torn = False
        self._discard_leftovers(resume=True)

    def _names(self, given: Any, count: int) -> Ids:
        kind, next_id = self.state.numbering
        if given is None:
            if kind == "str":
                raise DataError("the rows of this index have strings as ids; give one for each new row")
            return np.arange(next_id, next_id + count)
        names = check_new_ids(given, count)
        check_kind(names, kind)
        return names

    def _columns(self, given: Any, names: Ids, taken: NDArray[np.bool_]) -> Columns:
        """The fields of rows that are put; the first rows of an index decide which fields there are.

        Their kinds are those of the index, but that floats widen a field of whole numbers.
        """
        snapshot = self.state.snapshot
        if given is not None and not snapshot.terms.fields and not len(snapshot):
            return Columns.read(given, len(names))
        kinds = snapshot.terms.fields
        columns = Columns.read(given, len(names), kinds, may_widen=True)
        kinds = {**kinds, **columns.kinds}
        if taken.any() and kinds:
            before = snapshot.fields_of(names)
            if isinstance(given, Sequence):  # each row names fields of its own, and keeps the others
                rows = zip(before.records(), given, strict=True)
                columns = Columns.read([old | dict(row) for old, row in rows], len(names), kinds)
            columns = Columns(before.by_name | columns.by_name, len(names))
        return columns.with_kinds(kinds)

    def _held_there(self, names: Ids, taken: NDArray[np.bool_]) -> Held:
        if not taken.all():
            text = self.state.manifest.settings.columns.get("text")
            needed = f"texts (the column {text!r})" if text else "vectors"
            raise DataError(f"{name_ids(names[~taken], 'are')} not in the index; give {needed} for new rows")
        return self.state.snapshot.held_of(names)

    def _taken(self, names: Ids) -> NDArray[np.bool_]:
        masks = [part.has(names) for part in self.state.snapshot.segments]
        taken: NDArray[np.bool_] = np.logical_or.reduce([self._memtable.has(names), *masks])
        return taken

    @contextmanager
    def _explaining_interrupts(self) -> Iterator[None]:
        """Let Ctrl-C inside say whether the change is on the disk; it is there whole or not at all."""
        before = self._version

        def explanation() -> str:
            try:
                self._reconcile()
            except NestlingError as error:
                return f"whether the change is in the index {self._root} cannot be read now: {error}"
            if self._version == before:
                return self._as_it_was()
            return f"the change is in the index {self._root}; there is nothing to repeat"

        with on_interrupt(explanation):
            yield

    @property
    def _version(self) -> tuple[int, int]:
        return self.state.manifest.settings.generation, self._log.length

    def _as_it_was(self) -> str:
        return f"the index {self._root} is as it was; run it again to resume"

    def _is_large(self, rows: int) -> bool:
        """Whether the floats of so many rows are as long as a log. Codes count as what they stand for."""
        return rows * self.state.manifest.settings.dim * 4 >= self._log_bytes

    def _append(self, record: Record) -> None:
        length, rows = self._log.length, len(self._memtable) + len(record.vectors)
        is_full = length + record.vectors.nbytes > self._log_bytes
        is_full |= self.state.manifest.terms.bits is not None and self._is_large(rows)
        if length > HEADER_BYTES and is_full:
            with on_interrupt(self._as_it_was):  # with its rows in other files, or not
                self._flush()
        with self._explaining_interrupts(), self._in_one():
            self._log.append(record)
            numbering = self.state.numbering.after(record)
            snapshot = apply(self.state.snapshot, self._memtable, record, numbering)
            self.state = replace(self.state, snapshot=snapshot, numbering=numbering)

    def _flush(self) -> None:
        if self._log.length == HEADER_BYTES:
            return
        snapshot = self.state.snapshot
        kept, merged = self._split(snapshot.segments, snapshot.memtable.live_count)
        self._commit(kept, snapshot.rows(merged), self.state.numbering)

    def _split(
        self, segments: tuple[LiveSegment, ...], count: int
    ) -> tuple[tuple[LiveSegment, ...], tuple[LiveSegment, ...]]:
        """Segments that stay, and newer ones no larger than ``count`` rows that become one with them."""
        most = _MOST_MERGED * self._log_bytes // (4 * self.state.snapshot.terms.dim)
        place, merged = len(segments), count
        while place and count and len(segments[place - 1].segment) <= merged and 2 * merged <= most:
            place -= 1
            merged += segments[place].live_count
        return segments[:place], segments[place:]

    def _commit_large(self, names: Ids, blocks: Iterator[Held], columns: Columns) -> None:
        """Many rows go into a segment at once, with newer ones that they do not replace."""
        before = self.state.snapshot
        kept, merged = self._split(tuple(part.without(names) for part in before.segments), len(names))
        live = before.memtable.live & ~np.isin(before.memtable_ids, names)
        memtable = replace(before.memtable, live=live)
        wider = [name for name, kind in before.terms.fields.items() if columns.kinds[name] != kind]
        check_floats(Snapshot(before.terms, before.id_kind, (*kept, *merged), memtable), wider)
        rest = Snapshot(before.terms, before.id_kind, merged, memtable).rows()
        ids = np.concatenate([rest.ids, names]) if len(rest.ids) else names
        rows = Rows(ids, chain(rest.blocks, blocks), chain(rest.fields, parts_of(columns)))
        # The first rows bring their fields with them, and floats their kind: where they cannot be written,
        # the fields of the index are as before.
        self._commit(kept, rows, self.state.numbering.after_put(names), fields=columns.kinds)

    def _commit(
        self,
        kept: Sequence[LiveSegment],
        rows: Rows,
        numbering: Numbering,
        **settings: Any,
    ) -> None:
        """Commit a manifest of the kept segments and one of ``rows``, with an empty log.

        Args:
            kept: segments that stay.
            rows: of a new segment, if there are any.
            numbering: after these rows.
            settings: of the manifest that change.
        """
        manifest, segments, log = self._prepare(kept, rows, numbering, settings)
        memtable = Memtable(manifest.terms)
        try:
            with self._in_one():
                commit_manifest(self._root, manifest)
                self.state = State(
                    manifest,
                    Snapshot(manifest.terms, numbering.kind, segments, memtable.view()),
                    numbering,
                    self.state.messages,
                )
                self._memtable, self._log, log = memtable, log, self._log
        finally:
            log.close()  # the unused one
            if not self._is_torn:
                self._discard_leftovers()

    def _prepare(
        self,
        kept: Sequence[LiveSegment],
        rows: Rows,
        numbering: Numbering,
        settings: dict[str, Any],
    ) -> tuple[IndexManifest, tuple[LiveSegment, ...], LogWriter]:
        """Write all files of the next manifest, which is not committed yet."""
        before = self.state.manifest
        try:
            with storage_errors(self._root):
                before = replace(before, settings=before.settings.model_copy(update=settings))
                manifest, segments = write_files(self._root, before, kept, rows, numbering, self._workers)
                return manifest, segments, LogWriter(manifest.log(self._root), _EMPTY_LOG)
        except BaseException as error:
            self._discard_leftovers(resume=not isinstance(error, Exception))
            raise

    def _discard_leftovers(self, *, resume: bool = False) -> None:
        for path in leftovers(self._root, self.state.manifest, resume=resume):
            discard(path)
