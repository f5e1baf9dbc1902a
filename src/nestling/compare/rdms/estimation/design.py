"""The design: the stimulus and fold of each row of patterns; repeats are averaged within both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.arrays import as_array
from nestling.cut import name_rows
from nestling.errors import ConfigError, DataError
from nestling.process.blocks import blocks

Ints: TypeAlias = NDArray[np.int64]
Names: TypeAlias = Sequence[str | int] | NDArray[Any]

_ENTRIES_AT_A_TIME = 1 << 25
_FEWEST_STIMULI = 3


def read_patterns(given: Any, what: str = "the patterns") -> NDArray[Any]:
    """Numbers as they are, ``Real[n, p]`` or ``Real[m, n, p]``; arrays, memory maps and tensors.

    Raises:
        DataError: for another shape or type, nothing in it, or rows with NaN or infinity (named).
    """
    values = as_array(given, what)
    if values.dtype.kind not in "fiub":
        raise DataError(f"{what} must be real numbers, not {values.dtype}")
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise DataError(f"{what} must be [stimuli, channels], one row each, not of shape {values.shape}")
    if values.dtype.kind == "f":
        for number, matrix in enumerate(values if values.ndim == 3 else values[None]):
            _refuse_unfinished(matrix, f"{what}[{number}]" if values.ndim == 3 else what)
    return values


def _refuse_unfinished(matrix: NDArray[Any], what: str) -> None:
    for rows in blocks(len(matrix), max(1, _ENTRIES_AT_A_TIME // matrix.shape[1])):
        bad = ~np.isfinite(matrix[rows]).all(axis=1)
        if bad.any():
            raise DataError(
                f"{what} hold NaN or infinity in {name_rows(np.flatnonzero(bad) + rows.start)}; repair or "
                "remove those rows (a pair that is missing can be NaN in the matrix of dissimilarities alone)"
            )


def channel_blocks(x: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Copies of all rows of some channels at a time, in float64: up to 256 MiB."""
    for channels in blocks(x.shape[1], max(1, _ENTRIES_AT_A_TIME // len(x))):
        yield channels, np.array(x[:, channels], np.float64, order="C")


@dataclass(frozen=True)
class Design:
    """Stimulus and fold of each row of a matrix of patterns.

    Args:
        stimuli: their names, in the order in which they occur.
        rows: ``Int[rows]``, the stimulus of each row.
        folds: ``Int[rows]``, its fold; None where there are none.
    """

    stimuli: tuple[str, ...]
    rows: Ints
    folds: Ints | None = None

    @classmethod
    def read(cls, rows: int, stimuli: Names | None, folds: Names | None) -> Design:
        """From one name per row.

        Raises:
            DataError: for another number of names, or fewer than 3 stimuli.
            ConfigError: for folds without stimuli, or fewer than 2.
        """
        names, codes = _codes(range(rows) if stimuli is None else stimuli, rows, "stimuli")
        if len(names) < _FEWEST_STIMULI:
            raise DataError(
                f"{len(names)} stimuli have too few pairs to compare; give at least {_FEWEST_STIMULI}"
            )
        if folds is None:
            return cls(names, codes)
        if stimuli is None:
            raise ConfigError("folds= needs stimuli=, the stimulus of each row")
        fold_names, fold_codes = _codes(folds, rows, "folds")
        if len(fold_names) < 2:
            raise ConfigError("cross-validation needs at least 2 folds, but all rows are of one")
        return cls(names, codes, fold_codes)

    def means(self, x: NDArray[Any]) -> NDArray[Any]:
        """One row a stimulus: ``x`` itself, or in float64 the mean of the repeats of each."""
        if len(self.stimuli) == len(self.rows):
            return x
        return _group_means(x, self.rows, len(self.stimuli))

    def cells(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """``Float[folds, n, p]``: means of the repeats in each fold; NaN where a fold has none."""
        assert self.folds is not None
        count, n = int(self.folds.max()) + 1, len(self.stimuli)
        return _group_means(x, self.folds * n + self.rows, count * n).reshape(count, n, x.shape[1])


def _codes(given: Names, rows: int, what: str) -> tuple[tuple[str, ...], Ints]:
    """The different names in the order in which they occur, and the number of each row's."""
    names = [str(name) for name in given]
    if len(names) != rows:
        raise DataError(f"{what} must name each of the {rows} rows; {len(names)} names were given")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return tuple(numbers), np.array([numbers[name] for name in names], np.int64)


def _group_means(x: NDArray[Any], groups: Ints, count: int) -> NDArray[np.float64]:
    order = np.argsort(groups, kind="stable")
    present, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
    means = np.full((count, x.shape[1]), np.nan)
    for channels, block in channel_blocks(x):
        means[present, channels] = np.add.reduceat(block[order], starts, axis=0) / counts[:, None]
    return means
