"""The best items of each user."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.ids import Ids
from nestling.data.interactions.interactions import Rows
from nestling.errors import DataError


class Recommendations(NamedTuple):
    """The best items of each user, the best first.

    Args:
        ids: ``[users, k]``.
        scores: ``Float32[users, k]``.
    """

    ids: Ids
    scores: NDArray[np.float32]


def best_items(
    scores: NDArray[np.float32], k: int, users: NDArray[np.int64]
) -> tuple[Rows, NDArray[np.float32]]:
    """The places and scores of the ``k`` best items of each row; of equal scores the first."""
    left = np.isfinite(scores).sum(axis=1)
    if (left < k).any():
        worst = int(left.argmin())
        raise DataError(
            f"k={k} items are asked for, but {left[worst]} are left for user {users[worst]} without the "
            "history and what is not allowed; ask for fewer"
        )
    places = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    best = np.take_along_axis(scores, places, axis=1)
    order = np.lexsort((places, -best), axis=1)
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(best, order, axis=1)
