"""Copies of an index, whole or of the leading entries alone."""

from __future__ import annotations

import tempfile
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nestling.data.tables.fields.columns import Columns
from nestling.granularity import Granularity
from nestling.search.index.commit import write_deleted
from nestling.search.index.create import new_folder
from nestling.search.index.files.manifest import IndexManifest, commit_manifest
from nestling.search.index.files.segments import copy_segment
from nestling.search.index.files.wal import HEADER_BYTES, LogContent, LogWriter, Record, create_log
from nestling.search.index.snapshot.state import State
from nestling.storage.artifact import storage_errors
from nestling.storage.durable import discard, flush_folder
from nestling.storage.owner import Owner
from nestling.vectors.precision import extracted_rule


def write_copy(state: State, root: Path, at: Granularity) -> None:
    """Write the index as it is in ``state`` to another folder, cut to ``at``.

    Raises:
        ArtifactError: if the folder holds anything.
        StorageError: if it cannot be written; nothing is left of it then.
    """
    with new_folder(root) as lock:
        with storage_errors(root):
            manifest = _write_files(state, root, at)
        commit_manifest(root, manifest)
        lock.release()


def write_temporary_copy(state: State, at: Granularity) -> Path:
    """:func:`write_copy` to the only folder in a new temporary one, which the caller removes."""
    temporary = Path(tempfile.mkdtemp(prefix="nestling-"))
    try:
        write_copy(state, temporary / "index", at)
    except BaseException:
        discard(temporary)
        raise
    return temporary / "index"


def remove_temporary_copy(copy: Path, owner: Owner) -> None:
    """Remove what :func:`write_temporary_copy` made; a fork leaves it to the process that made it."""
    if owner.is_here:
        discard(copy.parent)


def _write_files(state: State, root: Path, at: Granularity) -> IndexManifest:
    snapshot, manifest = state.snapshot, _described(state, at)
    held, small = snapshot.terms.format, manifest.terms.format
    copied = [copy_segment(part.segment, root, snapshot.terms, small) for part in snapshot.segments]
    files = {name: file for _, written in copied for name, file in written.items()}
    records = tuple(record for record, _ in copied)
    manifest = replace(manifest, settings=manifest.settings.model_copy(update={"segments": records}))
    if (deleted := write_deleted(root / manifest.deleted_name, snapshot.segments)) is not None:
        files[manifest.deleted_name] = deleted
    manifest = replace(manifest, files=files)
    log = manifest.log(root)
    create_log(log)
    rows = snapshot.rows(())
    if len(rows.ids):
        vectors = held.cut(np.concatenate(list(rows.blocks)), small)
        writer = LogWriter(log, LogContent((), HEADER_BYTES, 0))
        writer.append(
            Record("put", rows.ids, vectors, Columns.joined(list(rows.fields), snapshot.terms.fields))
        )
        writer.close()
    flush_folder(root)
    return manifest


def _described(state: State, at: Granularity) -> IndexManifest:
    """The manifest of a copy, before its files are written."""
    before, dim = state.manifest, at["dim"]
    changes: dict[str, Any] = {
        "index": uuid.uuid4().hex,
        "dim": dim,
        "id_kind": state.numbering.kind,
        "next_id": state.numbering.next_id,
    }
    rule = before.rule
    if at != before.nesting.full:  # figures measured on the whole say nothing about the part
        changes |= {"plan": str(before.terms.plan.cut(dim, at.get("bits"))), "table": ()}
    if dim < before.settings.dim:
        rule = extracted_rule(before.rule, at)
        sources = tuple((width, each.to_json()) for width, each in before.takes.items())
        changes |= {"sources": sources}
    settings = before.settings.model_copy(update=changes)
    return IndexManifest(before.nesting.up_to(at), rule, settings, {})
