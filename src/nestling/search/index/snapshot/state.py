"""Loading an index from its folder: the committed manifest, and the updates in its write-ahead log."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from nestling.errors import ArtifactError
from nestling.search.index.files.ids import IdKind, Ids, kind_of
from nestling.search.index.files.manifest import IndexManifest, load_manifest, read_deleted
from nestling.search.index.files.segments import Segment, load_segment
from nestling.search.index.files.wal import LogContent, Record, read_log
from nestling.search.index.snapshot.memtable import Memtable
from nestling.search.index.snapshot.snapshot import LiveSegment, Snapshot
from nestling.storage.artifact import MANIFEST, reading_errors

# A writer that commits a manifest meanwhile removes old files; the next try finds the new ones.
_TRIES = 20


class Numbering(NamedTuple):
    """The kind of ids of an index, and the number of the next row that is added without an id."""

    kind: IdKind | None
    next_id: int

    def after(self, record: Record) -> Numbering:
        """The same after an update."""
        return self if record.kind == "delete" else self.after_put(record.ids)

    def after_put(self, ids: Ids) -> Numbering:
        """The same after rows of these ids were put."""
        if not len(ids):
            return self
        kind = kind_of(ids)
        return Numbering(kind, max(self.next_id, int(ids.max()) + 1) if kind == "int" else 0)


@dataclass(frozen=True)
class State:
    """An index at one moment.

    Args:
        manifest: as on the disk.
        snapshot: segments and the memtable, as searches see them.
        numbering: of ids.
        messages: repairs that were needed when it was read.
        log_length: bytes of the log that were read.
    """

    manifest: IndexManifest
    snapshot: Snapshot
    numbering: Numbering
    messages: tuple[str, ...] = ()
    log_length: int = 0

    def same_as(self, other: State) -> bool:
        """Whether both were read from the same bytes."""
        ours, theirs = self.manifest.settings, other.manifest.settings
        return (ours.index, ours.generation, self.log_length) == (
            theirs.index,
            theirs.generation,
            other.log_length,
        )


@dataclass
class Loaded:
    """A state, with the memtable and log that a writer needs to change it."""

    state: State
    memtable: Memtable
    content: LogContent


def load(root: Path, before: State | None = None) -> Loaded:
    """Verify and read a whole index.

    Args:
        root: its folder.
        before: an earlier state read by this process; then only new files are read.

    Raises:
        ArtifactError: if anything of it is missing, altered or too new.
    """
    for attempt in range(_TRIES):
        manifest = _manifest_bytes(root)
        try:
            return _load(root, before)
        except OSError as error:
            if attempt == _TRIES - 1 or _manifest_bytes(root) == manifest:
                raise ArtifactError(f"{root} cannot be read: {error}") from error
        except ArtifactError:
            if attempt == _TRIES - 1 or _manifest_bytes(root) == manifest:
                raise
    raise AssertionError("the last try returns or raises")


def apply(snapshot: Snapshot, memtable: Memtable, record: Record, numbering: Numbering) -> Snapshot:
    """The snapshot after an update, which is also applied to ``memtable``."""
    segments = tuple(part.without(record.ids) for part in snapshot.segments)
    if record.kind == "put":
        memtable.put(record.ids, record.vectors, record.fields)
    else:
        memtable.delete(record.ids)
    return replace(snapshot, id_kind=numbering.kind, segments=segments, memtable=memtable.view())


def _load(root: Path, before: State | None) -> Loaded:
    manifest = load_manifest(root, None if before is None else before.manifest.files)
    settings, terms = manifest.settings, manifest.terms
    content = read_log(manifest.log(root), terms.format, terms.fields)
    segments = _read_segments(root, manifest, before)
    memtable = Memtable(terms)
    snapshot = Snapshot(terms, settings.id_kind, segments, memtable.view())
    numbering = Numbering(settings.id_kind, settings.next_id)
    for record in content.records:
        numbering = numbering.after(record)
        snapshot = apply(snapshot, memtable, record, numbering)
    messages = _messages(manifest.log(root).path, content)
    return Loaded(State(manifest, snapshot, numbering, messages, content.length), memtable, content)


def _read_segments(root: Path, manifest: IndexManifest, before: State | None) -> tuple[LiveSegment, ...]:
    live = read_deleted(root, manifest)
    read: dict[str, Segment] = {}
    if before is not None and before.manifest.settings.index == manifest.settings.index:
        read = {part.segment.record.name: part.segment for part in before.snapshot.segments}
    segments = [
        read[record.name].recorded(record)
        if record.name in read
        else load_segment(root, record, manifest.terms)
        for record in manifest.settings.segments
    ]
    return tuple(LiveSegment(segment, rows) for segment, rows in zip(segments, live, strict=True))


def _messages(path: Path, content: LogContent) -> tuple[str, ...]:
    if not content.torn_bytes:
        return ()
    return (
        f"the last {content.torn_bytes} bytes of {path.name} are of an update that was "
        "cut off before it was acknowledged; they were dropped",
    )


def _manifest_bytes(root: Path) -> bytes:
    path = root / MANIFEST
    with reading_errors(path):
        return path.read_bytes() if path.is_file() else b""
