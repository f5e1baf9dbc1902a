"""Creating the folder of an index, and opening one for changes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from nestling.cut import CutRule
from nestling.data.tables.fields.columns import parts_of
from nestling.errors import ArtifactError
from nestling.search.engine.engine import Engine
from nestling.search.index.commit import write_files
from nestling.search.index.files.ids import check_new_ids
from nestling.search.index.files.manifest import (
    IndexManifest,
    IndexSettings,
    commit_manifest,
    leftovers,
    strangers,
)
from nestling.search.index.files.segments import SEGMENTS, Rows, is_being_built, segment_name
from nestling.search.index.intake import held_blocks
from nestling.search.index.snapshot.state import Loaded, Numbering, load
from nestling.search.index.spec import IndexSpec
from nestling.search.index.writer import Writer
from nestling.storage.artifact import MANIFEST, storage_errors
from nestling.storage.durable import discard, flush_folder
from nestling.storage.lock import WriterLock, check_wait
from nestling.vectors.stored import StoredVectors


def create_index(
    root: Path,
    spec: IndexSpec,
    rows: StoredVectors | None,
    *,
    workers: int | None = None,
    engine: Engine | None = None,
) -> tuple[WriterLock, Loaded]:
    """Make an index and hold the right to write into it.

    Args:
        root: its folder.
        spec: the specification.
        rows: the first, if any.
        workers: threads that build.
        engine: built over these very rows by the plan, to be copied.
    """
    before = _nothing(spec)
    first, numbering = _first_rows(rows, before)
    with new_folder(root) as lock:
        with storage_errors(root):
            manifest, _ = write_files(root, before, [], first, numbering, workers, engine)
        commit_manifest(root, manifest)
        return lock, load(root)


def open_index(
    root: Path, encoder: str | None, rule: CutRule | None, wait: float, log_bytes: int, workers: int | None
) -> Writer:
    """Hold the right to write into an index, and read it; for the arguments see ``AdaptiveIndex.open``."""
    check_wait(wait)
    with storage_errors(root):
        is_index = (root / MANIFEST).is_file()
    if not is_index:
        load(root)  # raises the right error; a lock would leave its file in a folder that is no index
    lock = WriterLock(root, wait=wait)
    try:
        loaded = load(root)
        loaded.state.manifest.check_identity(root, encoder, rule)
        return Writer(root, lock, loaded, log_bytes=log_bytes, workers=workers)
    except BaseException:
        lock.release()
        raise


@contextmanager
def new_folder(root: Path) -> Iterator[WriterLock]:
    """A folder that the caller fills, locked. The files of an interrupted attempt are removed first.

    Raises:
        ArtifactError: if it holds anything else.
        StorageError: if it cannot be made.
    """
    with storage_errors(root):
        is_new = not root.exists()
        is_taken = not is_new and (not root.is_dir() or (root / MANIFEST).exists() or bool(strangers(root)))
    if is_taken:
        raise ArtifactError(
            f"{root} exists and is not empty, so no index is written there; choose another folder, or open "
            "the index if it is one"
        )
    lock = None
    try:
        with storage_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            flush_folder(root.parent)
        lock = WriterLock(root)
        for path in leftovers(root, None, resume=True):
            discard(path)
        yield lock
    except BaseException as error:
        _leave(root, lock, is_new=is_new, resume=not isinstance(error, Exception))
        if isinstance(error, KeyboardInterrupt) and is_being_built(root / SEGMENTS / segment_name(1)):
            error.add_note(f"the finished part of the index is kept in {root}; run it again to resume")
        raise


def _leave(root: Path, lock: WriterLock | None, *, is_new: bool, resume: bool) -> None:
    """Remove what was written, except for an interrupted build that can be resumed."""
    if lock is None:
        if is_new:
            with suppress(OSError):  # not empty: another writer made it meanwhile
                root.rmdir()
        return
    for path in leftovers(root, None, resume=resume):
        discard(path)
    segments = root / SEGMENTS
    if is_new and not (segments.is_dir() and any(segments.iterdir())):
        discard(root)
    lock.release()


def _nothing(spec: IndexSpec) -> IndexManifest:
    """The manifest before the first commit: no rows and no files."""
    settings = IndexSettings(
        index=uuid.uuid4().hex,
        generation=0,
        dim=spec.dim,
        metric=spec.metric,
        encoder=spec.encoder,
        plan=str(spec.plan),
        seed=spec.seed,
        sources=spec.sources,
        id_kind=None,
        next_id=0,
        segments=(),
        table=(),
        fields=dict(spec.fields),
        columns=dict(spec.columns),
    )
    return IndexManifest(spec.nesting, spec.rule, settings, {})


def _first_rows(rows: StoredVectors | None, before: IndexManifest) -> tuple[Rows, Numbering]:
    start = Numbering(None, 0)
    if rows is None:
        return Rows(np.zeros(0, np.int64), iter(())), start
    names = np.arange(len(rows)) if rows.ids is None else check_new_ids(rows.ids, len(rows))
    blocks = held_blocks(rows.values, before.takes, before.smallest_dim, before.terms.format)
    return Rows(names, blocks, parts_of(rows.fields)), start.after_put(names)
