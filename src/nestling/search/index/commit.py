"""Writing the files of the next manifest of an index; readers see them once it is committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nestling.search.engine.engine import Engine
from nestling.search.index.files.manifest import IndexManifest
from nestling.search.index.files.segments import SEGMENTS, Rows, SegmentRecord, segment_name, write_segment
from nestling.search.index.files.wal import create_log
from nestling.search.index.snapshot.snapshot import LiveSegment
from nestling.search.index.snapshot.state import Numbering
from nestling.storage.artifact import FileRecord
from nestling.storage.durable import flush_folder, write_new
from nestling.storage.npy import npy_chunks


def write_files(
    root: Path,
    before: IndexManifest,
    kept: Sequence[LiveSegment],
    rows: Rows,
    numbering: Numbering,
    workers: int | None,
    built: Engine | None = None,
) -> tuple[IndexManifest, tuple[LiveSegment, ...]]:
    """Write and flush all files of the manifest after ``before``: new rows, deletions, an empty log."""
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
    manifest = _after(before, number, [part.segment.record for part in segments], files, numbering)
    if (deleted := write_deleted(root / manifest.deleted_name, segments)) is not None:
        manifest = replace(manifest, files={**files, manifest.deleted_name: deleted})
    create_log(manifest.log(root))
    flush_folder(root)
    return manifest, tuple(segments)


def _after(
    before: IndexManifest,
    number: int,
    records: list[SegmentRecord],
    files: dict[str, FileRecord],
    numbering: Numbering,
) -> IndexManifest:
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
