"""Cross-validated distances from independent folds, unbiased by noise: crossnobis and Poisson."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.compare.rdms.estimation.estimators import RatePrior, both_ways
from nestling.compare.rdms.estimation.products import Floats, Sides, write_pairs
from nestling.compare.rdms.pairs import count_pairs, pair_positions
from nestling.errors import DataError
from nestling.process.blocks import blocks

Flags: TypeAlias = NDArray[np.bool_]

_ENTRIES_AT_A_TIME = 1 << 25


def write_crossnobis(cells: Floats, out: NDArray[np.floating], block: int | None) -> None:
    """The mean over pairs of different folds of the product of their differences, a channel.

    With all cells there, the sum over pairs of folds is a product of matrices: of each fold with the sum of
    the others. Otherwise each pair of folds counts where both show both stimuli.

    Args:
        cells: ``Float[folds, n, p]``, whitened means; NaN where a fold lacks a stimulus.
        out: ``Float[n(n-1)/2]``; NaN where no two folds show both stimuli.
        block: see :func:`~nestling.compare.rdms.estimation.products.write_pairs`.

    Raises:
        DataError: if no pair of stimuli has two folds in common.
    """
    folds, n, channels = cells.shape
    present = ~np.isnan(cells[:, :, 0])
    if present.all():
        write_pairs(_against_the_others(cells), 1 / (folds * (folds - 1) * channels), out, block)
    else:
        _write_means(_pairs_of_folds(cells, present), 0.5 / channels, out, n, block)


def write_poisson_cv(cells: Floats, prior: RatePrior, out: NDArray[np.floating], block: int | None) -> None:
    """The mean over folds of (rates of the others) x (logarithms of this fold's rates), a channel.

    Args:
        cells: ``Float[folds, n, p]``, mean counts; NaN where a fold lacks a stimulus.
        prior: of the rates.
        out: ``Float[n(n-1)/2]``; NaN where no fold shows both stimuli that others show, too.
        block: see :func:`~nestling.compare.rdms.estimation.products.write_pairs`.

    Raises:
        DataError: if no pair of stimuli has two folds in common.
    """
    _, n, channels = cells.shape
    _write_means(_folds_against_the_rest(cells, prior), 0.5 / channels, out, n, block)


def _against_the_others(cells: Floats) -> Iterator[Sides]:
    folds, n, channels = cells.shape
    for some in blocks(channels, max(1, _ENTRIES_AT_A_TIME // (n * folds))):
        part = cells[:, :, some]
        others = part.sum(axis=0) - part
        first, second = (side.swapaxes(0, 1).reshape(n, -1).copy() for side in (part, others))
        yield first, second


def _pairs_of_folds(cells: Floats, present: Flags) -> Iterator[tuple[Sides, Flags]]:
    for fold in range(len(cells)):
        for other in range(fold):
            both = present[fold] & present[other]
            yield both_ways(cells[fold][both], cells[other][both]), both


def _folds_against_the_rest(cells: Floats, prior: RatePrior) -> Iterator[tuple[Sides, Flags]]:
    present = ~np.isnan(cells[:, :, 0])
    sums, counts = np.nansum(cells, axis=0), present.sum(axis=0)
    for cell, here in zip(cells, present, strict=True):
        both = here & (counts > 1)
        rest = (sums[both] - cell[both]) / (counts[both] - 1)[:, None]
        yield both_ways(prior(rest), np.log(prior(cell[both]))), both


def _write_means(
    parts: Iterable[tuple[Sides, Flags]], scale: float, out: NDArray[np.floating], n: int, block: int | None
) -> None:
    """The mean over the parts of the estimates for each pair of stimuli."""
    total, count = np.zeros(count_pairs(n)), np.zeros(count_pairs(n), np.int32)
    for sides, stimuli in parts:
        chosen = np.flatnonzero(stimuli)
        if len(chosen) < 2:
            continue
        values = np.empty(count_pairs(len(chosen)))
        write_pairs([sides], scale, values, block)
        places: NDArray[np.int64] | slice = slice(None) if len(chosen) == n else pair_positions(n, chosen)
        total[places] += values
        count[places] += 1
    if not count.any():
        raise DataError("no two stimuli have two folds in common; give folds that show the same stimuli")
    with np.errstate(invalid="ignore"):  # 0 / 0: the pair is missing
        np.divide(total, count, out=out, casting="same_kind")
