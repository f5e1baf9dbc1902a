"""Information about an index, and its verification."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nestling.data.tables.fields.kinds import FieldKind
from nestling.search.index.files.segments import SegmentRecord
from nestling.search.index.snapshot.state import State, load


@dataclass(frozen=True)
class IndexInfo:
    """The content of an index and how it is searched.

    Args:
        rows: number of live rows.
        deleted: rows of segments that are no longer found and go with the next compaction.
        in_memory: rows of the memtable, which are in the write-ahead log and not in a segment yet.
        dim: entries of a vector.
        bits: of each entry of codes; None where floats are kept.
        row_bytes: of one vector, as it is kept.
        nesting: sizes it is searched at.
        cut: steps around a cut.
        metric: of comparisons.
        encoder: name of the encoder of the vectors.
        plan: of searches in large segments.
        id_kind: ``int`` or ``str``; None before the first row.
        generation: the number of the manifest; every commit adds one.
        segments: name, rows and plan of each.
        size_bytes: of all files, without the log.
        kept_bytes: memory of searches, without the vectors on the disk.
        table: measured points.
        default_point: the point of searches that name none, one of the table; empty for that of the plan.
        sampled: whether the table was measured with rows of the index as queries.
        reason: reason for the choice of the plan; empty where it was given.
        fields: of the rows, each with its type.
        columns: names of the columns of the source table.
    """

    rows: int
    deleted: int
    in_memory: int
    dim: int
    bits: int | None
    row_bytes: int
    nesting: str
    cut: dict[str, str]
    metric: str
    encoder: str
    plan: str
    id_kind: str | None
    generation: int
    segments: tuple[SegmentRecord, ...]
    size_bytes: int
    kept_bytes: int
    table: tuple[dict[str, Any], ...]
    default_point: str
    sampled: bool
    reason: str
    fields: dict[str, FieldKind]
    columns: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {**asdict(self), "segments": [record.model_dump() for record in self.segments]}


@dataclass(frozen=True)
class Verification:
    """The files and rows that were checked.

    Args:
        files: files read whole, of the size and sha256 of the manifest.
        size_bytes: of them.
        rows: number of live rows.
        updates: records in the log.
        messages: repairs that were made when the index was opened, or are due.
    """

    files: int
    size_bytes: int
    rows: int
    updates: int
    messages: tuple[str, ...]


def describe(state: State) -> IndexInfo:
    """A description of an index: rows, plan, bytes and settings."""
    manifest, snapshot = state.manifest, state.snapshot
    settings = manifest.settings
    return IndexInfo(
        rows=len(snapshot),
        deleted=sum(len(part.segment) - part.live_count for part in snapshot.segments),
        in_memory=snapshot.memtable.live_count,
        dim=settings.dim,
        bits=manifest.terms.bits,
        row_bytes=manifest.terms.format.row_bytes,
        nesting=str(manifest.nesting),
        cut=manifest.rule.without_code.to_json(),
        metric=settings.metric,
        encoder=settings.encoder,
        plan=settings.plan,
        id_kind=state.numbering.kind,
        generation=settings.generation,
        segments=settings.segments,
        size_bytes=sum(record.size_bytes for record in manifest.files.values()),
        kept_bytes=snapshot.kept_bytes,
        table=settings.table,
        default_point=settings.default_point,
        sampled=settings.sampled,
        reason=settings.reason,
        fields=settings.fields,
        columns=settings.columns,
    )


def verify_index(root: Path, opened: State) -> Verification:
    """Read and check every file of an index again.

    Raises:
        ArtifactError: for the first that is missing or altered.
    """
    loaded = load(root)
    manifest = loaded.state.manifest
    return Verification(
        files=len(manifest.files),
        size_bytes=sum(record.size_bytes for record in manifest.files.values()),
        rows=len(loaded.state.snapshot),
        updates=len(loaded.content.records),
        messages=tuple(dict.fromkeys((*opened.messages, *loaded.state.messages))),
    )
