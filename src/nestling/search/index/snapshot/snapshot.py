"""A snapshot of an index, and its search: the hits of segments and memtable are merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nestling.data.tables.fields.columns import Columns, parts_of
from nestling.data.tables.fields.kinds import Value
from nestling.elastic import Cost
from nestling.errors import DataError
from nestling.granularity import Granularity
from nestling.search.exact.neighbours import Neighbours
from nestling.search.index.files.ids import NO_ID, IdKind, Ids, check_kind, read_ids
from nestling.search.index.files.row_format import Held
from nestling.search.index.files.segments import Rows, Segment, Terms
from nestling.search.index.snapshot.memtable import MemtableView
from nestling.search.plan.plan import Point
from nestling.search.where.condition import Condition
from nestling.search.where.matching import rows_meeting
from nestling.vectors.matrix import blocks_of

Mask = NDArray[np.bool_]
_MOST_MET = 0.5  # deleted rows that a query is expected to meet before they are kept out of its search


class _IdsAndScores(NamedTuple):
    ids: Ids
    scores: NDArray[np.float32]


class Hits(_IdsAndScores):
    """The best rows of every query, best first: a tuple of ids and scores that also knows the rows' fields.

    Attributes:
        ids: ``Int64[queries, k]`` or strings; -1 or "" where fewer than ``k`` rows exist or are allowed.
        scores: ``Float32[queries, k]``: similarities, falling; with ``metric="euclidean"`` distances,
            rising; NaN where there is no row.
    """

    _snapshot: Snapshot | None = None

    @classmethod
    def found_in(cls, source: Snapshot, ids: Ids, scores: NDArray[np.float32]) -> Hits:
        """Hits that look up fields where their rows were found."""
        hits = cls(ids, scores)
        hits._snapshot = source
        return hits

    @cached_property
    def fields(self) -> list[list[dict[str, Value]]]:
        """The fields of every row as they were when it was found: ``[queries][k]``, ``{}`` for no row.

        Raises:
            DataError: for hits that were made of others, with ids or scores that no search found.
        """
        if self._snapshot is None:
            raise DataError("these hits were changed after the search, so they know no fields; use fields_of")
        there = ~np.isnan(self.scores)
        records = iter(self._snapshot.fields_of(self.ids[there]).records())
        return [[next(records) if is_there else {} for is_there in row] for row in there.tolist()]

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process go ids, scores and fields, not the index."""
        is_known = self._snapshot is not None or "fields" in self.__dict__
        return Hits, tuple(self), {"fields": self.fields} if is_known else None


@dataclass(frozen=True)
class LiveSegment:
    """A segment and which of its rows are still there.

    Args:
        segment: the immutable rows.
        live: ``Bool[rows]``.
    """

    segment: Segment
    live: Mask

    @cached_property
    def live_count(self) -> int:
        """Rows that are found."""
        return int(np.count_nonzero(self.live))

    def without(self, ids: Ids) -> LiveSegment:
        """The same with the rows of these ids deleted."""
        rows = self.rows_of(ids)
        if not len(rows):
            return self
        live = self.live.copy()
        live[rows] = False
        return LiveSegment(self.segment, live)

    def rows_of(self, ids: Ids) -> NDArray[np.int64]:
        """Live rows of those ids that are here."""
        rows = self.segment.find(ids)
        rows = rows[rows >= 0]
        return rows[self.live[rows]]

    def search(
        self, search: Callable[..., Neighbours], queries: NDArray[np.float32], k: int, choose: Filter
    ) -> Neighbours | None:
        """The best rows that are there and allowed, by the engine's search; None where there are none."""
        chosen, deleted = choose.of(self.segment), len(self.segment) - self.live_count
        if chosen is None and deleted * k <= _MOST_MET * len(self.segment) and self.live_count >= k:
            found = search(queries, k)
            if not deleted:
                return found
            met = (~self.live[found.indices] | (found.indices < 0)).any(axis=1)
            if met.any():  # those queries again, for which deleted rows took places of others
                again = search(queries[met], k, allowed=self.live)
                found.indices[met], found.scores[met] = again.indices, again.scores
            return found
        allowed = self.allowed(choose)
        count = len(self.segment) if allowed is None else int(np.count_nonzero(allowed))
        return search(queries, min(k, count), allowed=allowed) if count else None

    def allowed(self, choose: Filter) -> Mask | None:
        """Rows that a search may find; None is all."""
        chosen = choose.of(self.segment)
        if self.live_count == len(self.segment):
            return chosen
        return self.live if chosen is None else self.live & chosen

    def has(self, ids: Ids) -> Mask:
        """Mask of the ids that have a live row here."""
        rows = self.segment.find(ids)
        found: Mask = (rows >= 0) & self.live[rows]
        return found


@dataclass(frozen=True)
class Snapshot:
    """An index at one moment. Nothing in it ever changes, so any number of threads may read it.

    Args:
        terms: the settings that all rows share.
        id_kind: the kind of the ids; None before the first row.
        segments: rows on disk.
        memtable: the newest rows.
    """

    terms: Terms
    id_kind: IdKind | None
    segments: tuple[LiveSegment, ...]
    memtable: MemtableView

    def __len__(self) -> int:
        return sum(part.live_count for part in self.segments) + self.memtable.live_count

    def ids(self) -> Ids:
        """The ids of all rows, segment by segment."""
        parts = [np.asarray(part.segment.ids)[part.live] for part in self.segments if part.live_count]
        if self.memtable.live_count:
            parts.append(self.memtable_ids[self.memtable.live])
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def ids_where(self, condition: Condition | None) -> Ids:
        """The ids of the rows that meet a condition; None is met by all."""
        if condition is None:
            return self.ids()
        masks = [part.live & part.segment.meeting(condition) for part in self.segments]
        parts = [
            part.segment.ids[mask] for part, mask in zip(self.segments, masks, strict=True) if mask.any()
        ]
        live = self.memtable.live & rows_meeting(condition, self.memtable.fields)
        if live.any():
            parts.append(self.memtable_ids[live])
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def has(self, ids: Ids) -> Mask:
        """Mask of the ids that have a row."""
        found = np.isin(ids, self.memtable_ids[self.memtable.live]) if self.memtable.live_count else None
        masks = [part.has(ids) for part in self.segments] + ([] if found is None else [found])
        return np.logical_or.reduce(masks) if masks else np.zeros(len(ids), np.bool_)

    def rows(self, segments: tuple[LiveSegment, ...] | None = None) -> Rows:
        """All live rows (of some of the segments, and those in memory), block by block."""
        chosen = self.segments if segments is None else segments
        part = Snapshot(self.terms, self.id_kind, chosen, self.memtable)
        return Rows(part.ids(), part._blocks(), part._field_parts())

    def fields_of(self, ids: Ids) -> Columns:
        """The fields of the rows of these ids, in their order; all missing where there is no row."""
        kinds, places = self.terms.fields, self._places(ids)
        nothing = Columns.empty(kinds, 1)
        found = [fields.take(rows) for fields, (_, rows) in zip(self.all_fields(), places, strict=True)]
        order = np.full(len(ids), sum(len(part) for part in found), np.int64)
        order[np.concatenate([there for there, _ in places])] = np.arange(order.max(initial=0))
        return Columns.joined([*found, nothing], kinds).take(order)

    def held_of(self, ids: Ids) -> Held:
        """The rows that are there, as they are held, done with what precedes a cut."""
        held = self.terms.format
        found = np.empty((len(ids), held.width), held.dtype)
        sources = [*(part.segment.vectors for part in self.segments), self.memtable.vectors]
        for vectors, (there, rows) in zip(sources, self._places(ids), strict=True):
            found[there] = held.pick(vectors, rows)
        return found

    def all_fields(self) -> list[Columns]:
        """The fields of each segment, and of the rows in memory, also of rows that are no longer found."""
        return [*(part.segment.fields for part in self.segments), self.memtable.fields]

    def _places(self, ids: Ids) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Places of the ids found and their rows, for each segment and the rows in memory."""
        rows = [np.where(part.has(ids), part.segment.find(ids), -1) for part in self.segments]
        rows.append(self.memtable.find(ids))
        return [(np.flatnonzero(some >= 0), some[some >= 0]) for some in rows]

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        at: Granularity,
        *,
        point: Point | None,
        allow: Any,
        where: Condition | None,
        workers: int | None,
    ) -> Hits:
        """The ``k`` best rows of all parts; queries are as wide as the vectors."""
        size: dict[str, Any] = {"dim": at["dim"], "bits": at.get("bits"), "workers": workers}
        choose = Filter.read(allow, self, where)
        found: list[tuple[Ids, Neighbours]] = []
        for part in self.segments:
            planned = part.segment.record.plan == self.terms.plan_text
            search = partial(part.segment.engine.search, point=point if planned else None, **size)
            neighbours = part.search(search, queries, k, choose)
            if neighbours is not None:
                found.append((part.segment.ids, neighbours))
        if self.memtable.live_count:
            allowed = choose.of_memtable(self.memtable_ids, self.memtable.fields)
            within = self._worst(found, k)
            newest = self.memtable.search(queries, k, allowed=allowed, within=within, **size)
            if newest is not None:
                found.append((self.memtable_ids, newest))
        return self._merge(found, len(queries), k)

    def _worst(self, found: list[tuple[Ids, Neighbours]], k: int) -> NDArray[np.float32] | None:
        """A score for each query that ``k`` rows reach already; None where there are not so many."""
        for _, neighbours in found:
            last = neighbours.indices[:, -1]
            if neighbours.indices.shape[1] == k and (last[0] if len(last) == 1 else last.min()) >= 0:
                return neighbours.scores[:, -1]
        return None

    @property
    def kept_bytes(self) -> int:
        """Bytes that searches keep in memory: all but the vectors on the disk."""
        stored = sum(part.segment.engine.cost().bytes_stored for part in self.segments)
        return int(stored + self.memtable.vectors.nbytes)

    def cost(self, at: Granularity) -> Cost:
        """Multiply-adds of one query at one size, bytes that are kept for it, and bytes of one vector."""
        dim, bits, rows = at["dim"], at.get("bits"), len(self.memtable.live)
        row_bytes = replace(self.terms.format, dim=dim, bits=bits).row_bytes
        costs = [part.segment.engine.cost(None, dim, bits) for part in self.segments]
        return Cost(
            flops=sum(cost.mflops for cost in costs) * 1e6 + rows * dim,
            size_bytes=sum(cost.bytes_stored + cost.bytes_on_disk for cost in costs) + rows * row_bytes,
            output_bytes=row_bytes,
        )

    def _merge(self, found: list[tuple[Ids, Neighbours]], queries: int, k: int) -> Hits:
        """Best rows of all parts; of equal scores the one of the older segment wins."""
        if len(found) == 1 and found[0][1].indices.shape[1] == k and found[0][1].indices.min() >= 0:
            names, only = found[0]
            return Hits.found_in(self, names[only.indices], only.scores)
        kind = self.id_kind or "int"
        no_ids, no_scores = np.full((queries, k), NO_ID[kind]), np.full((queries, k), np.nan, np.float32)
        ids = [np.where(n.indices >= 0, names[n.indices], NO_ID[kind]) for names, n in found]
        names = np.concatenate([*ids, no_ids], axis=1)
        scores = np.concatenate([*(n.scores for _, n in found), no_scores], axis=1)
        worst = np.inf  # places without a row come last
        keys = np.where(np.isnan(scores), worst, scores if self.terms.metric == "euclidean" else -scores)
        order = np.argsort(keys, axis=1, kind="stable")[:, :k]
        names, scores = np.take_along_axis(names, order, 1), np.take_along_axis(scores, order, 1)
        return Hits.found_in(self, names, scores)

    def _blocks(self) -> Iterator[Held]:
        held = self.terms.format
        for part in self.segments:
            for rows in blocks_of(part.segment.vectors):
                yield held.pick(part.segment.vectors, rows)[part.live[rows]]
        yield held.pick(self.memtable.vectors, self.memtable.live)

    def _field_parts(self) -> Iterator[Columns]:
        for part in self.segments:
            for columns in parts_of(part.segment.fields, np.flatnonzero(part.live)):
                yield columns.with_kinds(self.terms.fields)
        yield self.memtable.fields.take(np.flatnonzero(self.memtable.live))

    @cached_property
    def memtable_ids(self) -> Ids:
        """The ids of all rows in memory, also of those no longer found."""
        kind = np.str_ if self.id_kind == "str" else np.int64
        return self.memtable.names.astype(kind)


@dataclass(frozen=True)
class Filter:
    """The rows that a search may find: by their ids or numbers, and by their fields.

    Args:
        ids: different, in order; None is any.
        flags: ``Bool[numbers]``; None is any.
        where: on their fields; None is any.
    """

    ids: Ids | None = None
    flags: Mask | None = None
    where: Condition | None = None

    @classmethod
    def read(cls, given: Any, rows: Snapshot, where: Condition | None) -> Filter:
        """The filter that arguments name.

        Raises:
            DataError: for ids of another kind than the index has, or flags of another length or shape.
        """
        if given is None:
            return cls(where=where)
        if not isinstance(given, (set, frozenset)):
            array = np.asarray(given)
            if array.dtype.kind == "b":
                if array.ndim != 1 or (rows.id_kind == "str" and len(array) != len(rows)):
                    allowed = f"one for each of the {len(rows):,} rows" if rows.id_kind == "str" else "a list"
                    raise DataError(
                        f"flags in filter must be {allowed}, in the order of ids(), not of shape "
                        f"{array.shape}; give ids themselves, such as those of ids_where, or where="
                    )
                if rows.id_kind == "str":
                    return cls(ids=np.unique(rows.ids()[array]), where=where)
                return cls(flags=array, where=where)
        ids = read_ids(given, "the ids of a filter", any_order=True)
        check_kind(ids, rows.id_kind)
        return cls(ids=np.unique(ids), where=where)

    def of(self, segment: Segment) -> Mask | None:
        """Mask of the rows of a segment that are allowed; None is all."""
        met = None if self.where is None else segment.meeting(self.where)
        if self.ids is not None:
            allowed = np.zeros(len(segment), np.bool_)
            rows = segment.find(self.ids)
            allowed[rows[rows >= 0]] = True
        elif self.flags is not None:
            allowed = _flagged(self.flags, segment.ids, segment.first_number)
        else:
            return met
        return allowed if met is None else allowed & met

    def of_memtable(self, names: Ids, fields: Columns) -> Mask | None:
        """Mask of the rows in memory that are allowed; None is all."""
        met = None if self.where is None else rows_meeting(self.where, fields)
        if self.ids is not None:
            allowed = np.isin(names, self.ids)
        elif self.flags is not None:
            allowed = _flagged(self.flags, names, None)
        else:
            return met
        return allowed if met is None else allowed & met


def _flagged(flags: Mask, names: Ids, first: int | None) -> Mask:
    """The flags of these numbers, false beyond the end; of numbers that count up from ``first`` a slice."""
    allowed = np.zeros(len(names), np.bool_)
    if first is not None:
        part = flags[first : first + len(names)]
        allowed[: len(part)] = part
        return allowed
    inside = names < len(flags)
    allowed[inside] = flags[names[inside]]
    return allowed
