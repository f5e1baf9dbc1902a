"""The protocol of database adapters: a table of prepared vectors in one database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from nestling.data.tables.fields.kinds import Value
from nestling.errors import StoreError
from nestling.search.stores.layout import Layout
from nestling.search.stores.results import Bytes, Floats, StoreHits
from nestling.search.where.condition import Condition


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows as they go into a table.

    Args:
        ids: different, as strings.
        vectors: ``Float[n, dim]`` for every size of the layout, cut and normalised by its rule.
        metadata: one flat dict a row, without missing values.
        codes: ``UInt8[n, bytes]``, eight bits to a byte, where the first stage of the layout compares bits;
            rows that are read have none.
    """

    ids: list[str]
    vectors: dict[int, Floats]
    metadata: list[dict[str, Value]]
    codes: Bytes | None = None


@dataclass(frozen=True, eq=False)
class Request:
    """A search that was checked: every part of it can be met.

    Args:
        queries: ``Float[n, dim]`` at the sizes that the search uses, cut and normalised.
        k: rows wanted.
        shortlist: rows of the first stage, at ``shortlist_dim``; None compares all rows at ``rerank_dim``.
        shortlist_dim: size of the first stage.
        rerank_dim: size whose scores decide.
        ids: rows allowed; None allows all.
        where: a condition on the metadata of rows; None allows all.
        with_metadata: whether the hits are to have their metadata.
        codes: ``UInt8[n, bytes]`` of the queries, where a first stage compares bits; None where it compares
            vectors, or there is none.
    """

    queries: dict[int, Floats]
    k: int
    shortlist: int | None
    shortlist_dim: int
    rerank_dim: int
    ids: list[str] | None
    where: Condition | None
    with_metadata: bool = True
    codes: Bytes | None = None

    def __len__(self) -> int:
        return len(self.queries[self.rerank_dim])


class Table(Protocol):
    """One table of a database.

    Methods raise :class:`~nestling.errors.StoreBusyError` for temporary failures, which are retried, and
    :class:`~nestling.errors.StoreError` for others; no message contains a secret.
    """

    where: str
    """The database and the table for messages, without credentials."""

    @property
    def precisions(self) -> tuple[int, ...]:
        """The ``bits`` and ``shortlist_bits`` that a layout may have; a table without it has 32."""
        ...

    def read_layout(self) -> Layout | None:
        """The layout kept in the database, which the other methods go by; None if there is no such table."""
        ...

    def create(self, layout: Layout) -> None:
        """Make the table and keep the layout with it."""
        ...

    def upsert(self, rows: Rows) -> None:
        """Add or replace rows; doing it twice is doing it once."""
        ...

    def search(self, request: Request) -> list[StoreHits]:
        """One result per query, with ids as strings."""
        ...

    def delete(self, ids: list[str]) -> None:
        """Remove rows."""
        ...

    def present(self, ids: list[str]) -> set[str]:
        """Whether each of these ids exists."""
        ...

    def count(self) -> int:
        """Exact number of rows."""
        ...

    def fits(self, most: int) -> bool:
        """Whether there are at most so many rows; may not cost more than reading as many."""
        ...

    def scan(self, size: int, ids: list[str] | None = None) -> Iterator[Rows]:
        """All rows, or those of these ids, up to ``size`` at a time, with vectors at the full size alone."""
        ...

    def names(self, size: int) -> Iterator[list[str]]:
        """The ids of all rows, up to ``size`` at a time."""
        ...

    def optimize(self) -> None:
        """Build the index of the prefixes, and those of the fields that the layout declares."""
        ...

    def drop(self) -> None:
        """Remove the table."""
        ...

    def close(self) -> None:
        """Close what was opened for this table."""
        ...


def known(layout: Layout | None, where: str) -> Layout:
    """The layout of a table that is open; ``where`` names the table.

    Raises:
        StoreError: if it is not.
    """
    if layout is None:
        raise StoreError(f"{where} is not open; use DatabaseStore.open or create")
    return layout
