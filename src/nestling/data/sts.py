"""The STS benchmark: pairs of sentences with their similarity."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestling.data.source import locate
from nestling.data.split import deal, groups_by_text
from nestling.errors import ConfigError, DataError, unknown


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs of sentences and how similar each is.

    Args:
        first: one sentence a row.
        second: as many.
        scores: ``Float64[n]``, from 0 (unrelated) to 5 (same meaning).
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.first)

    def take(self, rows: Iterable[int]) -> ScoredPairs:
        """The pairs of these rows, in this order."""
        chosen = list(rows)
        first, second = (tuple(column[row] for row in chosen) for column in (self.first, self.second))
        return ScoredPairs(first, second, self.scores[chosen])

    def head(self, count: int | None) -> ScoredPairs:
        """The first ``count`` pairs; all, if there are fewer or ``count`` is None."""
        return self.take(range(len(self))[:count])

    def split(self, fractions: Sequence[float] = (0.9, 0.1), *, seed: int = 0) -> tuple[ScoredPairs, ...]:
        """Divide the pairs into parts (train, validation by default); no sentence is in two of them.

        Raises:
            ConfigError: for fractions that are not above 0 or do not sum to 1.
            DataError: if too many pairs hang together by their sentences.
        """
        groups = groups_by_text(self.first, self.second)
        return tuple(self.take(rows) for rows in deal(groups, fractions, seed))


def stsb(split: str = "test") -> ScoredPairs:
    """The STS benchmark, English: 5,749 (``"train"``), 1,500 (``"dev"``) or 1,379 (``"test"``) pairs.

    Raises:
        ConfigError: for another split.
        DataError: if the files cannot be found, or are not what they should be.

    Source: Cer et al. 2017, SemEval-2017 task 1.
    """
    splits = ("train", "dev", "test")
    if split not in splits:
        raise ConfigError(unknown("split", split, splits))
    return read_scored_pairs(locate("sts") / f"stsb-en-{split}.csv")


def read_scored_pairs(path: str | Path) -> ScoredPairs:
    """A CSV file without header: sentence, sentence, score from 0 to 5.

    Raises:
        DataError: for a file that is missing, empty or of another form; the line is named.
    """
    source = Path(path)
    first, second, scores = [], [], []
    try:
        with source.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream)
            for row in reader:
                score = float(row[2]) if len(row) == 3 else -1.0
                if not 0 <= score <= 5:
                    raise DataError(
                        f"line {reader.line_num} of {source} is not: sentence, sentence, score from 0 to 5"
                    )
                first.append(row[0])
                second.append(row[1])
                scores.append(score)
    except FileNotFoundError as error:
        raise DataError(f"{source} does not exist") from error
    except DataError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{source} is not a table of scored pairs: {error}") from error
    if not first:
        raise DataError(f"{source} is empty; it should hold: sentence, sentence, score from 0 to 5")
    return ScoredPairs(tuple(first), tuple(second), np.asarray(scores))
