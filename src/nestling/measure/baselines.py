"""Baselines for a learned nesting: plain truncation, random dims and principal axes.

All take a task whose inputs are vectors already (:func:`~nestling.measure.encode.encode_task`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule
from nestling.errors import DataError
from nestling.granularity import AnyNesting
from nestling.measure.curve.curve import Curve
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import Task

Vectors = NDArray[np.floating[Any]]


def truncation(task: Task, nesting: AnyNesting, *, rule: CutRule = CutRule(), seed: int = 0) -> Curve:
    """The leading entries of vectors that were not trained for it."""
    return sweep(lambda vectors: vectors, task, nesting, rule=rule, seed=seed, name="truncation")


def random_dims(task: Task, nesting: AnyNesting, *, rule: CutRule = CutRule(), seed: int = 0) -> Curve:
    """Entries chosen at random, the same for all vectors; a larger size keeps those of a smaller one."""
    order = np.random.default_rng(seed).permutation(_width(task))
    return sweep(
        lambda vectors: np.asarray(vectors)[:, order],
        task,
        nesting,
        rule=rule,
        seed=seed,
        name="random dims",
    )


def pca(
    task: Task, nesting: AnyNesting, fit_on: Vectors, *, rule: CutRule = CutRule(), seed: int = 0
) -> Curve:
    """The leading principal axes of vectors that are not those of the test.

    Args:
        task: its inputs are vectors.
        nesting: sizes to measure.
        fit_on: ``Float[n, dim]``, the vectors to fit the axes on.
        rule: steps around a cut.
        seed: of the resamples.
    """
    # Here, because that module brings torch, which nothing else in this one needs.
    from nestling.encoders.maps import PCARotation

    # Its own report would repeat the comparison of the curves.
    rotation = PCARotation([np.shape(fit_on)[1]]).fit(fit_on)
    return sweep(rotation.transform, task, nesting, rule=rule, seed=seed, name="pca")


def _width(task: Task) -> int:
    vectors = next(iter(task.inputs.values()))
    if np.ndim(vectors) != 2:
        raise DataError("this baseline needs a task over vectors; make one with encode_task(thing, task)")
    return int(np.shape(vectors)[1])
