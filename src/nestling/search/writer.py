"""Changing an index: one writer at a time, every change on the disk before it is acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.artifact import FileRecord, read_manifest, storage_errors
from nestling.data.columns import Columns, parts_of
from nestling.errors import ConfigError, DataError, StorageError
from nestling.ids import as_ids
from nestling.interrupts import on_interrupt
from nestling.search.durable import discard, flush_folder, npy_chunks, write_new
from nestling.search.engine import Engine
from nestling.search.generation import Generation, leftovers, switch
from nestling.search.ids import Ids, check_kind, check_new_ids, name_ids, read_ids
from nestling.search.incoming import prepared_blocks
from nestling.search.lock import WriterLock
from nestling.search.log import HEADER_BYTES, LogContent, LogWriter, Record, create_log
from nestling.search.memory import MemoryPart
from nestling.search.segments import SEGMENTS, Rows, SegmentRecord, segment_name, write_segment
from nestling.search.snapshot import LiveSegment, Snapshot
from nestling.search.state import Loaded, Numbering, State, apply
from nestling.search.widening import check_floats

_LONGEST_LOG = 1 << 30
_EMPTY_LOG = LogContent((), HEADER_BYTES, 0)
# A new segment takes in smaller ones written before it, as long as that rewrites no more than this many
# logs: each row is then rewritten a few times, and the segments stay few.
_MOST_MERGED = 16

LOG_BYTES = 16 << 20
"""Bytes of a log at which it becomes a segment, unless something else is said."""


def check_log_bytes(log_bytes: int) -> None:
    """The log is read into memory whole when an index is opened.

    Raises:
        ConfigError: for a length below 1 or above 1 GiB.
    """
    if not 1 <= log_bytes <= _LONGEST_LOG:
        raise ConfigError(f"log_bytes={log_bytes} must be at least 1 and at most {_LONGEST_LOG}")


class Writer:
    """The only one who changes an index. Readers look at ``state``, which is replaced whole.

    Args:
        root: the folder of the index.
        lock: keeps other writers out.
        loaded: what was read from it.
        log_bytes: how long the log may become before its rows are written into a segment.
        workers: threads that build.
    """

    def __init__(
        self, root: Path, lock: WriterLock, loaded: Loaded, *, log_bytes: int, workers: int | None
    ) -> None:
        self.state = loaded.state
        self._root, self._lock, self._log_bytes, self._workers = root, lock, log_bytes, workers
        self._memory = loaded.memory
        self._log = LogWriter(loaded.state.generation.log(root), loaded.content)
        self._turn = threading.RLock()
        self._is_torn = self._is_closed = False
        for path in leftovers(root, self.state.generation, resume=True):
            discard(path)

    def put(
        self,
        vectors: NDArray[np.floating[Any]] | None,
        ids: Any,
        fields: Any = None,
        *,
        smallest: int,
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
                    f"{name_ids(names[taken], 'stand')} in the index already; replace their vectors with "
                    "update, or choose other ids"
                )
            columns = self._columns(fields, names, taken)
            if vectors is None:
                blocks = iter([self._vectors_there(names, taken)])
            else:
                blocks = prepared_blocks(vectors, self.state.generation.rule, smallest)
            settles = len(names) > 0 and columns.kinds != self.state.snapshot.terms.fields  # or widens
            if settles or len(names) * self.state.snapshot.terms.dim * 4 >= self._log_bytes:
                with self._interrupts_told():
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
                nothing = np.zeros((0, self.state.generation.settings.dim), np.float32)
                self._append(Record("delete", names[found], nothing, Columns({}, 0)))
            return int(found.sum())

    def flush(self) -> None:
        """Write the rows in memory, and what was deleted, into files of a new generation."""
        with self._changing(), self._interrupts_told():
            self._flush()

    def compact(self) -> None:
        """Write all rows that are left into one segment, built by the plan, unless they stand in one."""
        with self._changing(), self._interrupts_told():
            parts = self.state.snapshot.segments
            if self._log.length == HEADER_BYTES and [part.live_count for part in parts] == [
                len(part.segment) for part in parts[:1]
            ]:
                return
            self._commit((), self.state.snapshot.rows(), self.state.numbering)

    def write_settings(self, **settings: Any) -> None:
        """Put what was measured of the index, and chosen, into its manifest."""
        with self._changing(), self._interrupts_told():
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
        ):  # a fork: nothing is its own, and the turn may be another thread's for ever
            return
        with self._turn:
            self._is_closed = True
            self._log.close()
            self._lock.release()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self._lock.check()  # first: in a fork the turn may be another thread's for ever
        with self._turn:
            if self._is_closed:
                raise StorageError(f"{self._root} was closed; open it again")
            if self._is_torn:
                raise StorageError(
                    f"a write into {self._root} failed and could not be undone; close the index and open it "
                    "again, which reads what the disk holds"
                )
            yield

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
        """The fields of rows that are put; the first rows of an index settle which fields there are.

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

    def _vectors_there(self, names: Ids, taken: NDArray[np.bool_]) -> NDArray[np.float32]:
        if not taken.all():
            raise DataError(f"{name_ids(names[~taken], 'are')} not in the index; give vectors for new rows")
        return self.state.snapshot.vectors_of(names)

    def _taken(self, names: Ids) -> NDArray[np.bool_]:
        masks = [part.has(names) for part in self.state.snapshot.segments]
        taken: NDArray[np.bool_] = np.logical_or.reduce([self._memory.has(names), *masks])
        return taken

    @contextmanager
    def _interrupts_told(self) -> Iterator[None]:
        """Ctrl-C inside says whether the change is on the disk; it is there whole or not at all."""
        before = self.state.generation.settings.generation, self._log.length

        def told() -> str:
            if (read_manifest(self._root).settings["generation"], self._log.length) == before:
                return f"the index {self._root} is as it was; repeat it to go on"
            return f"the change is in the index {self._root}; there is nothing to repeat"

        with on_interrupt(told):
            yield

    def _append(self, record: Record) -> None:
        if self._log.length > HEADER_BYTES and self._log.length + record.vectors.nbytes > self._log_bytes:
            self._flush()
        with self._interrupts_told():
            self._log.append(record)
            numbering = self.state.numbering.after(record)
            snapshot = apply(self.state.snapshot, self._memory, record, numbering)
            self.state = replace(self.state, snapshot=snapshot, numbering=numbering)

    def _flush(self) -> None:
        if self._log.length == HEADER_BYTES:
            return
        snapshot = self.state.snapshot
        kept, merged = self._split(snapshot.segments, snapshot.memory.live_count)
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

    def _commit_large(self, names: Ids, blocks: Iterator[NDArray[np.float32]], columns: Columns) -> None:
        """Many rows go into a segment at once, with newer ones that they do not replace."""
        before = self.state.snapshot
        kept, merged = self._split(tuple(part.without(names) for part in before.segments), len(names))
        live = before.memory.live & ~np.isin(before.memory_ids, names)
        memory = replace(before.memory, live=live)
        wider = [name for name, kind in before.terms.fields.items() if columns.kinds[name] != kind]
        check_floats(Snapshot(before.terms, before.id_kind, (*kept, *merged), memory), wider)
        rest = Snapshot(before.terms, before.id_kind, merged, memory).rows()
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
        """Switch to a generation of the kept segments and one of ``rows``, with an empty log.

        Args:
            kept: segments that stay.
            rows: of a new segment, if there are any.
            numbering: after these rows.
            settings: of the manifest that become others.
        """
        generation, segments, log = self._prepare(kept, rows, numbering, settings)
        memory = MemoryPart(generation.settings.dim, generation.terms.fields)
        before = self.state.generation
        self._is_torn = True  # until what is in memory and on the disk is the same again
        try:
            switch(self._root, generation)
            self.state = State(
                generation,
                Snapshot(generation.terms, numbering.kind, segments, memory.view()),
                numbering,
                self.state.messages,
            )
            self._memory, self._log, old_log = memory, log, self._log
            self._is_torn = False
        except BaseException:
            log.close()
            if read_manifest(self._root).settings["generation"] == before.settings.generation:
                self._is_torn = False
                self._discard_leftovers()
            raise
        old_log.close()
        self._discard_leftovers()

    def _prepare(
        self,
        kept: Sequence[LiveSegment],
        rows: Rows,
        numbering: Numbering,
        settings: dict[str, Any],
    ) -> tuple[Generation, tuple[LiveSegment, ...], LogWriter]:
        """Write all files of the next generation; nothing names them yet."""
        before = self.state.generation
        try:
            with storage_errors(self._root):
                before = replace(before, settings=before.settings.model_copy(update=settings))
                generation, segments = write_files(self._root, before, kept, rows, numbering, self._workers)
                return generation, segments, LogWriter(generation.log(self._root), _EMPTY_LOG)
        except BaseException as error:
            self._discard_leftovers(resume=not isinstance(error, Exception))
            raise

    def _discard_leftovers(self, *, resume: bool = False) -> None:
        for path in leftovers(self._root, self.state.generation, resume=resume):
            discard(path)


def write_files(
    root: Path,
    before: Generation,
    kept: Sequence[LiveSegment],
    rows: Rows,
    numbering: Numbering,
    workers: int | None,
    built: Engine | None = None,
) -> tuple[Generation, tuple[LiveSegment, ...]]:
    """Write and flush the files of the generation after ``before``: new rows, deletions, an empty log."""
    number = before.settings.generation + 1
    fields = before.terms.fields
    segments = [LiveSegment(part.segment.under(fields), part.live) for part in kept if part.live_count]
    names = {part.segment.record.name for part in segments}
    files = {
        name: record
        for name, record in before.files.items()
        if name.startswith(f"{SEGMENTS}/") and name.split("/")[1] in names
    }
    if len(rows.ids):
        segment, written = write_segment(root, segment_name(number), rows, before.terms, workers, built)
        segments.append(LiveSegment(segment, np.ones(len(rows.ids), np.bool_)))
        files |= written
    generation = _after(before, number, [part.segment.record for part in segments], files, numbering)
    if (deleted := write_deleted(root / generation.deleted_name, segments)) is not None:
        generation = replace(generation, files={**files, generation.deleted_name: deleted})
    create_log(generation.log(root))
    flush_folder(root)
    return generation, tuple(segments)


def _after(
    before: Generation,
    number: int,
    records: list[SegmentRecord],
    files: dict[str, FileRecord],
    numbering: Numbering,
) -> Generation:
    changes = {
        "generation": number,
        "segments": tuple(records),
        "id_kind": numbering.kind,
        "next_id": numbering.next_id,
    }
    return replace(before, settings=before.settings.model_copy(update=changes), files=files)


def write_deleted(path: Path, segments: Sequence[LiveSegment]) -> FileRecord | None:
    """Write which rows of the segments are no longer found; None where all are."""
    if all(part.live_count == len(part.segment) for part in segments):
        return None
    bits = np.packbits(~np.concatenate([part.live for part in segments]))
    return write_new(path, npy_chunks([bits], bits.shape, bits.dtype))
