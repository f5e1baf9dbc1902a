"""Untrained baselines: a model that does not beat them is not worth its training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Real, checked
from nestling.data.interactions.interactions import Interactions, Rows
from nestling.domains.recommend.items import Items
from nestling.domains.recommend.ranking import Scorer
from nestling.errors import require

Scores = NDArray[np.float32]


class Popularity:
    """Each item scores the number of its known events.

    Args:
        items: the catalogue.
        known: events before those that are asked for.
    """

    def __init__(self, items: Items, known: Interactions) -> None:
        counts = np.bincount(known.rows_in(items.ids), minlength=len(items))
        self.counts = counts.astype(np.float32)

    def scores(self, histories: Interactions, rows: slice) -> Scores:
        """See :class:`~nestling.domains.recommend.ranking.Scorer`."""
        return np.broadcast_to(self.counts, (rows.stop - rows.start, len(self.counts)))


class NextCounts:
    """Each item scores how often it came directly after the user's last item.

    Args:
        items: the catalogue.
        known: events before those that are asked for.
    """

    def __init__(self, items: Items, known: Interactions) -> None:
        events, follows = known.rows_in(items.ids), known.positions[1:] > 0
        self.items = items
        self.counts = _sparse(len(items), events[:-1][follows], events[1:][follows])

    def scores(self, histories: Interactions, rows: slice) -> Scores:
        """See :class:`~nestling.domains.recommend.ranking.Scorer`."""
        return np.asarray(self.counts[_last(self.items, histories)[rows]].toarray(), np.float32)


class TextCosine:
    """Each item scores the cosine of its features with those of the user's last item.

    Args:
        items: the catalogue.
        feature: name of the features.
    """

    def __init__(self, items: Items, feature: str = "text") -> None:
        self.items, self.unit = items, _unit(items.feature(feature))

    def scores(self, histories: Interactions, rows: slice) -> Scores:
        """See :class:`~nestling.domains.recommend.ranking.Scorer`."""
        found: Scores = self.unit[_last(self.items, histories)[rows]] @ self.unit.T
        return found


class TextAndCounts:
    """Each item scores how often its buyers bought items of the history, and how alike their features are.

    The co-occurrence of two items is the number of users with both, over the square root of the product of
    their numbers of users. Earlier items of the history count less.

    Args:
        items: the catalogue.
        known: events before those that are asked for.
        feature: name of the features.
        decay: factor of each step back in the history, above 0 and at most 1.
        feature_weight: factor of the cosine of features beside the co-occurrence.
    """

    @checked(decay=Real(above=0, most=1), feature_weight=Real(least=0))
    def __init__(
        self,
        items: Items,
        known: Interactions,
        feature: str = "text",
        *,
        decay: float = 0.8,
        feature_weight: float = 0.3,
    ) -> None:
        self.items, self.unit = items, _unit(items.feature(feature))
        self.decay, self.feature_weight = decay, feature_weight
        users = np.repeat(np.arange(known.users), known.lengths)
        bought = _sparse(known.users, users, known.rows_in(items.ids), len(items))
        bought.data[:] = 1
        together = (bought.T @ bought).tocoo()
        buyers = np.maximum(np.asarray(bought.sum(axis=0)).ravel(), 1)
        others = together.row != together.col
        row, col = together.row[others], together.col[others]
        values = together.data[others] / np.sqrt(buyers[row] * buyers[col])
        self.together = _sparse(len(items), row, col, len(items), values)

    def scores(self, histories: Interactions, rows: slice) -> Scores:
        """See :class:`~nestling.domains.recommend.ranking.Scorer`."""
        events, (first, last) = histories.rows_in(self.items.ids), histories.offsets[[rows.start, rows.stop]]
        lengths = histories.lengths[rows]
        age = np.repeat(lengths, lengths) - 1 - histories.positions[first:last]
        users = np.repeat(np.arange(len(lengths)), lengths)
        weights = _sparse(len(lengths), users, events[first:last], len(self.items), self.decay**age)
        found: Scores = (weights @ self.together).toarray()
        found += (self.feature_weight * (weights @ self.unit)) @ self.unit.T
        return found


def untrained(items: Items, known: Interactions, feature: str | None = "text") -> dict[str, Scorer]:
    """All baselines by name; those with features only if there are any.

    Args:
        items: the catalogue.
        known: events before those that are asked for: at a test the histories, with what was validated.
        feature: name of the features; None leaves them out.

    Raises:
        DataError: for features that the catalogue does not have.
        MissingExtraError: if scipy is not installed.
    """
    found: dict[str, Scorer] = {
        "popularity": Popularity(items, known),
        "next counts": NextCounts(items, known),
    }
    if feature is not None:
        found[f"{feature} cosine"] = TextCosine(items, feature)
        found[f"{feature} and co-occurrence"] = TextAndCounts(items, known, feature)
    return found


def _last(items: Items, histories: Interactions) -> Rows:
    """The row of the last item of each user."""
    return histories.rows_in(items.ids)[histories.offsets[1:] - 1]


def _sparse(height: int, rows: Rows, columns: Rows, width: int | None = None, values: Any = None) -> Any:
    """A sparse matrix in rows; entries that are named several times are summed."""
    sparse = require("scipy.sparse", "sklearn")
    data = np.ones(len(rows), np.float32) if values is None else np.asarray(values, np.float32)
    made = sparse.csr_matrix((data, (rows, columns)), shape=(height, width or height))
    made.sum_duplicates()  # scipy 1.13 keeps them apart
    return made


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit
