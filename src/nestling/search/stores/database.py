"""A store over any table: it checks, cuts, batches and retries, so adapters need not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Whole, check
from nestling.arguments.formatting import shown
from nestling.bits import check_halves
from nestling.cut import CutRule, check_vectors, cut_each
from nestling.errors import ArtifactError, ConfigError, DataError, StoreError
from nestling.process.blocks import blocks
from nestling.process.progress import Progress
from nestling.search.index.files.ids import Ids, check_kind, check_new_ids, read_ids
from nestling.search.stores.adapter import Request, Rows, Table
from nestling.search.stores.layout import Layout, check_identity
from nestling.search.stores.metadata import read_condition, read_metadata
from nestling.search.stores.results import Batch, Metadata, StoreHits
from nestling.search.stores.retry import Answer, with_retries
from nestling.storage.owner import Owner
from nestling.vectors.prefix import prefix_norms, prepare

_FLOATS_SENT_AT_A_TIME = 1 << 20
_MOST_ROWS_SENT = 5000
_QUERIES_AT_A_TIME = 100
_MOST_K = 10_000


class DatabaseStore:
    """Vectors in a database, searched at a prefix and re-ranked at a longer one.

    Vectors are treated by the cut rule before they go in, so ``scan`` gives them normalised where the rule
    says so. Made by :meth:`create` or :meth:`open`, or from a URL by
    :func:`~nestling.search.stores.urls.create_store` and ``open_store``. ``with`` closes it. Threads need a
    store each: connections are not shared well.
    """

    def __init__(self, table: Table, layout: Layout) -> None:
        self._table = table
        self.layout = layout
        self._owner = Owner(table.where)
        self._is_closed = False

    @classmethod
    def create(cls, table: Table, layout: Layout) -> Self:
        """Make a table that does not exist yet.

        Raises:
            ArtifactError: if there is one of that name.
            ConfigError: for a precision that the database does not have.
            StoreError: if the database cannot be reached or refuses.
        """
        _check_precisions(table, layout)
        if with_retries(table.read_layout) is not None:
            raise ArtifactError(f"{table.where} exists; open it, or drop it first")
        table.create(layout)
        return cls(table, layout)

    @classmethod
    def open(cls, table: Table, *, encoder: str | None = None, rule: CutRule | None = None) -> Self:
        """Use a table that exists.

        Args:
            table: in which database, and what it is called.
            encoder: name of the encoder of the queries; None trusts the caller.
            rule: the cut rule that the caller expects; None takes the one of the table.

        Raises:
            ArtifactError: if there is none, or nestling did not make it.
            ConfigError: if it was made for another encoder or cut rule.
            StoreError: if the database cannot be reached or refuses.
        """
        layout = with_retries(table.read_layout)
        if layout is None:
            raise ArtifactError(
                f"{table.where} does not exist; create it, or fill it with: "
                "nestling index export INDEX --to URL"
            )
        check_identity(layout, table.where, encoder=encoder, rule=rule)
        return cls(table, layout)

    def __repr__(self) -> str:
        return f"DatabaseStore({self._table.where}, {self.layout})"

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(
        self, ids: Any, vectors: Any, metadata: Sequence[Metadata] | None = None, *, prepared: bool = False
    ) -> None:
        """Add rows, or replace those of the same id, in batches that are each written whole.

        Args:
            ids: unique, of the layout's kind.
            vectors: ``Float[n, dim]``, before the cut rule; a memory map is read batch by batch.
            metadata: one flat dict a row, for ``where=`` and for the hits: texts, whole numbers of up to 64
                bits, floats, truth values, numpy's too; None is the same as no value.
            prepared: the vectors went through what the rule does before the cut, as those of ``scan`` did.

        Raises:
            DataError: for vectors, ids or metadata that cannot be used; nothing was written then.
            StoreError: if the database fails; the batches before it were written, and adding the same
                rows again is safe.
        """
        self._check_open()
        matrix = check_vectors(vectors, "vectors", dim=self.layout.dim)
        names = self._names(check_new_ids(ids, len(matrix)))
        tags = read_metadata(metadata, len(matrix), self.layout.fields)
        rule = self.layout.rule.again if prepared else self.layout.rule
        self._check_lengths(matrix, rule)
        layout = self.layout
        step = max(1, min(_MOST_ROWS_SENT, _FLOATS_SENT_AT_A_TIME // sum(layout.dims)))
        with Progress("adding", len(matrix), "rows") as progress:
            for part in blocks(len(matrix), step):
                block = np.asarray(matrix[part], np.float32)
                vectors_kept = cut_each(block, layout.dims, rule)
                rows = Rows(names[part], vectors_kept, tags[part], layout.codes(block, rule))
                self._ask(partial(self._table.upsert, rows))
                progress.update(len(block))

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        shortlist: int | None = 200,
        rerank_dim: int | None = None,
        ids: Any = None,
        where: Any = None,
        with_metadata: bool = True,
    ) -> list[StoreHits]:
        """The ``k`` best rows of every query: a shortlist at a prefix, put in order at a longer one.

        Args:
            queries: ``Float[n, dim]``, before the cut rule.
            k: rows wanted, 1 to 10,000.
            shortlist: rows of the first stage, at least ``k``; None, or as many as there are rows,
                compares all rows at ``rerank_dim`` and so is exact.
            rerank_dim: size whose scores decide, one of ``layout.dims``; the full one by default.
            ids: rows allowed; None allows all.
            where: the condition on the metadata of a row, as
                :func:`~nestling.search.where.argument.read_where` takes
                it: ``{"year": {"gte": 2020}, "brand": ["a", "b"]}``, or the same in words. The database
                filters while it searches.
            with_metadata: give the metadata of the hits, too.

        Returns:
            One :class:`~nestling.search.stores.results.StoreHits` per query, shorter than ``k``
            if fewer rows exist or are allowed.

        Raises:
            DataError: for queries, ids or a condition that cannot be used.
            ConfigError: for a ``k``, shortlist or size that is no whole number, out of range or not kept.
            StoreError: if the database fails.
        """
        self._check_open()
        matrix = np.asarray(check_vectors(queries, "queries", dim=self.layout.dim), np.float32)
        k, shortlist, size = self._check_search(k, shortlist, rerank_dim)
        wanted = read_condition(where, self.layout.fields)
        allowed = None if ids is None else self._names(read_ids(ids, any_order=True))
        if allowed == []:
            return [StoreHits([], np.zeros(0, np.float32)) for _ in matrix]
        if shortlist is not None and self._ask(partial(self._table.fits, shortlist)):
            shortlist = None
        in_bits = shortlist is not None and self.layout.has_codes
        dims = {size} if shortlist is None or in_bits else {self.layout.shortlist_dim, size}
        found: list[StoreHits] = []
        for part in blocks(len(matrix), _QUERIES_AT_A_TIME):
            block = cut_each(matrix[part], sorted(dims), self.layout.rule)
            codes = self.layout.codes(matrix[part], self.layout.rule) if in_bits else None
            asked = self.layout.shortlist_dim, size, allowed, wanted, with_metadata, codes
            found += self._answers(Request(block, k, shortlist, *asked))
        return [replace(hits, ids=self._called(hits.ids).tolist()) for hits in found]

    def _answers(self, request: Request) -> list[StoreHits]:
        """Beam search may miss rows behind those that a filter forbids; such queries are repeated exactly."""
        hits = self._ask(partial(self._table.search, request))
        short = [row for row, found in enumerate(hits) if len(found) < request.k]
        if request.shortlist is None or not short:
            return hits
        queries = {request.rerank_dim: request.queries[request.rerank_dim][short]}
        again = replace(request, queries=queries, shortlist=None, codes=None)
        for row, found in zip(short, self._ask(partial(self._table.search, again)), strict=True):
            hits[row] = found
        return hits

    def delete(self, ids: Any) -> None:
        """Remove rows; unknown ids are ignored."""
        self._check_open()
        names = self._names(read_ids(ids, any_order=True))
        for part in blocks(len(names), _MOST_ROWS_SENT):
            self._ask(partial(self._table.delete, names[part]))

    def count(self) -> int:
        """Exact number of rows."""
        return self._ask(self._table.count)

    def present(self, ids: Any) -> NDArray[np.bool_]:
        """Whether each of these ids exists, ``Bool[n]``."""
        self._check_open()
        names = self._names(read_ids(ids))
        found: set[str] = set()
        for part in blocks(len(names), _MOST_ROWS_SENT):
            found |= self._ask(partial(self._table.present, names[part]))
        return np.array([name in found for name in names], dtype=bool)

    def scan(self, size: int = 1000, *, ids: Any = None) -> Iterator[Batch]:
        """All rows, up to ``size`` at a time, with vectors as the rule leaves them at the full size.

        Args:
            size: rows at a time.
            ids: these rows alone, in any order; unknown ids are ignored.
        """
        self._check_open()
        size = check("size", size, Whole(1, _MOST_K))
        return self._batches(size, None if ids is None else self._names(read_ids(ids, any_order=True)))

    def _batches(self, size: int, names: list[str] | None) -> Iterator[Batch]:
        for rows in self._table.scan(size) if names is None else self._of_names(size, names):
            yield Batch(self._called(rows.ids), rows.vectors[self.layout.dim], rows.metadata)
            self._check_open()

    def _of_names(self, size: int, names: list[str]) -> Iterator[Rows]:
        for part in blocks(len(names), size):
            yield from self._ask(partial(self._read, names[part]))

    def _read(self, names: list[str]) -> list[Rows]:
        return list(self._table.scan(len(names), names))

    def ids(self, size: int = 1000) -> Iterator[Ids]:
        """The ids of all rows, up to ``size`` at a time; vectors and metadata are not read."""
        self._check_open()
        return self._all_ids(check("size", size, Whole(1, _MOST_K)))

    def _all_ids(self, size: int) -> Iterator[Ids]:
        for names in self._table.names(size):
            yield self._called(names)
            self._check_open()

    def optimize(self) -> None:
        """Build the index of the prefixes and those of the declared fields, or bring them up to date.

        Do it once after the first rows; without it a search compares the prefixes of all rows.
        """
        self._ask(self._table.optimize)

    def drop(self) -> None:
        """Remove the table and everything in it, and close."""
        self._check_open()
        self._table.drop()
        self.close()

    def close(self) -> None:
        """Close what nestling opened; a client that the user gave stays open. Twice is fine.

        Any other call is then refused. A fork leaves it to the process that opened it: closing a connection
        in one closes it in the other.
        """
        if self._owner.is_here and not self._is_closed:
            self._table.close()
        self._is_closed = True

    def _ask(self, action: Callable[[], Answer]) -> Answer:
        """One call of the database, tried again."""
        self._check_open()
        return with_retries(action)

    def _check_open(self) -> None:
        """Refuse calls after ``close``, and in a fork, which must not use its parent's connections."""
        self._owner.check()
        if self._is_closed:
            raise StoreError(f"{self._table.where} was closed; open it again")

    def _names(self, ids: Ids) -> list[str]:
        check_kind(ids, self.layout.ids)
        names = [str(name) for name in ids.tolist()]
        for name in names:
            _check_text(name, "ids")
        return names

    def _called(self, names: list[str]) -> Ids:
        if self.layout.ids == "str":
            return np.array(names, dtype=np.str_)
        for name in names:
            if not (name.isdecimal() and name.isascii() and str(int(name)) == name and int(name) < 2**63):
                raise StoreError(
                    f"{self._table.where} holds a row called {name!r}, but its ids are whole numbers; "
                    "another program wrote it: give it a number there, or delete it"
                )
        return np.array(names, dtype=np.int64)

    def _check_search(self, k: Any, shortlist: Any, rerank_dim: Any) -> tuple[int, int | None, int]:
        k = check("k", k, Whole(1, _MOST_K))
        remedy = f"a shortlist has at least k={k}, and None compares all rows"
        shortlist = check("shortlist", shortlist, Whole(k, _MOST_K, hint=remedy) | None)
        size = self.layout.dim if rerank_dim is None else rerank_dim
        if isinstance(size, bool) or size not in self.layout.dims:
            raise ConfigError(
                f"rerank_dim={shown(size)} is not kept in this table; choose one of "
                f"{', '.join(map(str, self.layout.dims))}"
            )
        return k, shortlist, int(size)

    def _check_lengths(self, matrix: NDArray[Any], rule: CutRule) -> None:
        """Before anything is written: of the sizes kept, the smallest is the first to be all zero."""
        small = self.layout.dims[0]
        if self.layout.bits == 16 and rule.after != "l2":
            check_halves(matrix)
        if rule.after == "l2":
            for part in blocks(len(matrix), max(1, _FLOATS_SENT_AT_A_TIME // matrix.shape[1])):
                rows = prepare(np.asarray(matrix[part]), small, rule)
                prefix_norms(rows, [small], "the vectors", first_row=part.start)


def _check_precisions(table: Table, layout: Layout) -> None:
    offered = getattr(table, "precisions", (32,))
    for name in ("bits", "shortlist_bits"):
        if getattr(layout, name) not in offered:
            raise ConfigError(
                f"{table.where} cannot be made with {name}={getattr(layout, name)}; here it is one of "
                f"{', '.join(map(str, offered))}"
            )


def _check_text(text: str, what: str) -> None:
    """Databases keep text as UTF-8 and not all of them a null character."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"{what} must be Unicode text without null characters, not {text!r}")
