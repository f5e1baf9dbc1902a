"""Word error rate of transcripts, with bootstrap intervals over sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Real, Whole, checked
from nestling.arguments.formatting import shown
from nestling.errors import DataError

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class WordErrors:
    """Errors and words of each sentence.

    The rate is that of all sentences together: the sum of errors over the sum of reference words.

    Args:
        errors: ``Int64[n]``, word edits from each reference to its transcript.
        words: ``Int64[n]``, words of each reference; an empty one counts its insertions as errors.

    Raises:
        DataError: if no reference holds a word, for which there is no rate.
    """

    errors: Ints
    words: Ints

    def __post_init__(self) -> None:
        if not self.words.sum():
            raise DataError(
                f"the references hold no word, so the error rate is undefined; {self.errors.sum()} words "
                "were inserted"
            )

    @property
    def rate(self) -> float:
        """Errors for 100 reference words; above 100 if many words are inserted."""
        return float(100 * self.errors.sum() / self.words.sum())

    @checked(confidence=Real(above=0, below=1), resamples=Whole(1), seed=Whole(0))
    def interval(
        self, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
    ) -> tuple[float, float]:
        """The percentile interval of the rate over resampled sentences."""
        return _ends(self._resampled(resamples, seed), confidence)

    @checked(confidence=Real(above=0, below=1), resamples=Whole(1), seed=Whole(0))
    def minus(
        self, other: WordErrors, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
    ) -> tuple[float, float, float]:
        """The difference of two rates on the same sentences, and its interval: a paired bootstrap.

        Raises:
            DataError: if the references have other words.
        """
        if not np.array_equal(self.words, other.words):
            raise DataError("a paired interval needs the errors of the same sentences, in the same order")
        drawn = self._resampled(resamples, seed) - other._resampled(resamples, seed)
        return (self.rate - other.rate, *_ends(drawn, confidence))

    def _resampled(self, resamples: int, seed: int) -> NDArray[np.float64]:
        """The rate of each resample; those without a word are left out."""
        rng = np.random.default_rng(seed)
        rows = rng.integers(len(self.words), size=(resamples, len(self.words)))
        words = self.words[rows].sum(axis=1)
        return np.asarray(100 * self.errors[rows].sum(axis=1)[words > 0] / words[words > 0])


def word_errors(references: Sequence[str], transcripts: Sequence[str]) -> WordErrors:
    """The word errors of transcripts, lower-cased and split at blanks.

    Raises:
        DataError: for another number of transcripts than of references, none, or references without a word.

    >>> word_errors(["bin blue at f two now"], ["Bin blue by two now please"]).rate
    50.0
    """
    for name, given in (("references", references), ("transcripts", transcripts)):
        if isinstance(given, str) or not all(isinstance(text, str) for text in given):
            raise DataError(f"{name} must be a list of texts, not {shown(given)}")
    if len(references) != len(transcripts) or not len(references):
        raise DataError(
            f"{len(references)} references need as many transcripts, at least one, not {len(transcripts)}"
        )
    pairs = [
        (reference.lower().split(), transcript.lower().split())
        for reference, transcript in zip(references, transcripts, strict=True)
    ]
    errors = np.array([edits(*pair) for pair in pairs], np.int64)
    return WordErrors(errors, np.array([len(reference) for reference, _ in pairs], np.int64))


def edits(first: Sequence[str], second: Sequence[str]) -> int:
    """The least number of substitutions, insertions and deletions from one sequence to another.

    >>> edits("bin blue now".split(), "bin now please".split())
    2
    """
    row = list(range(len(second) + 1))
    for place, word in enumerate(first, start=1):
        before, row = row, [place]
        for column, other in enumerate(second, start=1):
            row.append(min(before[column] + 1, row[-1] + 1, before[column - 1] + (word != other)))
    return row[-1]


def _ends(drawn: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
