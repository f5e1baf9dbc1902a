"""Model evaluation: similarity to subjects' RDMs, confidence intervals, noise ceiling, tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import OneOf, Real, Whole, checked
from nestling.compare.inference.bootstrap import (
    FEWEST_SUBJECTS,
    Over,
    Resamples,
    bootstrap,
    two_factor_variance,
)
from nestling.compare.inference.ceiling import NoiseCeiling, Pools, complete, poolable
from nestling.compare.inference.significance import Correction, adjusted
from nestling.compare.rdms.rdms import RDMs, aligned
from nestling.compare.rdms.subjects import Subjects
from nestling.compare.similarity.comparators import Method, usable
from nestling.cut import name_rows
from nestling.errors import DataError, require

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of models against the RDMs of subjects, with bootstrap estimates of their uncertainty.

    Intervals and tests are those of Student's t with the bootstrap's variance. Over both subjects and stimuli
    the plain bootstrap counts the noise of single entries three times; its variance is corrected by those
    over subjects and over stimuli alone.

    Args:
        models: names.
        subjects: names.
        method: the comparator.
        over: the resampled units, to which the intervals refer. ``"both"``: other subjects and other stimuli.
        each: ``Float[models, subjects]``, mean similarity with the matrices of each subject.
        ceiling: the noise ceiling; none with a single subject.
        drawn: ``Float[draws, models + 2]`` by what was resampled: means over subjects, then the lower and the
            upper noise ceiling of the draw.
        stimuli: number of stimuli.
        confidence: of the intervals.
        redrawn: draws made again, as they held fewer than 3 different stimuli or 2 subjects.
        undefined: draws left out, as all entries of some matrix were equal in them.
        seed: of the draws.

    Source: Schütt et al. 2023, "Statistical inference on representational geometries", two-factor bootstrap.
    """

    models: tuple[str, ...]
    subjects: tuple[Any, ...]
    method: Method
    over: Over
    each: Floats
    ceiling: NoiseCeiling | None
    drawn: dict[Over, Floats] = field(repr=False)
    stimuli: int
    confidence: float
    redrawn: int
    undefined: int
    seed: int

    @cached_property
    def values(self) -> Floats:
        """``Float[models]``: means over subjects."""
        return np.asarray(self.each.mean(axis=1))

    @property
    def dof(self) -> int:
        """Degrees of freedom: the smaller number of resampled subjects or stimuli, less one."""
        sizes = {"subjects": (len(self.subjects),), "stimuli": (self.stimuli,)}
        return min(sizes.get(self.over, (len(self.subjects), self.stimuli))) - 1

    def variance(self, contrasts: Floats) -> Floats:
        """Variance of sums of values and ceilings, ``Float[...]``.

        Args:
            contrasts: ``Float[..., models + 2]``, factors of the models and of both bounds of the ceiling.
        """
        spread = {kind: (draws @ contrasts.T).var(axis=0, ddof=1) for kind, draws in self.drawn.items()}
        subjects, stimuli = (size / max(size - 1, 1) for size in (len(self.subjects), self.stimuli))
        if self.over != "both":
            return np.asarray(spread[self.over] * (subjects if self.over == "subjects" else stimuli))
        return two_factor_variance(
            spread["both"], spread["subjects"], spread["stimuli"], len(self.subjects), self.stimuli
        )

    @cached_property
    def interval(self) -> tuple[Floats, Floats]:
        """Lower and upper ends, ``Float[models]`` each."""
        reach = self._t.ppf((1 + self.confidence) / 2, self.dof) * np.sqrt(self.variance(self._unit))
        return self.values - reach, self.values + reach

    @cached_property
    def p_zero(self) -> Floats:
        """``Float[models]``: one-sided, that a value is not above 0."""
        return np.asarray(self._t.sf(self._ratio(self.values, self._unit), self.dof))

    @cached_property
    def p_ceiling(self) -> Floats:
        """``Float[models]``: two-sided, that a value is the lower noise ceiling; NaN with one subject."""
        if self.ceiling is None:
            return np.full(len(self.models), np.nan)
        contrasts = self._unit - np.eye(len(self.models) + 2)[-2]
        return self._two_sided(self.values - self.ceiling.lower, contrasts)

    @cached_property
    def p_pairs(self) -> Floats:
        """``Float[models, models]``: two-sided, that two values are equal; 1 on the diagonal."""
        gaps = self.values[:, None] - self.values
        contrasts = self._unit[:, None] - self._unit
        found = self._two_sided(gaps.ravel(), contrasts.reshape(-1, contrasts.shape[-1])).reshape(gaps.shape)
        np.fill_diagonal(found, 1)
        return found

    def rows(self, correction: Correction = "holm") -> list[dict[str, Any]]:
        """One row a model: value, interval, and p values, corrected for the number of models."""
        low, high = self.interval
        columns = zip(
            self.models,
            *(part.tolist() for part in (self.values, low, high)),
            adjusted(self.p_zero, correction).tolist(),
            adjusted(self.p_ceiling, correction).tolist(),
            strict=True,
        )
        return [dict(zip(_COLUMNS, row, strict=True)) for row in columns]

    def pairs(self, correction: Correction = "holm") -> list[dict[str, Any]]:
        """One row a pair of models: difference, interval, and p value, corrected for the number of pairs."""
        first, second = np.triu_indices(len(self.models), 1)
        gaps = self.values[first] - self.values[second]
        deviations = np.sqrt(self.variance(self._unit[first] - self._unit[second]))
        reach = self._t.ppf((1 + self.confidence) / 2, self.dof) * deviations
        p = adjusted(self.p_pairs[first, second], correction)
        numbers = (part.tolist() for part in (gaps, gaps - reach, gaps + reach, p))
        names = ([self.models[i] for i in side] for side in (first, second))
        return [dict(zip(_PAIR_COLUMNS, row, strict=True)) for row in zip(*names, *numbers, strict=True)]

    def to_pandas(self, correction: Correction = "holm") -> Any:
        """The rows as a table.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return require("pandas", "pandas").DataFrame(self.rows(correction))

    @property
    def _unit(self) -> Floats:
        return np.eye(len(self.models), len(self.models) + 2)

    @property
    def _t(self) -> Any:
        return require("scipy.stats", "sklearn").t

    def _ratio(self, values: Floats, contrasts: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):  # a difference that never varies
            return np.asarray(values / np.sqrt(self.variance(contrasts)))

    def _two_sided(self, values: Floats, contrasts: Floats) -> Floats:
        return np.asarray(2 * self._t.sf(np.abs(self._ratio(values, contrasts)), self.dof))


_COLUMNS = ("model", "value", "low", "high", "p_zero", "p_ceiling")
_PAIR_COLUMNS = ("first", "second", "difference", "low", "high", "p")


@checked(
    over=OneOf(get_args(Over)),
    draws=Whole(2, hint="1000 are usual"),
    confidence=Real(above=0, below=1, hint="0.95 is usual"),
    seed=Whole(0),
)
def evaluate(
    models: Any,
    data: Any,
    method: Method = "cosine",
    *,
    over: Over = "both",
    subject: str | Sequence[Any] | None = "subject",
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Score of each model as a predictor of subjects' matrices, with its uncertainty.

    Subjects are resampled, with all their matrices, and count alike; rows are not. Stimuli that are drawn
    more than once come with all their pairs but the one with themselves. Pairs that any matrix lacks (NaN)
    are left out.

    Args:
        models: RDMs, one a model, named by their label ``"name"`` where they carry it; or
            ``Float[models, n(n-1)/2]``.
        data: RDMs of subjects, or ``Float[m, n(n-1)/2]``, over the same stimuli.
        method: a similarity of :func:`~nestling.compare.similarity.comparators.compare` that matrices can
            be pooled by.
        over: ``"both"``: conclusions hold for other subjects and other stimuli; ``"subjects"``: for these
            stimuli; ``"stimuli"``: for these subjects.
        subject: the label that names a matrix's subject, or one value per matrix; None: all differ.
        draws: at least 2; 1000 are usual.
        confidence: above 0 and below 1.
        seed: the same seed draws the same.

    Raises:
        ConfigError: for arguments out of range, an unknown method, or one that matrices cannot be pooled by.
        DataError: for matrices that cannot be used, over other stimuli, one subject where subjects are to be
            resampled, a value that is undefined, or that is in more than half of the draws.

    Source: Schütt et al. 2023; noise ceiling: Nili et al. 2014.
    """
    first, second = aligned(models, data)
    subjects = Subjects.read(second, subject)
    if len(subjects) < FEWEST_SUBJECTS and over != "stimuli":
        raise DataError(
            "all matrices are of one subject, so subjects cannot be resampled; choose over='stimuli'"
        )
    chosen = poolable(method, first.n)
    stacked = np.concatenate([usable(rdms.vectors, chosen) for rdms in (first, second)])
    stacked[:, np.isnan(stacked).any(axis=0)] = np.nan
    vectors = complete(stacked, chosen)
    pools = Pools(chosen, vectors[len(first) :], subjects.average)
    each = pools.values(vectors[: len(first)])
    if np.isnan(each).any():
        raise DataError(
            f"{method!r} is undefined for {name_rows(np.flatnonzero(np.isnan(each).any(axis=1)))} of the "
            "models: all entries of a model, or of a matrix of a subject, are equal"
        )
    several = len(subjects) > 1
    ceiling = NoiseCeiling(*pools.ceilings(np.ones(len(subjects)))) if several else None
    resamples = Resamples.draw(draws, first.n, len(subjects), over, seed)
    drawn = bootstrap(chosen, stacked[: len(first)], stacked[len(first) :], subjects.average, resamples, over)
    drawn, undefined = _defined(drawn, len(first) + 2 * several)
    return Evaluation(
        models=_names(first),
        subjects=subjects.names,
        method=method,
        over=over,
        each=each,
        ceiling=ceiling,
        drawn=drawn,
        stimuli=first.n,
        confidence=confidence,
        redrawn=resamples.redrawn,
        undefined=undefined,
        seed=seed,
    )


def _names(models: RDMs) -> tuple[str, ...]:
    return tuple(map(str, models.labels.get("name", range(len(models)))))


def _defined(drawn: dict[Over, Floats], columns: int) -> tuple[dict[Over, Floats], int]:
    """The draws in which all values are defined, and how many others there were; columns without any are 0.

    Raises:
        DataError: if more than half are not.
    """
    kept = np.all([~np.isnan(values[:, :columns]).any(axis=1) for values in drawn.values()], axis=0)
    undefined = int(np.count_nonzero(~kept))
    if 2 * undefined > len(kept):
        raise DataError(
            f"in {undefined} of {len(kept)} draws all entries of some matrix are equal: there are too few "
            "stimuli, or models with too few different entries, to resample stimuli; choose over='subjects'"
        )
    return {kind: np.nan_to_num(values[kept]) for kind, values in drawn.items()}, undefined
