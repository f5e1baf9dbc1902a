"""The catalogue: the items that can be recommended, with texts and features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.arrays import as_array
from nestling.arguments.ids import Ids, as_ids, check_different
from nestling.cut import name_rows
from nestling.data.interactions.interactions import Rows, places_of
from nestling.errors import DataError, unknown


@dataclass(frozen=True, eq=False)
class Items:
    """The items that can be recommended.

    Args:
        ids: ``[items]``, whole numbers or strings, all different.
        texts: of the items, if they are known.
        features: ``Float[items, size]`` by name, such as vectors of texts or pictures.

    Raises:
        DataError: for ids that repeat, texts or features of another number than the items, or features with
            NaN or rows of zeros (named).

    >>> items = Items(["tea", "cup"], features={"text": np.eye(2)})
    >>> len(items), items.rows(["cup"]).tolist()
    (2, [1])
    """

    ids: Ids
    texts: Sequence[str] | None = None
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    _order: Rows = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ids = as_ids(self.ids, "item ids")
        check_different(ids, len(ids))
        if not len(ids):
            raise DataError("the catalogue has no items; give at least one")
        if self.texts is not None and len(self.texts) != len(ids):
            raise DataError(f"{len(self.texts)} texts are given for {len(ids)} items; give one for each")
        features = {name: _read(name, given, len(ids)) for name, given in self.features.items()}
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "_order", np.argsort(ids, kind="stable"))

    def __len__(self) -> int:
        return len(self.ids)

    def places(self, ids: Ids) -> Rows:
        """The row of each id; -1 for those that the catalogue does not have."""
        return places_of(ids, self.ids, self._order)

    def rows(self, ids: Any) -> Rows:
        """The row of each id.

        Raises:
            DataError: for ids that the catalogue does not have (named).
        """
        given = as_ids(ids, "item ids")
        rows = self.places(given)
        if (rows < 0).any():
            lacking = list(dict.fromkeys(given[rows < 0].tolist()))
            raise DataError(
                f"the catalogue has no item {', '.join(map(repr, lacking[:3]))}"
                + (f" and {len(lacking) - 3} others" if len(lacking) > 3 else "")
                + '; add them, or skip them with unknown="skip"'
            )
        return rows

    def feature(self, name: str) -> NDArray[np.float32]:
        """The features called ``name``.

        Raises:
            DataError: if there are none.
        """
        if name not in self.features:
            raise DataError(unknown("feature", name, self.features))
        return self.features[name]


def _read(name: str, given: ArrayLike, count: int) -> NDArray[np.float32]:
    x = np.asarray(as_array(given, f"features {name!r}"), np.float32)
    if x.ndim != 2 or len(x) != count:
        raise DataError(
            f"features {name!r} have the shape {x.shape}, and there are {count} items; give one row for each"
        )
    for wrong, what in (
        (~np.isfinite(x).all(axis=1), "NaN or infinite entries"),
        (~x.any(axis=1), "zeros alone"),
    ):
        if wrong.any():
            raise DataError(
                f"features {name!r} have {what} in {name_rows(np.flatnonzero(wrong))}; repair them, or leave "
                "these items out"
            )
    return x
