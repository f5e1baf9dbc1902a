"""Distances from RDMs to class centroids, computed from inner products alone.

All that nearest centroids need of the vectors is their Gram matrix. It is computed once; leaving each subject
out, permuting labels and leaving a further subject out are then sums over its entries.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Distance = Literal["euclidean", "correlation", "cosine"]


def gram(vectors: NDArray[np.floating[Any]], distance: Distance) -> Floats:
    """Inner products ``Float[..., m, m]`` of ``Float[..., m, pairs]``, centred as ``distance`` wants it."""
    x = np.array(vectors, np.float64)
    if distance == "euclidean":
        x -= x.mean(axis=-2, keepdims=True)  # moves no point against another, and saves digits
    elif distance == "correlation":
        x -= x.mean(axis=-1, keepdims=True)
    return np.asarray(x @ x.swapaxes(-1, -2))


def held_out_distances(products: Floats, members: Floats, same: Flags, distance: Distance) -> Floats:
    """From every matrix to the centroid of every class over the OTHER subjects, ``Float[..., m, classes]``.

    Args:
        products: ``Float[..., m, m]`` of :func:`gram`.
        members: ``Float[..., m, classes]``, 1 where a matrix is of a class.
        same: ``Bool[m, m]``, pairs of matrices of one subject.
        distance: between vector and centroid. A vector of length 0 has no direction: it is at 1 from all.

    Returns:
        NaN where no other subject has the class.
    """
    every, own = products @ members, np.where(same, products, 0) @ members
    other = every - own  # with the sum of the class over the other subjects
    counts = members.sum(axis=-2, keepdims=True) - same @ members
    # The square of that sum: all pairs, less those with one end at the subject, which both halves count.
    squares = members * every
    norms = squares.sum(axis=-2, keepdims=True) - 2 * (same @ squares) + same @ (members * own)
    lengths = np.diagonal(products, axis1=-2, axis2=-1)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        if distance == "euclidean":
            found = np.sqrt(np.maximum(lengths - 2 * other / counts + norms / counts**2, 0))
        else:
            scale = np.sqrt(lengths * np.maximum(norms, 0))
            found = 1 - np.where(scale > 0, other / scale, 0)
    return np.where(counts > 0, found, np.nan)


def pair_distances(products: Floats, distance: Distance) -> Floats:
    """Distances ``Float[m, m]`` between the vectors themselves."""
    lengths = np.diagonal(products)
    if distance == "euclidean":
        return np.sqrt(np.maximum(lengths[:, None] + lengths - 2 * products, 0))
    scale = np.sqrt(np.outer(lengths, lengths))
    return np.asarray(1 - np.divide(products, scale, out=np.zeros_like(products), where=scale > 0))


def nearest_class(distances: Floats, class_of: Ints) -> Ints:
    """The class with the nearest centroid, ``Int[..., m]``; -1 where a matrix cannot be scored.

    It cannot where no other subject has its class: then no answer would be right. The first of equally
    near classes is taken.
    """
    places = np.broadcast_to(class_of[..., None], (*distances.shape[:-1], 1))
    own = np.take_along_axis(distances, places, axis=-1)[..., 0]
    nearest = np.where(np.isnan(distances), np.inf, distances).argmin(axis=-1)
    return np.where(np.isnan(own), -1, nearest)


def share_right(found: Ints, class_of: Ints) -> Floats:
    """Accuracy over the scored items, ``Float[...]``; NaN where none was scored."""
    scored = np.count_nonzero(found >= 0, axis=-1)
    right = np.count_nonzero(found == class_of, axis=-1)
    return np.asarray(np.where(scored > 0, right / np.maximum(scored, 1), np.nan))


def distance_ratios(distances: Floats, members: Floats, same: Flags, subject_of: Ints) -> Floats:
    """Mean distance within a class over that across classes, to other subjects, ``Float[subjects, classes]``.

    Args:
        distances: ``Float[m, m]`` of :func:`pair_distances`.
        members: ``Float[m, classes]``.
        same: ``Bool[m, m]``.
        subject_of: ``Int[m]``.

    Returns:
        NaN where a subject has no matrix of the class, or no other subject has one, or has others.

    Source: Lin and Kriegeskorte 2023, identification of layers and areas.
    """
    subjects = (subject_of == np.arange(subject_of.max() + 1)[:, None]).astype(np.float64)
    sums, counts = np.where(same, 0, distances) @ members, (~same) @ members
    within = subjects @ (members * sums), subjects @ (members * counts)
    across = (
        subjects @ (members * (sums.sum(axis=1, keepdims=True) - sums)),
        subjects @ (members * (counts.sum(axis=1, keepdims=True) - counts)),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((within[0] / within[1]) / (across[0] / across[1]))
