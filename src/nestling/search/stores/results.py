"""Results of a store: the hits of a search, and batches of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.data.tables.fields.kinds import Value
from nestling.search.index.files.ids import Ids

Floats: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]
Metadata: TypeAlias = Mapping[str, Any]
"""Values of a row beside its vector: texts, numbers, truth values; None is the same as no field."""


@dataclass(frozen=True, eq=False)
class StoreHits:
    """The best rows of a store for one query, best first.

    Where fewer than ``k`` rows exist or are allowed, the lists are shorter. (The
    :class:`~nestling.search.index.snapshot.snapshot.Hits` of an index are rectangles of all queries, with -1
    and NaN in those places.)

    Args:
        ids: of the rows.
        scores: similarities, falling; with ``metric="euclidean"`` distances, rising.
        metadata: one dict per row, as :class:`Batch` has them; empty if they were not asked for.
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
