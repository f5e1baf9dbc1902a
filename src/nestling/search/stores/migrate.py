"""Copying vectors between indexes, stores and files, batch by batch, without encoding again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from nestling.arguments.constraints import Whole, check
from nestling.arguments.paths import home_path
from nestling.bits import MOST_ROWS
from nestling.cut import CutRule
from nestling.data.tables.fields.columns import Columns, parts_of
from nestling.data.tables.fields.kinds import FieldKind, Value
from nestling.encoders.reference import same_encoder, with_place
from nestling.errors import ConfigError, DataError
from nestling.granularity import Nesting
from nestling.process.blocks import blocks
from nestling.process.interrupts import on_interrupt
from nestling.process.progress import Progress
from nestling.search.exact.neighbours import Metric
from nestling.search.index.files.ids import Ids, kind_of
from nestling.search.index.index import AdaptiveIndex
from nestling.search.stores.changes import changes_of, gathered
from nestling.search.stores.database import DatabaseStore
from nestling.search.stores.layout import Layout, same_rule
from nestling.search.stores.results import Batch, Floats
from nestling.search.stores.urls import table_at
from nestling.storage.artifact import open_array, storage_errors
from nestling.storage.npy import write_npy
from nestling.vectors.stored import StoredVectors

_COSINE: Metric = "dot"  # metric of vectors from a file


@dataclass(frozen=True)
class Copied:
    """The result of a copy.

    Args:
        added: rows that the target did not have.
        changed: rows whose vector or metadata were others there.
        unchanged: rows that the target had already; they were read, not written.
        deleted: rows of the target that the source does not have, where that was asked for.
        extra: rows of the target that the source does not have, and that stayed.
        seconds: from the first row to the end, with the index of the target.
    """

    added: int
    changed: int
    unchanged: int
    deleted: int
    extra: int
    seconds: float

    @property
    def rows(self) -> int:
        """Rows of the source, all of which the target now has."""
        return self.added + self.changed + self.unchanged


def copy(
    source: DatabaseStore | AdaptiveIndex | StoredVectors,
    target: DatabaseStore,
    *,
    size: int = 1000,
    delete_missing: bool = False,
) -> Copied:
    """Make the target hold the rows of the source, with their metadata, and bring its index up to date.

    Rows that the target has already are compared, which takes a fraction of the time of writing them. So
    the same call resumes an interrupted copy, and a later copy writes only what changed.

    Args:
        source: another store, an index, or vectors from a file; made as those of the target are.
        target: store to copy to; rows of the same id are replaced where they differ.
        size: rows read and compared at a time.
        delete_missing: delete rows of the target that the source does not have, whoever wrote them.

    Returns:
        Numbers of rows added, changed, unchanged and deleted, and seconds.

    Raises:
        ConfigError: if sizes, cut rule, metric or encoder differ, or the target was made for other fields.
        DataError: for rows that cannot be used.
        StoreError: if a database fails; copied rows stay, and the same call resumes.
    """
    opened = _Source.of(source, check("size", size, Whole(1, 10_000)))
    _check_identity(opened, target.layout)
    _check_fields(opened, target.layout)
    prepared = opened.is_prepared or not same_rule(opened.rule, target.layout.rule)
    start, tally = time.perf_counter(), _Tally(target, prepared, keeps_names=delete_missing)
    progress = Progress("copying", opened.count, "rows")
    with on_interrupt(
        lambda: f"{progress.done:,} of {opened.count:,} rows are copied; run it again to resume"
    ):
        with progress:
            for batch in gathered(tally.to_write(opened.batches, progress), size):
                with progress.part(len(batch.ids)):
                    target.add(batch.ids, batch.vectors, batch.metadata, prepared=prepared)
        deleted = tally.delete_missing() if delete_missing else 0
        with Progress("building the index of the database"):
            target.optimize()
        extra = max(0, target.count() - sum(tally.counts))
    added, changed, unchanged = tally.counts
    return Copied(added, changed, unchanged, deleted, extra, time.perf_counter() - start)


class _Tally:
    """Goes through the rows of a source: selects those to write, and counts each kind."""

    def __init__(self, target: DatabaseStore, prepared: bool, *, keeps_names: bool) -> None:
        self._target = target
        self._rule = target.layout.rule.again if prepared else target.layout.rule
        self._names: set[Any] | None = set() if keeps_names else None
        self.counts = [0, 0, 0]

    def to_write(self, batches: Iterable[Batch], progress: Progress) -> Iterator[Batch]:
        """The rows that the target does not have as they are."""
        for batch in batches:
            found = changes_of(batch, self._target, self._rule)
            writes = found.new | found.changed
            for place, rows in enumerate((found.new, found.changed, ~writes)):
                self.counts[place] += int(rows.sum())
            if self._names is not None:
                self._names.update(batch.ids.tolist())
            progress.update(int((~writes).sum()))
            if writes.any():
                yield batch.where(writes)

    def delete_missing(self) -> int:
        """Delete the rows of the target that the source lacks; gives their number."""
        kept = self._names or set()
        gone = [name for ids in self._target.ids() for name in ids.tolist() if name not in kept]
        with Progress("deleting", len(gone), "rows"):
            self._target.delete(gone)
        return len(gone)


def read_store(store: DatabaseStore, folder: str | Path) -> StoredVectors:
    """All rows of a store as a saved folder of vectors, from which an index can be built again.

    They are as the store keeps them: the step before a cut is done, so the folder's rule names
    only what comes after it. Metadata become fields: of the kinds that the layout declares, or else of the
    kind that holds all values of a field.

    Raises:
        DataError: if the store is empty, or rows were added or deleted meanwhile.
        StorageError: if the folder cannot be written; nothing half-written remains.
    """
    layout, count = store.layout, store.count()
    if count == 0:
        raise DataError("the store is empty; there is nothing to copy")
    ids: list[Any] = []
    metadata: list[dict[str, Value]] = []

    def blocks() -> Iterator[Floats]:
        for batch in store.scan():
            ids.extend(batch.ids.tolist())
            metadata.extend(batch.metadata)
            yield batch.vectors

    target = home_path(folder)
    with storage_errors(target), _folder_beside(target) as temporary:
        path = Path(temporary) / "vectors.npy"
        write_npy(path, blocks(), (count, layout.dim), np.dtype(np.float32))
        values = open_array(path)
        fields = _columns(metadata, layout.fields)
        rule, encoder = layout.rule.again, layout.encoder
        StoredVectors(values, layout.nesting, rule, ids=ids, encoder=encoder, fields=fields).save(target)
    return StoredVectors.load(target)


@contextmanager
def _folder_beside(target: Path) -> Iterator[str]:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        yield temporary


def _columns(metadata: Sequence[Mapping[str, Value]], fields: Mapping[str, FieldKind]) -> Columns:
    names = fields or dict.fromkeys(name for tags in metadata for name in tags)
    lists = {name: [tags.get(name) for tags in metadata] for name in names}
    return Columns.read(lists, len(metadata), fields or None)


def export_index(
    source: AdaptiveIndex | StoredVectors,
    url: str,
    *,
    shortlist_dim: int | None = None,
    bits: int = 32,
    shortlist_bits: int | None = None,
    delete_missing: bool = False,
) -> Copied:
    """Copy an index, or vectors from a file, to the table that a URL names; it is made if there is none.

    The fields of the rows become metadata, and a new table declares them. A table that exists is made to
    follow the source, as by :func:`copy`.

    Args:
        source: index, or vectors, to copy.
        url: see :func:`~nestling.search.stores.urls.open_store`.
        shortlist_dim: prefix that the database searches first, one of the nesting's; by default the
            smallest that is at least a quarter of the full size, or the full one with one bit per entry.
        bits: of an entry of a new table: 32, or 16 for half precision.
        shortlist_bits: of an entry in the first stage of a new table: the same, or 1; the code is that of the
            source's cut rule, or else calibrated on its first 65,536 rows.
        delete_missing: delete rows of the table that the source does not have, whoever wrote them.

    Returns:
        Numbers of rows added, changed, unchanged and deleted, and seconds.

    Raises:
        GranularityError: for a ``shortlist_dim`` outside the nesting.
        ConfigError: if the table was made for other vectors, or the database does not have the precision.
        StoreError: if the database fails; calling again resumes.
    """
    opened = _Source.of(source, 1000)
    table = table_at(url)
    try:
        if table.read_layout() is None:
            rule = _with_code(source) if shortlist_bits == 1 else replace(opened.rule, code=None)
            layout = opened.layout(shortlist_dim, rule=rule, bits=bits, shortlist_bits=shortlist_bits)
            store = DatabaseStore.create(table, layout)
        else:
            store = DatabaseStore.open(table)
        return copy(source, store, delete_missing=delete_missing)
    finally:
        table.close()


@dataclass(frozen=True)
class _Source:
    """Rows with what has to be known of them; prepared ones are done with what precedes a cut."""

    nesting: Nesting
    rule: CutRule
    metric: Metric
    encoder: str
    ids: Any
    count: int
    is_prepared: bool
    batches: Iterator[Batch]
    fields: Mapping[str, FieldKind] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Any, size: int) -> _Source:
        if isinstance(given, AdaptiveIndex):
            info, rows = given.info(), given.rows()
            metric: Any = info.metric
            kind = info.id_kind or "int"
            batches = _batches(rows.ids, _parts(rows.blocks, size), rows.fields)
            encoder = with_place(info.encoder, given.folder)
            known = _dims(given.nesting), given.rule, metric, encoder, kind, len(given)
            return cls(*known, is_prepared=True, batches=batches, fields=given.fields)
        if isinstance(given, StoredVectors):
            ids: Ids = np.arange(len(given)) if given.ids is None else given.ids
            batches = _batches(ids, _parts(iter([given.values]), size), parts_of(given.fields))
            known = given.sizes, given.rule, _COSINE, given.encoder, kind_of(ids), len(given)
            return cls(*known, is_prepared=False, batches=batches, fields=given.fields.kinds)
        layout: Layout = given.layout
        known = layout.nesting, layout.rule, layout.metric, layout.encoder, layout.ids, given.count()
        return cls(*known, is_prepared=True, batches=given.scan(size), fields=layout.fields)

    def layout(
        self,
        shortlist_dim: int | None,
        *,
        rule: CutRule | None = None,
        bits: int = 32,
        shortlist_bits: int | None = None,
    ) -> Layout:
        """The layout of a table for these rows; with a rule that has the code, where bits need one."""
        sizes = self.nesting.sizes("dim")
        if shortlist_dim is None:
            least = sizes[-1] if shortlist_bits == 1 else sizes[-1] / 4
            shortlist_dim = next(size for size in sizes if size >= least)
        return Layout(
            self.nesting,
            shortlist_dim,
            rule=rule or self.rule,
            bits=bits,
            shortlist_bits=shortlist_bits,
            metric=self.metric,
            ids=self.ids,
            encoder=self.encoder,
            fields=self.fields,
        )


def _dims(nesting: Nesting) -> Nesting:
    return nesting.without("bits") if "bits" in nesting.axes else nesting


def _with_code(source: AdaptiveIndex | StoredVectors) -> CutRule:
    """The rule of a source, with a code that was calibrated on its first rows where it has none."""
    if source.rule.code is not None:
        return source.rule
    if isinstance(source, StoredVectors):
        return source.calibrated().rule
    sample, count = [], 0
    for block in source.rows().blocks:  # the step before a cut was done
        sample.append(np.asarray(block[: MOST_ROWS - count]))
        count += len(sample[-1])
        if count == MOST_ROWS:
            break
    code = source.rule.again.calibrated(np.concatenate(sample), encoder=source.info().encoder).needed_code
    return replace(source.rule, code=replace(code, before=source.rule.before))


def _check_identity(source: _Source, target: Layout) -> None:
    dim = source.nesting.full["dim"]
    rules = [source.rule, source.rule.again] if source.is_prepared else [source.rule]
    if (
        dim != target.dim
        or not same_encoder(source.encoder, target.encoder)
        or source.metric != target.metric
        or not any(same_rule(a, b) for a in rules for b in (target.rule, target.rule.again))
    ):
        raise ConfigError(
            f"{source.metric} vectors of {dim} dims of the encoder {source.encoder!r} under {source.rule} "
            f"cannot be copied to a table for {target.metric} vectors of {target.dim} dims of the encoder "
            f"{target.encoder!r} under {target.rule}; copy them to a new table: "
            "nestling index export INDEX --to URL"
        )


def _check_fields(source: _Source, target: Layout) -> None:
    other = {
        name: kind
        for name, kind in source.fields.items()
        if target.fields.get(name) not in (kind, "float" if kind == "int" else kind)
    }
    if target.fields and other:
        raise ConfigError(
            f"the table was made for the fields {_named(target.fields)}, and not for {_named(other)}; copy "
            "to a new table: nestling index export INDEX --to URL"
        )


def _named(fields: Mapping[str, FieldKind]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in fields.items())


def _parts(wide: Iterator[Floats], size: int) -> Iterator[Floats]:
    for block in wide:
        for rows in blocks(len(block), size):
            yield np.asarray(block[rows], np.float32)


def _batches(ids: Ids, parts: Iterator[Floats], fields: Iterable[Columns]) -> Iterator[Batch]:
    """Ids and fields beside vectors; the parts of fields are cut elsewhere, and may be none."""
    records = chain.from_iterable(part.records() for part in fields)
    start = 0
    for vectors in parts:
        found = list(islice(records, len(vectors))) or [{} for _ in vectors]
        metadata: list[dict[str, Value]] = [
            {name: v for name, v in each.items() if v is not None} for each in found
        ]
        yield Batch(np.asarray(ids[start : start + len(vectors)]), vectors, metadata)
        start += len(vectors)
