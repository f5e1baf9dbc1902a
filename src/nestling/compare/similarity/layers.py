"""Similarity of every layer of one model to every layer of another, as a table and a heat map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.formatting import shown
from nestling.compare.rdms.from_patterns import Metric, rdm
from nestling.compare.similarity.cka_procrustes import linear_cka, procrustes
from nestling.compare.similarity.comparators import Method, compare
from nestling.errors import ConfigError, DataError, unknown
from nestling.picture import Style, draw, heat_map

Floats = NDArray[np.float64]
OfPatterns = Literal["cka", "cka_debiased", "procrustes"]

_OF_PATTERNS: dict[str, Callable[[Any, Any], float]] = {
    "cka": linear_cka,
    "cka_debiased": partial(linear_cka, debiased=True),
    "procrustes": procrustes,
}
_QUANTITIES = {"cka": "linear CKA", "cka_debiased": "debiased linear CKA", "procrustes": "Procrustes"}


@dataclass(frozen=True, eq=False)
class LayerSimilarities:
    """Similarity of each layer of one model to each of another.

    Args:
        values: ``Float[rows, columns]``.
        rows: the layers of the first model, the one nearest to its input first.
        columns: those of the second.
        quantity: the name of the values.

    Raises:
        DataError: for values of another shape.
    """

    values: Floats
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    quantity: str = "similarity"

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", np.asarray(self.values, np.float64))
        object.__setattr__(self, "rows", tuple(map(str, self.rows)))
        object.__setattr__(self, "columns", tuple(map(str, self.columns)))
        shape = (len(self.rows), len(self.columns))
        if self.values.shape != shape or 0 in shape:
            raise DataError(
                f"similarities of shape {self.values.shape} do not belong to {shape[0]} and {shape[1]} "
                "layers; give one for each two of them, Float[rows, columns]"
            )


def compare_layers(
    first: Mapping[str, Any],
    second: Mapping[str, Any] | None = None,
    method: OfPatterns | Method = "cka",
    *,
    metric: Metric = "correlation",
) -> LayerSimilarities:
    """Compare every layer of one model with every layer of another, on the same stimuli.

    Args:
        first: patterns by the name of the layer, ``Real[n, p]`` with any p each, as
            :func:`~nestling.encoders.activations.activations` gives them.
        second: those of another model over the same stimuli in the same order; by default ``first`` itself.
        method: ``"cka"``, ``"cka_debiased"`` or ``"procrustes"`` of the patterns
            (:mod:`~nestling.compare.similarity.cka_procrustes`), or a method of
            :func:`~nestling.compare.similarity.comparators.compare` for their dissimilarity matrices (RSA).
        metric: of those matrices; the first three methods need none.

    Raises:
        ConfigError: for an unknown method or metric.
        DataError: for no layers, patterns that cannot be used, or of other numbers of stimuli; the layer is
            named.

    Source: Kornblith et al. 2019, figure 2; RSA: Kriegeskorte et al. 2008.

    >>> x = np.random.default_rng(0).normal(size=(9, 4))
    >>> found = compare_layers({"in": x, "out": x @ x.T @ x}, {"turned": -x})
    >>> found.values.round(2)[0]
    array([1.])
    """
    second = first if second is None else second
    if not first or not second:
        raise DataError("there are no layers to compare; give patterns by the name of their layer")
    _check_stimuli({**first, **second})
    if method in _OF_PATTERNS:
        alike = _OF_PATTERNS[method]
        values = np.array([[alike(one, other) for other in second.values()] for one in first.values()])
        quantity = _QUANTITIES[method]
    elif method in get_args(Method):
        values = compare(rdm(dict(first), metric), rdm(dict(second), metric), cast("Method", method))
        quantity = f"{method} of {metric} distances"
    else:
        raise ConfigError(unknown("method", method, [*_OF_PATTERNS, *get_args(Method)]))
    return LayerSimilarities(values, tuple(first), tuple(second), quantity)


def plot_layers(
    found: LayerSimilarities,
    target: Any,
    *,
    names: Sequence[str] = ("first model", "second model"),
    title: str = "",
    style: Style | None = None,
) -> None:
    """Draw layers against layers as a heat map, the first layers at the lower left.

    Args:
        found: result of :func:`compare_layers`, or a table of one's own.
        target: a file (.png, .svg or .pdf) or matplotlib axes.
        names: of both models.
        title: of the picture.
        style: size, font and resolution of the file.

    Raises:
        ConfigError: for another number of names, or another kind of file.
        MissingExtraError: if matplotlib is not installed.
        StorageError: if the file cannot be written.
    """
    if isinstance(names, str) or len(names) != 2:
        raise ConfigError(f"names must be two, that of the rows and that of the columns, not {shown(names)}")
    down, across = (
        (f"layer of {name}", part) for name, part in zip(names, (found.rows, found.columns), strict=True)
    )
    draw(
        target,
        lambda axes: heat_map(axes, found.values, down, across, title or found.quantity, found.quantity),
        style=style,
    )


def _check_stimuli(layers: Mapping[str, Any]) -> None:
    sizes = {name: len(patterns) for name, patterns in layers.items()}
    first, count = next(iter(sizes.items()))
    for name, size in sizes.items():
        if size != count:
            raise DataError(
                f"layer {name!r} has {size} rows and layer {first!r} {count}; give patterns of the same "
                "stimuli, one row each, in the same order"
            )
