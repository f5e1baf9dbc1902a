"""Segments: immutable rows with the engine that searches them, written once and then only read."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule
from nestling.data.tables.fields.columns import Columns, Kinds, Mask, parts_of, read_columns, write_columns
from nestling.data.tables.fields.kinds import FieldKind
from nestling.errors import ArtifactError, ConfigError, StorageError
from nestling.process.progress import Progress
from nestling.search.engine.engine import Engine, build
from nestling.search.exact.neighbours import Metric
from nestling.search.index.files.ids import Ids
from nestling.search.index.files.row_format import Held, RowFormat
from nestling.search.plan.plan import Plan
from nestling.search.stages.kinds.bits import Bits
from nestling.search.stages.kinds.flat import Flat
from nestling.search.where.condition import Condition
from nestling.search.where.matching import rows_meeting
from nestling.storage.artifact import FileRecord, open_array, write_file
from nestling.storage.durable import flush_folder, flush_tree, write_new
from nestling.storage.npy import npy_chunks
from nestling.storage.schema import SavedFields
from nestling.vectors.precision import Values

SEGMENTS = "segments"
_IDS = "ids.npy"
_ENGINE = "engine"
_FIELDS = "fields"
_BUILDING = "building.txt"
# Fewer rows are scanned faster than lists or codes could be trained on them, and with no loss.
_FEWEST_PLANNED = 1000
_ROWS_PER_CENTROID = 8
_ROWS_COMPARED = 1000
_CONDITIONS_KEPT = 8


class SegmentRecord(SavedFields):
    """A segment as the manifest lists it.

    Args:
        name: of its folder.
        rows: in it.
        plan: of its engine.
        whole: fields of which its files hold whole numbers, written before those of the index became floats.
    """

    name: str
    rows: int
    plan: str
    whole: tuple[str, ...] = ()


class Rows(NamedTuple):
    """Rows for a new segment: all ids, and block by block their vectors, as they are held, and fields."""

    ids: Ids
    blocks: Iterator[Held]
    fields: Iterable[Columns] = ()


@dataclass(frozen=True)
class Terms:
    """The settings that all segments of an index share.

    Args:
        dim: entries of a vector.
        rule: steps around a cut; stored vectors went through those before it.
        metric: of comparisons.
        plan: of segments that are large enough for it, with its sizes as numbers.
        seed: of all random choices while building.
        fields: of the rows, each with its type.
        bits: of each entry, of rows that are held as codes; None for floats.
    """

    dim: int
    rule: CutRule
    metric: Metric
    plan: Plan
    seed: int = 0
    fields: Kinds = field(default_factory=dict)
    bits: int | None = None

    @cached_property
    def format(self) -> RowFormat:
        """How rows are held."""
        return RowFormat(self.dim, self.rule, self.bits)

    @cached_property
    def plan_text(self) -> str:
        """The plan as text, as records have it."""
        return str(self.plan)

    def plan_for(self, rows: int) -> Plan:
        """The plan, or a plain scan at the size of its last stage where the rows are too few to train it."""
        return self.plan if rows >= _rows_to_train(self.plan) else self.plain_plan

    @cached_property
    def plain_plan(self) -> Plan:
        """An exact scan of what the last stage of the plan compares."""
        dim, bits = self.plan.answer_dim, self.plan.answer_bits
        return Plan(Flat(dim) if self.bits is None else Bits(dim, bits=bits or self.bits))


@dataclass(frozen=True)
class Segment:
    """Immutable rows, their ids and the engine over them.

    Args:
        record: their entry in the manifest.
        ids: ``Int64[rows]`` or strings.
        vectors: ``Float32[rows, dim]`` or codes, memory maps.
        engine: finds row numbers.
        fields: of the rows, memory maps; some hold whole numbers where those of the index are floats.
    """

    record: SegmentRecord
    ids: Ids
    vectors: Values
    engine: Engine
    fields: Columns

    def __len__(self) -> int:
        return len(self.ids)

    def under(self, kinds: Kinds) -> Segment:
        """The same, whose record says in which fields it holds whole numbers, in an index of these kinds."""
        held = self.fields.kinds
        whole = tuple(name for name, kind in kinds.items() if kind == "float" and held.get(name) == "int")
        return self.recorded(self.record.model_copy(update={"whole": whole}))

    def recorded(self, record: SegmentRecord) -> Segment:
        """The same under what a newer manifest says of it."""
        return self if record == self.record else replace(self, record=record)

    def find(self, ids: Ids) -> NDArray[np.int64]:
        """Row of each id, -1 where it is none of this segment."""
        if not len(ids) or ids.dtype.kind != self.ids.dtype.kind:
            return np.full(len(ids), -1, np.int64)
        names, rows = self._sorted
        places = np.minimum(np.searchsorted(names, ids), len(names) - 1)
        return np.where(names[places] == ids, rows[places], -1)

    def meeting(self, condition: Condition) -> Mask:
        """Rows that meet a condition; kept for the next searches, as the rows never change."""
        found = self._met.get(condition)
        if found is None:
            found = rows_meeting(condition, self.fields)
            while len(self._met) >= _CONDITIONS_KEPT:
                self._met.pop(next(iter(self._met)), None)
            self._met[condition] = found
        return found

    @cached_property
    def _met(self) -> dict[Condition, Mask]:
        return {}

    @cached_property
    def first_number(self) -> int | None:
        """The first id, where ids are numbers that count up by one, as they do if they are not given."""
        if self.ids.dtype.kind == "U" or not len(self.ids):
            return None
        first = int(self.ids[0])
        return first if np.array_equal(self.ids, np.arange(first, first + len(self.ids))) else None

    @cached_property
    def _sorted(self) -> tuple[Ids, NDArray[np.int64]]:
        """Ids in order and the row of each; made when first needed, as only updates and filters do."""
        order = np.argsort(self.ids, kind="stable")
        return np.asarray(self.ids)[order], order


def segment_name(generation: int) -> str:
    """The name of the segment that the manifest of this number adds."""
    return f"{generation:08d}"


def file_names(record: SegmentRecord, held: RowFormat) -> tuple[str, ...]:
    """The files that every segment has, by their names in the index."""
    return tuple(f"{SEGMENTS}/{record.name}/{file}" for file in (*held.files, _IDS))


def write_segment(
    root: Path, name: str, rows: Rows, terms: Terms, workers: int | None, built: Engine | None = None
) -> tuple[Segment, dict[str, FileRecord]]:
    """Write rows, build their engine, flush everything, and read it back as a segment.

    The rows pass through as a stream and are read again from the file as a memory map. Where an
    interrupted attempt built an engine over the same vectors, its build is resumed; where one was built
    elsewhere over these rows, its files are copied.

    Raises:
        ConfigError: if that engine is over other vectors.
    """
    folder = root / SEGMENTS / name
    (folder / _ENGINE).mkdir(parents=True, exist_ok=True)
    count, plan = len(rows.ids), terms.plan_for(len(rows.ids))
    held = terms.format.write(folder, _watched(rows.blocks, count), count)
    files = {
        **held,
        _IDS: write_new(folder / _IDS, npy_chunks([rows.ids], (count,), rows.ids.dtype)),
        **_write_fields(folder, rows.fields, terms.fields),
    }
    _begin_build(folder, f"{plan} {terms} {' '.join(file.sha256 for file in held.values())}")
    if built is not None and built.plan == plan:
        engine = _taken_over(built, folder, terms)
    else:
        engine = _build(folder, plan, terms, workers)
    engine.save(folder / _ENGINE)
    (folder / _BUILDING).unlink()
    record = SegmentRecord(name=name, rows=count, plan=str(plan))
    files = _flushed(root, folder, files)
    return load_segment(root, record, terms), files


def is_being_built(folder: Path) -> bool:
    """Whether the build of a segment's engine, which takes longest, was interrupted and can be resumed."""
    return (folder / _BUILDING).is_file()


def copy_segment(
    segment: Segment, root: Path, terms: Terms, small: RowFormat
) -> tuple[SegmentRecord, dict[str, FileRecord]]:
    """Write a segment into the folder of another index, cut to a format that may be smaller."""
    folder = root / SEGMENTS / segment.record.name
    (folder / _ENGINE).mkdir(parents=True)
    count, ids, held = len(segment), np.asarray(segment.ids), terms.format
    blocks = (held.cut(rows, small) for rows in held.blocks(segment.vectors))
    files = {
        **small.write(folder, blocks, count),
        _IDS: write_new(folder / _IDS, npy_chunks([ids], (count,), ids.dtype)),
        **_write_fields(folder, parts_of(segment.fields), terms.fields),
    }
    engine = segment.engine
    if small != held:
        scratch = folder / "scratch"  # the engine writes the vectors that it reads once more
        scratch.mkdir()
        engine = engine.extract(small.dim, scratch, bits=small.bits)
        shutil.rmtree(scratch)
    engine.save(folder / _ENGINE)
    record = SegmentRecord(name=segment.record.name, rows=count, plan=str(engine.plan))
    return record, _flushed(root, folder, files)


def load_segment(root: Path, record: SegmentRecord, terms: Terms) -> Segment:
    """Read a segment whose files were verified.

    Raises:
        ArtifactError: if the files are not of the size that the manifest says.
    """
    folder = root / SEGMENTS / record.name
    vectors = terms.format.open(folder)
    ids = open_array(folder / _IDS)
    if vectors.shape != (record.rows, terms.dim) or ids.shape != (record.rows,):
        raise ArtifactError(
            f"{folder} holds vectors of shape {vectors.shape} and {len(ids)} ids, but its index says "
            f"{(record.rows, terms.dim)}; restore a backup of the folder"
        )
    engine = Engine.load(folder / _ENGINE, vectors, Plan.parse(record.plan), terms.rule, terms.metric)
    kinds: dict[str, FieldKind] = {**terms.fields, **dict.fromkeys(record.whole, "int")}
    fields = read_columns(folder / _FIELDS, kinds, record.rows)
    return Segment(record, np.asarray(ids), vectors, engine, fields)  # picking from a memory map takes longer


def _write_fields(folder: Path, parts: Iterable[Columns], kinds: Kinds) -> dict[str, FileRecord]:
    if not kinds:
        return {}
    shutil.rmtree(folder / _FIELDS, ignore_errors=True)  # of an attempt that was interrupted
    write_columns(folder / _FIELDS, parts, kinds)
    return {f"{_FIELDS}/{name}": record for name, record in flush_tree(folder / _FIELDS).items()}


def _taken_over(engine: Engine, folder: Path, terms: Terms) -> Engine:
    """An engine that was built elsewhere, if it is over the vectors of this folder."""
    vectors = terms.format.open(folder)
    rows = np.linspace(0, len(vectors) - 1, min(len(vectors), _ROWS_COMPARED)).astype(np.int64)
    same = engine.vectors.shape == vectors.shape and (engine.rule.after, engine.metric) == (
        terms.rule.after,
        terms.metric,
    )
    if not same or not np.array_equal(np.asarray(engine.vectors[rows], np.float32), vectors[rows]):
        raise ConfigError(
            "the engine that was given is over other vectors, or has another metric; give the one "
            "that was built over these, or none"
        )
    return engine


def _build(folder: Path, plan: Plan, terms: Terms, workers: int | None) -> Engine:
    try:
        return build(
            plan,
            terms.format.open(folder),
            rule=terms.rule,
            metric=terms.metric,
            seed=terms.seed,
            workers=workers,
            folder=folder / _ENGINE,
        )
    except StorageError as error:
        # It says that the finished part is kept; an index gives its space back, for updates to be possible.
        raise error.__cause__ if isinstance(error.__cause__, OSError) else error from error


def _begin_build(folder: Path, identity: str) -> None:
    """Mark the folder as being built, and drop what an attempt at another build left."""
    marker = folder / _BUILDING
    if not marker.is_file() or marker.read_text(encoding="utf-8", errors="replace") != identity:
        shutil.rmtree(folder / _ENGINE)
        (folder / _ENGINE).mkdir()
        write_file(marker, identity)


def _flushed(root: Path, folder: Path, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
    """All files of a segment, on the disk with their names."""
    engine = {f"{_ENGINE}/{name}": record for name, record in flush_tree(folder / _ENGINE).items()}
    for place in (folder, folder.parent, root):
        flush_folder(place)
    prefix = folder.relative_to(root).as_posix()
    return {f"{prefix}/{name}": record for name, record in (files | engine).items()}


def _watched(blocks: Iterable[Any], count: int) -> Iterator[Any]:
    with Progress("writing vectors", count, "rows") as progress:
        for block in blocks:
            yield block
            progress.update(len(block))


def _rows_to_train(plan: Plan) -> int:
    return max(_FEWEST_PLANNED, *(_ROWS_PER_CENTROID * stage.centroids for stage in plan.stages()))
