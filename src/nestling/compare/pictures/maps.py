"""Plots of RDMs, MDS maps of their stimuli, and values over pairs of thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.constraints import OneOf, checked
from nestling.compare.rdms.rdms import RDMs
from nestling.compare.transforms.thresholds import check_thresholds
from nestling.errors import DataError, require
from nestling.picture import LOOKS, Panel, Style, draw, heat_map, legend, look_of, title_of

Floats = NDArray[np.float64]
Colours = Literal["values", "ranks"]

_MOST_NAMED = 30
_LANDMARKS = 8
_APART = 0.2  # of a map, whose mean square length is 1


@checked(colours=OneOf(get_args(Colours)))
def plot_matrices(
    rdms: RDMs,
    target: Any,
    *,
    names: Sequence[str] | None = None,
    colours: Colours = "values",
    style: Style | None = None,
) -> None:
    """Draw every matrix as a panel of colours, the first stimulus at the top left.

    All panels share their colours and one colour bar.

    Args:
        rdms: the matrices.
        target: a file (.png, .svg or .pdf) or, for one matrix, matplotlib axes.
        names: names of the matrices, by default their labels.
        colours: of ``"values"``, or of their ``"ranks"`` within each matrix, from 0 to 100 %, where matrices
            of other units are compared.
        style: size, font and resolution of the file.

    Raises:
        ConfigError: for another kind of file, several matrices on one pair of axes, or other colours.
        DataError: for another number of names.
        MissingExtraError: if matplotlib is not installed.
        StorageError: if the file cannot be written.
    """
    titles, metric = _titles(rdms, names), rdms.metric or "dissimilarity"
    quantity = metric if colours == "values" else f"rank of {metric} within a matrix, in %"

    def panel(number: int) -> Panel:
        one = rdms[number] if colours == "values" else _percentiles(rdms[number])

        def paint(axes: Any) -> None:
            labels = ("", one.stimuli)
            heat_map(axes, one.squares()[0], labels, labels, titles[number], quantity)
            axes.set(aspect="equal")
            axes.invert_yaxis()

        return paint

    draw(target, *map(panel, range(len(rdms))), style=style)


def plot_maps(
    rdms: RDMs,
    target: Any,
    *,
    names: Sequence[str] | None = None,
    groups: Sequence[object] | None = None,
    style: Style | None = None,
) -> None:
    """Draw the map of :func:`map_stimuli` of every matrix.

    Up to 30 stimuli are named; of more, up to eight that lie far apart are, the same in all maps.

    Args:
        rdms: the matrices; the rest as :func:`plot_matrices`.
        target: see there.
        names: see there.
        groups: for each stimulus what it belongs to, such as a category: its colour and marker, with a
            legend. Without, all have one colour.
        style: see there.

    Raises:
        DataError: for another number of groups than of stimuli, or more than can be distinguished; the
            rest as above.
    """
    if groups is not None and len(groups) != rdms.n:
        raise DataError(f"{len(groups)} groups were given for {rdms.n} stimuli; give one for each")
    of_each = None if groups is None else list(map(str, groups))
    if of_each is not None and len(set(of_each)) > LOOKS:
        raise DataError(
            f"{len(set(of_each))} groups are more than a plot can distinguish; give at most {LOOKS}, or none"
        )
    titles, maps = _titles(rdms, names), map_stimuli(rdms)
    reach = 1.08 * float(np.abs(maps).max()) or 1.0
    named = range(rdms.n) if rdms.n <= _MOST_NAMED else _far_apart(maps[0])

    def panel(number: int) -> Panel:
        def paint(axes: Any) -> None:
            _scatter(axes, maps[number], of_each)
            for place in named:
                axes.annotate(
                    rdms.stimuli[place],
                    maps[number][place],
                    fontsize="x-small",
                    xytext=(3, 3),
                    textcoords="offset points",
                    parse_math=False,
                )
            axes.spines[:].set(visible=True, color="#b9bec7")
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
            title_of(axes, titles[number])

        return paint

    draw(target, *map(panel, range(len(rdms))), style=style)


def _scatter(axes: Any, places: Floats, groups: Sequence[str] | None) -> None:
    """The points of a map, one look for each group."""
    of_each = np.array(groups or [""] * len(places))
    kinds, drawn = list(dict.fromkeys(of_each.tolist())), []
    for number, kind in enumerate(kinds):
        look = look_of(number)
        x, y = places[of_each == kind].T
        drawn.append(axes.scatter(x, y, color=look.colour, marker=look.marker, s=18, linewidths=0))
    if groups is not None:
        legend(axes, drawn, kinds)


def _far_apart(places: Floats) -> list[int]:
    """Some points of a map, each as far as can be from those before; the first is the farthest out."""
    chosen = [int(np.square(places).sum(axis=1).argmax())]
    nearest = np.full(len(places), np.inf)
    while len(chosen) < _LANDMARKS:
        nearest = np.minimum(nearest, np.linalg.norm(places - places[chosen[-1]], axis=1))
        if nearest.max() < _APART:
            break  # names would lie on top of each other
        chosen.append(int(nearest.argmax()))
    return chosen


def _percentiles(rdms: RDMs) -> RDMs:
    """Ranks of the distances of a matrix from 0 to 100, ties at their mean; missing pairs stay NaN."""
    ranks = require("scipy.stats", "sklearn").rankdata(rdms.vectors, axis=1, nan_policy="omit")
    most = np.maximum(np.isfinite(ranks).sum(axis=1, keepdims=True) - 1, 1)
    return rdms.replace(vectors=100 * (ranks - 1) / most)


def map_stimuli(rdms: RDMs) -> Floats:
    """Places in the plane whose distances come close to those of each matrix, ``Float[m, n, 2]``.

    Multidimensional scaling (SMACOF) from the classical solution. All maps are of one size, and each is
    rotated and reflected to match the first (Procrustes).

    Raises:
        DataError: for dissimilarities that are missing, infinite or negative.
        MissingExtraError: if scikit-learn is not installed.
    """
    if not np.isfinite(rdms.vectors).all() or rdms.vectors.min() < 0:
        raise DataError("a map needs dissimilarities that are finite and not negative; rank them first")
    first, *others = [_map_of(rdms[number].squares()[0]) for number in range(len(rdms))]
    return np.stack([first, *(_onto(first, other) for other in others)])


def plot_thresholds(
    thresholds: ArrayLike,
    values: ArrayLike,
    target: Any,
    *,
    title: str = "",
    quantity: str = "value",
    style: Style | None = None,
) -> None:
    """Draw a value for each pair of thresholds as a heat map; pairs that are not given are grey.

    Args:
        thresholds: ``Float[t, 2]``, lower and upper.
        values: ``Float[t]``, such as the accuracy of an identification or a similarity.
        target: a file (.png, .svg or .pdf) or matplotlib axes.
        title: of the picture.
        quantity: the label of the colour bar.
        style: size, font and resolution of the file.

    Raises:
        ConfigError: for thresholds that are none, or another kind of file.
        DataError: for another number of values.
        MissingExtraError: if matplotlib is not installed.
        StorageError: if the file cannot be written.
    """
    draw(target, threshold_panel(thresholds, values, title, quantity), style=style)


def threshold_panel(thresholds: ArrayLike, values: ArrayLike, title: str, quantity: str = "value") -> Panel:
    """A function that draws one such heat map on axes; panels of one figure share their colours."""
    pairs, found = check_thresholds(thresholds), np.asarray(values, np.float64)
    if found.shape != (len(pairs),):
        raise DataError(f"values of shape {found.shape} do not belong to {len(pairs)} pairs of thresholds")
    (lowers, down), (uppers, across) = (np.unique(side.round(6), return_inverse=True) for side in pairs.T)
    table = np.full((len(lowers), len(uppers)), np.nan)
    table[down, across] = found
    lines, columns = ([f"{each:g}" for each in side] for side in (lowers, uppers))
    labels = ("lower threshold", lines), ("upper threshold", columns)
    return lambda axes: heat_map(axes, table, *labels, title, quantity)


def _titles(rdms: RDMs, names: Sequence[str] | None) -> list[str]:
    """Name of each matrix: as given, or its name, or all its labels."""
    if names is not None:
        if len(names) != len(rdms):
            raise DataError(f"{len(names)} names were given for {len(rdms)} matrices")
        return list(names)
    if "name" in rdms.labels:
        return list(map(str, rdms.labels["name"]))
    columns = [[f"{name}={value}" for value in values] for name, values in rdms.labels.items()]
    return [", ".join(parts) for parts in zip(*columns, strict=True)] or list(map(str, range(len(rdms))))


def _map_of(square: NDArray[Any]) -> Floats:
    """Multidimensional scaling of one matrix into the plane, centred and of mean square length 1."""
    manifold = require("sklearn.manifold", "sklearn")
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
    """``other`` rotated and reflected onto ``first``; both are centred."""
    left, _, right = np.linalg.svd(other.T @ first)
    return np.asarray(other @ left @ right)
