"""The oracle of sizes: the smallest size that answers each item right, and how much of that is luck."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.constraints import Whole, checked
from nestling.errors import DataError

Answers = NDArray[np.int64]


@dataclass(frozen=True)
class Oracle:
    """Accuracies as fractions of the items.

    Args:
        accuracy: of the items that some size answers right.
        size: mean over the items of the smallest size that is right, or of the largest if none is.
        best: of the best single size.
        by_luck: that other sizes would reach by answers that know nothing of the item: those of the best
            size, and where it is wrong the others' answers to other such items of the same group.
    """

    accuracy: float
    size: float
    best: float
    by_luck: float

    @property
    def gap(self) -> float:
        """The points that the oracle has over the best single size, as a fraction."""
        return self.accuracy - self.best

    @property
    def gap_by_luck(self) -> float:
        """The gap that answers which know nothing of the item would have."""
        return self.by_luck - self.best


@checked(permutations=Whole(1), seed=Whole(0))
def oracle(
    answers: Mapping[int, ArrayLike],
    truth: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    permutations: int = 100,
    seed: int = 0,
) -> Oracle:
    """What could be reached if each item had its own size.

    An item that is right because one of several guesses is right shows nothing about sizes. The control
    permutes the answers of each size among the items that the best size gets wrong, so that as many guesses
    are made, with the same frequencies, and only their tie to the item is lost.

    Args:
        answers: ``Int[items]`` at each size.
        truth: ``Int[items]``.
        groups: ``Int[items]``, such as the kind of question; answers are permuted within a group.
        permutations: over which the control is averaged.
        seed: of the permutations.

    Raises:
        DataError: for fewer than two sizes, or other numbers of answers.

    >>> found = oracle({1: [0, 1, 0], 4: [0, 0, 1]}, [0, 1, 1])
    >>> found.accuracy, found.size, round(found.best, 2)
    (1.0, 2.0, 0.67)

    Source: M3, arXiv 2405.17430, section 4.3; the control is ours.
    """
    right_answers, sizes = _read_truth(truth), _sizes(answers)
    table = np.array([_read(answers[size], size, len(right_answers)) for size in sizes])
    if len(sizes) < 2:
        raise DataError("an oracle chooses among at least two sizes; give the answers of each")
    right = table == right_answers
    best = int(right.mean(axis=1).argmax())
    solved = right.any(axis=0)
    chosen = np.where(solved, right.argmax(axis=0), len(sizes) - 1)
    group = np.zeros(len(right_answers), np.int64) if groups is None else np.asarray(groups)
    if group.shape != right_answers.shape:
        raise DataError(
            f"groups has the shape {group.shape} for {len(right_answers)} items; give one an item"
        )
    lost = [np.flatnonzero(~right[best] & (group == each)) for each in np.unique(group)]
    draw = np.random.default_rng(seed)
    others = np.delete(table, best, axis=0)
    hits = sum(_lucky(others, right_answers, rows, draw) for rows in lost for _ in range(permutations))
    return Oracle(
        accuracy=float(solved.mean()),
        size=float(np.array(sizes)[chosen].mean()),
        best=float(right[best].mean()),
        by_luck=float(right[best].mean() + hits / permutations / len(right_answers)),
    )


def _lucky(answers: Answers, truth: Answers, rows: NDArray[np.intp], draw: np.random.Generator) -> int:
    """Items that some permuted answer gets right."""
    permuted = draw.permuted(answers[:, rows], axis=1)
    return int((permuted == truth[rows]).any(axis=0).sum())


def _sizes(answers: Mapping[int, ArrayLike]) -> list[int]:
    if not isinstance(answers, Mapping) or not all(isinstance(size, (int, np.integer)) for size in answers):
        raise DataError(
            "answers must be a mapping from sizes, which are whole numbers, to the answers of each"
        )
    return sorted(answers)


def _read_truth(truth: ArrayLike) -> Answers:
    found = np.asarray(truth)
    if found.ndim != 1 or not len(found):
        raise DataError(f"truth must hold one answer an item, at least one, not the shape {found.shape}")
    return _discrete(found, "truth")


def _read(answers: ArrayLike, size: int, items: int) -> Answers:
    found = np.asarray(answers)
    if found.shape != (items,):
        raise DataError(f"size {size} has {found.shape} answers for {items} items; give one an item")
    return _discrete(found, f"the answers of size {size}")


def _discrete(found: Answers, what: str) -> Answers:
    """Answers that are right or wrong, such as numbers of classes."""
    if found.dtype.kind not in "iubU":
        raise DataError(
            f"{what} must be whole numbers or texts, not {found.dtype}; round or compare them first"
        )
    return found
