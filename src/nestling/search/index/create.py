"""Making the folder of an index, and opening it for changes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule
from nestling.data.tables.fields.columns import Columns, Kinds, parts_of
from nestling.errors import ArtifactError, ConfigError, DataError, GranularityError, unknown
from nestling.granularity import Nesting
from nestling.search.engine.engine import Engine
from nestling.search.exact.neighbours import Metric
from nestling.search.index.commit import write_files
from nestling.search.index.files.ids import check_new_ids
from nestling.search.index.files.manifest import Generation, IndexSettings, leftovers, strangers, switch
from nestling.search.index.files.segments import SEGMENTS, Rows, is_being_built, segment_name
from nestling.search.index.intake import as_matrix, prepared_blocks
from nestling.search.index.snapshot.state import Loaded, Numbering, load
from nestling.search.index.writer import Writer
from nestling.search.plan.plan import Plan
from nestling.search.stages.table import sliceable_names
from nestling.storage.artifact import MANIFEST, storage_errors
from nestling.storage.durable import discard, flush_folder
from nestling.storage.lock import WriterLock, check_wait
from nestling.vectors.matrix import Sizes, read_sizes
from nestling.vectors.stored import StoredVectors


def create_index(
    root: Path,
    vectors: Any,
    ids: Any,
    *,
    plan: Plan | str,
    dim: int | None,
    nesting: Sizes,
    rule: CutRule | None,
    metric: Metric,
    encoder: str | None,
    seed: int,
    workers: int | None,
    engine: Engine | None,
    fields: Any,
    kinds: Kinds | None,
    columns: Mapping[str, str] | None,
) -> tuple[WriterLock, Loaded]:
    """Make an index and hold the right to write into it; for the arguments see ``AdaptiveIndex.create``."""
    is_asked = nesting is not None
    if isinstance(vectors, StoredVectors):
        ids = vectors.ids if ids is None else ids
        nesting = vectors.nesting if nesting is None else nesting
        rule = vectors.rule if rule is None else rule
        encoder = vectors.encoder if encoder is None else encoder
        fields = vectors.fields if fields is None else fields
        columns = vectors.columns if columns is None else columns
        vectors = vectors.values
    matrix = None if vectors is None else as_matrix(vectors, "the vectors", dim)
    if matrix is None and dim is None:
        raise ConfigError("an index without vectors needs to know their size; give dim=")
    if matrix is None and fields is not None:
        raise DataError("fields are of rows, and no vectors are given; say what they will hold with kinds=")
    full = dim if matrix is None else matrix.shape[1]
    _check_lists(plan, matrix)
    resolved = (Plan.parse(plan) if isinstance(plan, str) else plan).resolve(full or 0)
    sizes = _sizes(nesting, full or 0, resolved, is_asked=is_asked)
    before = _nothing(full or 0, resolved, sizes, rule or CutRule(), metric, encoder or "", seed)
    given = Columns.read(fields, 0 if matrix is None else len(matrix), kinds)
    settled = {"fields": dict(given.kinds if kinds is None else kinds), "columns": dict(columns or {})}
    before = replace(before, settings=before.settings.model_copy(update=settled))
    rows, numbering = _first_rows(matrix, ids, given, before)
    with new_folder(root) as lock:
        with storage_errors(root):
            generation, _ = write_files(root, before, [], rows, numbering, workers, engine)
        switch(root, generation)
        return lock, load(root)


def open_index(
    root: Path, encoder: str | None, rule: CutRule | None, wait: float, log_bytes: int, workers: int | None
) -> Writer:
    """Hold the right to write into an index, and read it; for the arguments see ``AdaptiveIndex.open``."""
    check_wait(wait)
    with storage_errors(root):
        is_index = (root / MANIFEST).is_file()
    if not is_index:
        load(root)  # says what is wrong; a lock would leave its file in a folder that is no index
    lock = WriterLock(root, wait=wait)
    try:
        loaded = load(root)
        loaded.state.generation.check_identity(root, encoder, rule)
        return Writer(root, lock, loaded, log_bytes=log_bytes, workers=workers)
    except BaseException:
        lock.release()
        raise


@contextmanager
def new_folder(root: Path) -> Iterator[WriterLock]:
    """A folder that the caller fills, locked. What an interrupted attempt left in it is removed first.

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
            error.add_note(f"what was built of the index is kept in {root}; repeat it to go on")
        raise


def _leave(root: Path, lock: WriterLock | None, *, is_new: bool, resume: bool) -> None:
    """Remove what was written, except for a build that was interrupted and can go on."""
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


def _nothing(
    dim: int, plan: Plan, nesting: Nesting, rule: CutRule, metric: Metric, encoder: str, seed: int
) -> Generation:
    """The generation before the first: no rows and no files."""
    if metric not in get_args(Metric):
        raise ConfigError(unknown("metric", metric, get_args(Metric)))
    settings = IndexSettings(
        index=uuid.uuid4().hex,
        generation=0,
        dim=dim,
        metric=metric,
        encoder=encoder,
        plan=str(plan),
        seed=seed,
        sources=(),
        id_kind=None,
        next_id=0,
        segments=(),
        table=(),
    )
    return Generation(nesting, rule, settings, {})


def _check_lists(plan: Plan | str, matrix: NDArray[np.floating[Any]] | None) -> None:
    """A plan that the first rows cannot fill is a mistake; later segments may be smaller."""
    coarse = (Plan.parse(plan) if isinstance(plan, str) else plan).coarse
    if matrix is None or coarse is None:
        return
    try:
        coarse.check_rows(len(matrix))
    except ConfigError as error:
        raise ConfigError(f"{error}, or make the index empty with dim= and add to it") from error


def _sizes(given: Sizes, dim: int, plan: Plan, *, is_asked: bool) -> Nesting:
    """The sizes to search at; none below what a code reads that mixes its entries.

    Those that vectors come with are what they could be searched at, not what is asked of this index.
    """
    sizes = read_sizes(given, dim)
    if sizes.full["dim"] != dim:
        raise GranularityError(
            f"the nesting {sizes} must end at {dim}, the size of the vectors; add {dim} to it"
        )
    smallest = plan.smallest_dim
    large = [size for size in sizes.sizes("dim") if size >= smallest]
    if is_asked and len(large) < len(sizes):
        raise ConfigError(
            f"the code {plan.scan} mixes {smallest} entries, so that sizes below cannot be searched; leave "
            f"them out of the nesting {sizes}, or scan with {', '.join(sliceable_names())}"
        )
    return Nesting.chain(dim=large)


def _first_rows(
    matrix: NDArray[np.floating[Any]] | None, ids: Any, fields: Columns, before: Generation
) -> tuple[Rows, Numbering]:
    start = Numbering(None, 0)
    if matrix is None:
        return Rows(np.zeros(0, np.int64), iter(())), start
    names = np.arange(len(matrix)) if ids is None else check_new_ids(ids, len(matrix))
    blocks = prepared_blocks(matrix, before.rule, before.smallest_dim)
    return Rows(names, blocks, parts_of(fields)), start.after_put(names)
