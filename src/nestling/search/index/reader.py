"""Reading an index: search at any size, lookups by id, and information about it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Whole, check
from nestling.cut import CutRule
from nestling.data.tables.fields.kinds import FieldKind, Value
from nestling.data.tables.table_ids import number_of
from nestling.elastic import Cost, resolve_each
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.search.exact.neighbours import Metric
from nestling.search.index.files.ids import Ids, check_kind, kind_of, name_ids, read_ids
from nestling.search.index.files.manifest import IndexManifest
from nestling.search.index.files.segments import Rows
from nestling.search.index.info import IndexInfo, describe
from nestling.search.index.intake import check_prefixes, read_queries
from nestling.search.index.snapshot.snapshot import Hits, Snapshot
from nestling.search.index.snapshot.state import State
from nestling.search.plan.frontier import measured_point
from nestling.search.plan.plan import Plan, Point
from nestling.search.where.argument import read_where

_MOST_FOUND = 1_000_000


class IndexReader:
    """The part of an index that changes nothing. Each call sees the index as it is at one moment.

    Attributes:
        folder: of the index.
        nesting: sizes it can be searched at.
    """

    folder: Path
    nesting: Nesting

    @property
    def _state(self) -> State:
        """The state that rows are read from; refused after ``close``."""
        raise NotImplementedError

    @property
    def _last_state(self) -> State:
        """The last state, also after ``close``."""
        raise NotImplementedError

    @property
    def generation(self) -> IndexManifest:
        """The old name of :attr:`manifest`."""
        warnings.warn(
            "AdaptiveIndex.generation is manifest now; the old name ends with nestling 0.3",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.manifest

    @property
    def manifest(self) -> IndexManifest:
        """The manifest on the disk: settings and files."""
        return self._last_state.manifest

    @property
    def plan(self) -> Plan:
        """The search plan."""
        return self.manifest.terms.plan

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return self.manifest.settings.dim

    @property
    def metric(self) -> Metric:
        """Metric of comparisons."""
        return self.manifest.settings.metric

    @property
    def rule(self) -> CutRule:
        """The cut rule of vectors given to the index."""
        return self.manifest.rule

    @property
    def encoder(self) -> str:
        """The name of the encoder; "" where it is unknown."""
        return self.manifest.settings.encoder

    @property
    def table(self) -> tuple[dict[str, Any], ...]:
        """Measured points of the index; empty before any were measured."""
        return self.manifest.settings.table

    def __len__(self) -> int:
        return len(self._last_state.snapshot)

    def __contains__(self, name: object) -> bool:
        ids = read_ids([name])
        check_kind(ids, self._state.numbering.kind)
        return bool(self._state.snapshot.has(ids)[0])

    def ids(self) -> Ids:
        """The ids of all rows, oldest segment first."""
        return self._state.snapshot.ids()

    def rows(self) -> Rows:
        """All rows: their ids, and block by block their vectors, after what the rule does before a cut.

        Codes are decoded.
        """
        rows, held = self._state.snapshot.rows(), self.manifest.terms.format
        return rows._replace(blocks=map(held.floats, rows.blocks))

    def vectors_of(self, ids: Any) -> NDArray[np.float32]:
        """The vectors ``Float32[ids, dim]`` of rows, after what the rule does before a cut.

        Codes are decoded.

        Raises:
            DataError: for ids of no row.
        """
        snapshot, names = self._found(ids)
        return snapshot.terms.format.floats(snapshot.held_of(names))

    @property
    def fields(self) -> dict[str, FieldKind]:
        """The fields of rows and their kinds."""
        return dict(self.manifest.settings.fields)

    @property
    def columns(self) -> dict[str, str]:
        """Names of the columns of the source table, by role."""
        return dict(self.manifest.settings.columns)

    def ids_like(self, ids: Ids | None) -> Ids | None:
        """Ids of a table as the index has them: numbers are texts where it has texts, and these numbers else.

        A file of numbers alone may hold texts, and one that has types may hold numbers as texts.
        """
        kind = self._state.numbering.kind
        if ids is None or kind is None or kind_of(ids) == kind:
            return ids
        if kind == "str":
            return ids.astype(np.str_)
        said = [number_of(name) for name in ids.tolist()]
        return ids if None in said else np.array(said, np.int64)

    def check_encoder(self, encoder: str) -> None:
        """Refuse to compare vectors of another encoder with those of the index; an unknown one ("") passes.

        Raises:
            ConfigError: for another encoder than that of the index.
        """
        self.manifest.check_identity(self.folder, encoder or None, None)

    def ids_where(self, where: Any) -> Ids:
        """The ids of the rows that meet a condition on their fields; see :meth:`search`."""
        condition = read_where(where, self.fields, id_column=self.columns.get("id"))
        return self._state.snapshot.ids_where(condition)

    def fields_of(self, ids: Any) -> list[dict[str, Value]]:
        """The fields of rows, by their ids.

        Raises:
            DataError: for ids of no row.
        """
        snapshot, names = self._found(ids)
        return snapshot.fields_of(names).records()

    def _found(self, given: Any) -> tuple[Snapshot, Ids]:
        """The present snapshot, and ids that it has."""
        snapshot, names = self._state.snapshot, read_ids(given)
        check_kind(names, snapshot.id_kind)
        missing = names[~snapshot.has(names)]
        if len(missing):
            raise DataError(f"{name_ids(missing, 'are')} not in the index")
        return snapshot, names

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        at: At = None,
        point: Point | str | None = None,
        recall: float | None = None,
        filter: Any = None,  # noqa: A002 - the word of the field
        where: Any = None,
        workers: int | None = None,
    ) -> Hits:
        """The ``k`` best rows of every query.

        Args:
            queries: ``Float[queries, dim]``, or their first ``at`` entries alone.
            k: number of rows, at least 1 and at most 1,000,000.
            at: the size to search at; no stage then reads a longer prefix, or more bits of codes.
            point: parameters of the search, or their text such as ``"nprobe=16,shortlist=200"``; by default
                the point that was chosen when the index was built or tuned.
            recall: in place of ``point``, the fastest that was measured to find this share.
            filter: ids that may be found, or flags: if ids are numbers, ``filter[i]`` is of the row with the
                id ``i``, and ids beyond its end are excluded; if strings, of row ``i`` of :meth:`ids`.
            where: a condition on the fields of rows, such as ``{"year": {"gte": 2020}, "brand": ["a", "b"]}``
                or ``"year>=2020 and brand in (a, b)"``; see
                :func:`~nestling.search.where.argument.read_where`.
            workers: threads.

        Raises:
            DataError: for queries or a filter that cannot be used.
            GranularityError: for a size outside the nesting.
            ConfigError: for a ``k`` out of range, a point and a recall at once, or a recall that was not
                measured.
        """
        if recall is not None:
            if point is not None:
                raise ConfigError(f"give recall={recall} or point={point}, not both")
            point = self.manifest.point_for(k, measured_point(self.table, recall))
        return next(iter(self._search(queries, k, (at,), point, filter, where, workers).values()))

    def _search(
        self,
        queries: Any,
        k: int,
        granularities: Iterable[At] | None,
        point: Point | str | None = None,
        allow: Any = None,
        where: Any = None,
        workers: int | None = None,
    ) -> dict[Granularity, Hits]:
        k = check("k", k, Whole(1, _MOST_FOUND))
        state, wanted = self._state, resolve_each(self.nesting, granularities)
        manifest, largest = state.manifest, max(g["dim"] for g in wanted)
        found = None if point is None else Point.of(point)
        asked = read_queries(queries, manifest.takes, manifest.settings.dim, largest)
        found = manifest.point_for(int(k)) if found is None else found
        if found is not None:  # of the plan, also where no segment is large enough yet to follow it
            manifest.terms.plan.check_point(found)
        check_prefixes(asked, manifest.rule, manifest.smallest_dim, "the queries")
        condition = read_where(where, manifest.settings.fields, id_column=manifest.settings.columns.get("id"))
        return {
            g: state.snapshot.search(
                asked, int(k), g, point=found, allow=allow, where=condition, workers=workers
            )
            for g in wanted
        }

    def __call__(self, queries: Any, /, at: At = None) -> Hits:
        """The ten best rows of every query at one size."""
        return self.search(queries, at=at)

    def forward_each(
        self, queries: Any, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Hits]:
        """The ten best rows at several sizes."""
        return self._search(queries, 10, granularities)

    def cost(self, at: At = None) -> Cost:
        """Multiply-adds of one query, bytes of all files a search reads, and of one vector."""
        return self._state.snapshot.cost(self.nesting.resolve(at))

    def info(self) -> IndexInfo:
        """The contents of the index, and its search plan."""
        return describe(self._last_state)
