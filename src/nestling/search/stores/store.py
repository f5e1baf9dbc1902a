"""The contract of every store: the same few verbs on whatever database holds the vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nestling.data.tables.fields.kinds import Value
from nestling.search.index.files.ids import Ids
from nestling.search.stores.layout import Layout

Floats: TypeAlias = NDArray[np.float32]
Metadata: TypeAlias = Mapping[str, Any]
"""What a row carries beside its vector: texts, numbers, truth values; None is the same as no field."""


@dataclass(frozen=True, eq=False)
class Hits:
    """The best rows for one query, best first.

    Where fewer than ``k`` rows exist or are allowed, there are fewer: lists end, and nothing stands for what
    is missing. (The tables of an index are rectangular, and have -1 and NaN in those places.)

    Args:
        ids: what the rows are called.
        scores: similarities, falling; with ``metric="euclidean"`` distances, rising.
        metadata: one dict a row, as :class:`Batch` has them; empty if they were not asked for.
    """

    ids: list[Any]
    scores: Floats
    metadata: list[dict[str, Value]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of a store: ``Float[n, dim]`` as cut and normalised by its rule at the full size.

    The metadata of a row hold the fields that have a value.
    """

    ids: Ids
    vectors: Floats
    metadata: list[dict[str, Value]]

    def where(self, chosen: NDArray[np.bool_]) -> Batch:
        """The rows that are flagged, ``Bool[n]``."""
        kept = [tags for tags, is_chosen in zip(self.metadata, chosen, strict=True) if is_chosen]
        return Batch(self.ids[chosen], self.vectors[chosen], kept)


@runtime_checkable
class Store(Protocol):
    """Vectors in a database, searched at a prefix and re-ranked at a longer one.

    The laws that a store keeps are asked by ``nestling.testing.check_store``.
    """

    layout: Layout

    def add(
        self, ids: Any, vectors: Any, metadata: Sequence[Metadata] | None = None, *, prepared: bool = False
    ) -> None:
        """Add rows, or replace those of the same id; ``prepared`` ones come from another store."""
        ...

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
    ) -> list[Hits]:
        """The ``k`` best rows of every query."""
        ...

    def delete(self, ids: Any) -> None:
        """Remove rows; ids that there are not are none."""
        ...

    def count(self) -> int:
        """How many rows there are."""
        ...

    def present(self, ids: Any) -> NDArray[np.bool_]:
        """Which of these ids there are, ``Bool[n]``."""
        ...

    def scan(self, size: int = 1000, *, ids: Any = None) -> Iterator[Batch]:
        """All rows, or those of these ids, up to ``size`` at a time."""
        ...

    def ids(self, size: int = 1000) -> Iterator[Ids]:
        """The ids of all rows, up to ``size`` at a time."""
        ...

    def optimize(self) -> None:
        """Build the index of the prefixes, or bring it up to date; searching works without, row by row."""
        ...

    def drop(self) -> None:
        """Remove the table and everything in it, and close."""
        ...

    def close(self) -> None:
        """Let go of what nestling opened; a client that the user gave stays open."""
        ...
