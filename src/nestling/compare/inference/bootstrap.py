"""Bootstrap of model comparisons over stimuli, subjects or both, in batches of draws.

A draw of stimuli is a weight for every pair: the number of draws of one stimulus times that of the other. A
repeated stimulus makes pairs of itself with itself, which get no weight. A draw of subjects is a
weight for every subject; the matrices of a subject stay together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nestling.compare.inference.ceiling import Pools
from nestling.compare.rdms.pairs import pair_positions
from nestling.compare.similarity.comparators import Comparator
from nestling.process.blocks import blocks
from nestling.process.progress import watched

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Over = Literal["both", "subjects", "stimuli"]

FEWEST_STIMULI, FEWEST_SUBJECTS = 3, 2  # different ones in a draw
_ENTRIES_AT_A_TIME = 1 << 20
_FLAT = 1e-12  # of the second moment: a variance below it is rounding


@dataclass(frozen=True, eq=False)
class Resamples:
    """The draws of a bootstrap.

    Args:
        stimuli: ``Int[draws, n]``, how often each was drawn.
        subjects: ``Int[draws, subjects]``, how often each was drawn.
        redrawn: draws that were made again, as they held fewer than 3 different stimuli, or than 2 subjects.
    """

    stimuli: Ints
    subjects: Ints
    redrawn: int

    @classmethod
    def draw(cls, draws: int, n: int, subjects: int, over: Over, seed: int) -> Resamples:
        """Draw stimuli and subjects with replacement; a factor that is not resampled counts once each."""
        rng = np.random.default_rng(seed)
        drawn, redrawn = [np.ones((draws, size), np.int64) for size in (n, subjects)], 0
        if over != "subjects":
            redrawn += _draw(rng, drawn[0], FEWEST_STIMULI)
        if over != "stimuli":
            redrawn += _draw(rng, drawn[1], FEWEST_SUBJECTS)
        return cls(drawn[0], drawn[1], redrawn)


def _draw(rng: np.random.Generator, counts: Ints, fewest: int) -> int:
    """Fill ``counts``, ``Int[draws, size]``, with how often each was drawn; return the number of redraws."""
    short, size, redrawn = np.arange(len(counts)), counts.shape[1], 0
    while len(short):
        drawn = rng.integers(size, size=(len(short), size)) + np.arange(len(short))[:, None] * size
        counts[short] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        short = short[np.count_nonzero(counts[short], axis=1) < fewest]
        redrawn += len(short)
    return redrawn


def bootstrap(
    chosen: Comparator, models: Floats, data: Floats, average: Floats, resamples: Resamples, over: Over
) -> dict[Over, Floats]:
    """Mean similarity of every model in every draw, and the noise ceiling, lower and upper.

    Args:
        chosen: the comparator.
        models: ``Float[models, pairs]``, all pairs; NaN for those that any matrix lacks.
        data: ``Float[m, pairs]``, likewise.
        average: ``Float[subjects, m]`` of :class:`~nestling.compare.rdms.subjects.Subjects`.
        resamples: the draws.
        over: for ``"both"`` the same draws are also used for subjects alone and for stimuli alone.

    Returns:
        ``Float[draws, models + 2]`` for each of them. NaN where all entries that count are equal.
    """
    kinds: tuple[Over, ...] = ("both", "subjects", "stimuli") if over == "both" else (over,)
    linear = chosen.method in ("cosine", "pearson")
    view: type[_Moments | _Sampled] = _Moments if linear else _Sampled
    together = max(1, _ENTRIES_AT_A_TIME // (models.size + data.size)) if linear else 1
    found: dict[Over, list[Floats]] = {kind: [] for kind in kinds}
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = view(chosen, models, data, average, np.ones_like(resamples.stimuli[:1]))
        for rows in watched(blocks(len(resamples.stimuli), together), "resampling", "draws"):
            subjects = resamples.subjects[rows].astype(np.float64)
            drawn = whole
            if over != "subjects":
                drawn = view(chosen, models, data, average, resamples.stimuli[rows])
            for kind, parts in found.items():
                counts = np.ones_like(subjects) if kind == "stimuli" else subjects
                parts.append((whole if kind == "subjects" else drawn).totals(counts))
    return {kind: np.concatenate(parts) for kind, parts in found.items()}


def two_factor_variance(
    both: Floats, subjects: Floats, stimuli: Floats, count_subjects: int, count_stimuli: int
) -> Floats:
    """Variance over new subjects and new stimuli, from those of three bootstraps.

    Resampling both counts the variance of single entries three times, resampling one factor counts it once;
    each is too small by ``(size - 1) / size``. The result is kept between the larger of both factors
    alone and that of resampling both.

    Source: Schütt et al. 2023, correction of the two-factor bootstrap.
    """
    alone = [
        variance * size / (size - 1)
        for variance, size in ((subjects, count_subjects), (stimuli, count_stimuli))
    ]
    shared = (
        (both - subjects - stimuli)
        * count_subjects
        / (count_subjects - 1)
        * count_stimuli
        / (count_stimuli - 1)
    )
    return np.asarray(np.minimum(np.maximum.reduce([sum(alone) - shared, *alone]), both))


class _Sampled:
    """One draw of stimuli, pair by pair: any method."""

    def __init__(
        self, chosen: Comparator, models: Floats, data: Floats, average: Floats, stimuli: Ints
    ) -> None:
        n = stimuli.shape[1]
        sample = np.repeat(np.arange(n), stimuli[0])
        places, (i, j) = pair_positions(n, sample), np.triu_indices(n, 1)
        kept = (sample[i] != sample[j]) & ~np.isnan(data[0, places])
        seen = [
            np.where(kept, rows[:, places], np.nan) if chosen.whole else rows[:, places[kept]]
            for rows in (models, data)
        ]
        self.pools = Pools(chosen, seen[1], average)
        self.values = self.pools.values(seen[0])

    def totals(self, subjects: Floats) -> Floats:
        """Means over subjects that count so often, ``Float[draws of subjects, models + 2]``."""
        tables = [np.vstack([self.values, *self.pools.ceilings(counts)]) for counts in subjects]
        return _means(np.array(tables), subjects)


class _Moments:
    """Many draws of stimuli for cosine and Pearson: one product of matrices holds all that is needed."""

    def __init__(
        self, chosen: Comparator, models: Floats, data: Floats, average: Floats, stimuli: Ints
    ) -> None:
        rows, present = np.concatenate([models, data]), ~np.isnan(data[0])
        i, j = np.triu_indices(stimuli.shape[1], 1)
        weights = np.sqrt(stimuli[:, i[present]] * stimuli[:, j[present]])
        rows = rows[:, present] / np.abs(rows[:, present]).max(axis=1, keepdims=True)
        if chosen.method == "pearson":  # centred as a whole, so that little is lost where draws are centred
            rows = np.vstack([rows - rows.mean(axis=1, keepdims=True), np.ones_like(rows[0])])
        weighted = weights[:, None] * rows
        products = weighted @ weighted.swapaxes(1, 2)
        least = _FLAT * np.diagonal(products, axis1=1, axis2=2)
        if chosen.method == "pearson":
            sums, totals = products[:, -1, :-1], products[:, -1:, -1:]
            products, least = products[:, :-1, :-1] - sums[:, :, None] * sums[:, None] / totals, least[:, :-1]
        squares = np.diagonal(products, axis1=1, axis2=2)
        lengths = np.sqrt(np.where(squares > least, squares, np.nan))
        alike, count = products / lengths[:, :, None] / lengths[:, None], len(models)
        self.values = alike[:, :count, count:] @ average.T
        self.among = average @ alike[:, count:, count:] @ average.T

    def totals(self, subjects: Floats) -> Floats:
        """Means over subjects that count so often in each draw, ``Float[draws, models + 2]``."""
        others = subjects[:, None] * (1 - np.eye(subjects.shape[1]))
        pulls, pull = others @ self.among, subjects[:, None] @ self.among
        lower = np.diagonal(pulls, axis1=1, axis2=2) / np.sqrt((pulls * others).sum(axis=2))
        upper = pull / np.sqrt((pull * subjects[:, None]).sum(axis=2, keepdims=True))
        values = np.broadcast_to(self.values, (len(subjects), *self.values.shape[1:]))
        return _means(np.concatenate([values, lower[:, None], upper], axis=1), subjects)


def _means(table: Floats, subjects: Floats) -> Floats:
    """``Float[draws, rows]`` of ``Float[draws, rows, subjects]``."""
    return np.asarray((table @ subjects[:, :, None])[:, :, 0] / subjects.sum(axis=1, keepdims=True))
