"""Pictures: dissimilarity matrices, maps of their stimuli, values over pairs of thresholds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.compare.rdms import RDMs
from nestling.compare.thresholds import check_thresholds
from nestling.errors import DataError, require
from nestling.picture import draw, heat_map

Floats = NDArray[np.float64]

_MOST_NAMED = 30


def plot_matrices(rdms: RDMs, target: Any, *, names: Sequence[str] | None = None) -> None:
    """Draw every matrix as a panel of colours, the first stimulus at the top left.

    Args:
        rdms: what to draw.
        target: a file (.png, .svg or .pdf) or, for one matrix, matplotlib axes.
        names: what the matrices are called, by default by their labels.

    Raises:
        ConfigError: for another kind of file, or several matrices on one pair of axes.
        DataError: for another number of names.
        MissingExtraError: if matplotlib is not installed.
        StorageError: if the file cannot be written.
    """
    titles = _titles(rdms, names)

    def panel(number: int) -> Callable[[Any], None]:
        def paint(axes: Any) -> None:
            square = rdms[number].squares()[0]
            heat_map(axes, square, (rdms.metric, rdms.stimuli), ("", rdms.stimuli), titles[number])
            axes.invert_yaxis()

        return paint

    draw(target, *map(panel, range(len(rdms))))


def plot_maps(rdms: RDMs, target: Any, *, names: Sequence[str] | None = None) -> None:
    """Draw the map of :func:`map_stimuli` of every matrix; a stimulus has the same colour in all.

    Args:
        rdms: what to draw; the rest as :func:`plot_matrices`.
        target: see there.
        names: see there.
    """
    titles, maps = _titles(rdms, names), map_stimuli(rdms)
    reach = 1.05 * float(np.abs(maps).max())

    def panel(number: int) -> Callable[[Any], None]:
        def paint(axes: Any) -> None:
            x, y = maps[number].T
            axes.scatter(x, y, c=range(rdms.n), cmap="turbo", s=16)
            for name, *place in zip(rdms.stimuli, x, y, strict=True) if rdms.n <= _MOST_NAMED else ():
                axes.annotate(name, place, fontsize=7, xytext=(3, 3), textcoords="offset points")
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
            axes.set_title(titles[number])

        return paint

    draw(target, *map(panel, range(len(rdms))))


def map_stimuli(rdms: RDMs) -> Floats:
    """Places in the plane whose distances come close to those of each matrix, ``Float[m, n, 2]``.

    Multidimensional scaling (SMACOF) from the classical solution. All maps are of one size, and each is
    turned and mirrored to lie on the first as well as it can (Procrustes).

    Raises:
        DataError: for dissimilarities that are missing, infinite or negative.
        MissingExtraError: if scikit-learn is not installed.
    """
    if not np.isfinite(rdms.vectors).all() or rdms.vectors.min() < 0:
        raise DataError("a map needs dissimilarities that are finite and not negative; rank them first")
    first, *others = [_map_of(rdms[number].squares()[0]) for number in range(len(rdms))]
    return np.stack([first, *(_onto(first, other) for other in others)])


def plot_thresholds(thresholds: ArrayLike, values: ArrayLike, target: Any, *, title: str = "") -> None:
    """Draw a value for each pair of thresholds as a heat map; pairs that are not given stay empty.

    Args:
        thresholds: ``Float[t, 2]``, lower and upper.
        values: ``Float[t]``, such as the accuracy of an identification or a similarity.
        target: a file (.png, .svg or .pdf) or matplotlib axes.
        title: of the picture.

    Raises:
        ConfigError: for thresholds that are none, or another kind of file.
        DataError: for another number of values.
        MissingExtraError: if matplotlib is not installed.
        StorageError: if the file cannot be written.
    """
    draw(target, threshold_panel(thresholds, values, title))


def threshold_panel(thresholds: ArrayLike, values: ArrayLike, title: str) -> Callable[[Any], None]:
    """What draws one such heat map on axes, for pictures of several."""
    pairs, found = check_thresholds(thresholds), np.asarray(values, np.float64)
    if found.shape != (len(pairs),):
        raise DataError(f"values of shape {found.shape} do not belong to {len(pairs)} pairs of thresholds")
    (lowers, down), (uppers, across) = (np.unique(side.round(6), return_inverse=True) for side in pairs.T)
    table = np.full((len(lowers), len(uppers)), np.nan)
    table[down, across] = found
    lines, columns = ([f"{each:g}" for each in side] for side in (lowers, uppers))
    return lambda axes: heat_map(axes, table, ("lower", lines), ("upper", columns), title)


def _titles(rdms: RDMs, names: Sequence[str] | None) -> list[str]:
    """What each matrix is called: as told, or by its name, or by all its labels."""
    if names is not None:
        if len(names) != len(rdms):
            raise DataError(f"{len(names)} names do not belong to {len(rdms)} matrices")
        return list(names)
    if "name" in rdms.labels:
        return list(map(str, rdms.labels["name"]))
    columns = [[f"{name}={value}" for value in values] for name, values in rdms.labels.items()]
    return [", ".join(parts) for parts in zip(*columns, strict=True)] or list(map(str, range(len(rdms))))


def _map_of(square: NDArray[Any]) -> Floats:
    """Multidimensional scaling of one matrix into the plane, centred and of mean square length 1."""
    manifold = require("sklearn.manifold", "compare")
    distances = np.asarray(square, np.float64)
    if not distances.any():
        return np.zeros((len(distances), 2))
    centred = distances**2 - (distances**2).mean(axis=0)
    values, axes = np.linalg.eigh(-0.5 * (centred - centred.mean(axis=1, keepdims=True)))
    start = axes[:, -2:] * np.sqrt(np.maximum(values[-2:], 0))
    found, _ = manifold.smacof(distances, n_components=2, init=start, n_init=1, normalized_stress=False)
    found = np.asarray(found, np.float64) - found.mean(axis=0)
    return np.asarray(found / np.sqrt((found**2).sum(axis=1).mean()))


def _onto(first: Floats, other: Floats) -> Floats:
    """``other`` turned and mirrored onto ``first``; both are centred."""
    left, _, right = np.linalg.svd(other.T @ first)
    return np.asarray(other @ left @ right)
