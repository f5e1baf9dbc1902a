"""RDMs at every prefix of a representation, in one pass over its dims."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.compare.rdms.rdms import RDMs
from nestling.cut import CutRule, check_vectors, prefix_blocks
from nestling.errors import require
from nestling.vectors.prefix import check_dims, prefix_norms, prepare


def prefix_rdms(
    x: Any, dims: Iterable[int], rule: CutRule = CutRule(), *, stimuli: Sequence[str] | None = None
) -> RDMs:
    """Euclidean distances of the leading entries of every row, one matrix per size, labelled by ``dim``.

    Args:
        x: ``Float[n, dim]``; never changed.
        dims: increasing sizes.
        rule: steps around a cut; under ``l2`` the order of the distances is that of the cosines.
        stimuli: names of the rows, ``"0"`` to ``"n-1"`` by default.

    Raises:
        DataError: for vectors or sizes that cannot be used; rows that ``l2`` cannot normalise are named.
        MissingExtraError: if scipy is not installed.

    >>> rdms = prefix_rdms([[3.0, 4.0, 0.0], [0.0, 4.0, 1.0], [3.0, 0.0, 9.0]], [1, 2], CutRule(after="none"))
    >>> rdms.vectors.tolist(), rdms.labels["dim"]
    ([[3.0, 0.0, 3.0], [3.0, 4.0, 5.0]], (1, 2))
    """
    sizes = tuple(dims)
    distances = np.stack(list(prefix_distances(x, sizes, rule)))
    return RDMs(distances, stimuli=stimuli, labels={"dim": sizes}, metric="euclidean")


def prefix_distances(x: Any, dims: Iterable[int], rule: CutRule = CutRule()) -> Iterator[NDArray[np.float32]]:
    """The matrices of :func:`prefix_rdms` in turn, each ``Float32[n(n-1)/2]`` in squareform order.

    Squared differences are summed block by block of coordinates. Those of normalised prefixes follow from
    them by ``|a/|a| - b/|b||^2 = (|a - b|^2 - (|a| - |b|)^2) / (|a| |b|)``, which keeps equal rows at 0.
    """
    vectors = check_vectors(x, "the vectors")
    sizes = check_dims(dims, vectors.shape[1])
    rows = prepare(vectors, sizes[-1], rule).astype(np.float64)
    distance = require("scipy.spatial.distance", "sklearn")
    first, second = np.triu_indices(len(rows), 1)
    squares = np.zeros(len(first))
    norms = prefix_norms(rows, sizes, "the vectors") if rule.after == "l2" else None
    for size, block in enumerate(prefix_blocks(sizes)):
        squares += distance.pdist(rows[:, block], "sqeuclidean")
        found = squares
        if norms is not None:
            a, b = norms[size, first], norms[size, second]
            found = np.maximum(squares - (a - b) ** 2, 0) / (a * b)
        yield np.sqrt(found).astype(np.float32)
