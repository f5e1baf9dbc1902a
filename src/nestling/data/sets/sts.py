"""The STS benchmark: sentence pairs with similarity scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.arrays import as_array
from nestling.cut import name_rows
from nestling.data.pairs import DOCUMENT_COLUMNS, QUERY_COLUMNS
from nestling.data.sets.source import locate
from nestling.data.split import deal, groups_by_text
from nestling.data.tables.delimited import header
from nestling.data.tables.table import read_table
from nestling.data.tables.text_checks import check_texts
from nestling.errors import ConfigError, DataError, unknown


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs of sentences and how similar each is.

    Args:
        first: one sentence per row.
        second: the partner of each of ``first``.
        scores: ``Float64[n]``, finite, higher for what is more alike. Measures and losses look at their order
            alone, so any range will do; the STS benchmark has 0 (unrelated) to 5 (same meaning).

    Raises:
        DataError: for different lengths, texts that are blank or no whole Unicode, or scores that are no
            finite numbers (rows are named).
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("first", "second"):
            object.__setattr__(self, name, tuple(check_texts(getattr(self, name), name)))
        scores = as_array(self.scores, "scores")
        lengths = [len(self.first), len(self.second)]
        if scores.ndim != 1 or scores.dtype.kind not in "biuf" or {*lengths, len(scores)} != {len(scores)}:
            raise DataError(
                "scored pairs need as many first as second texts and scores (numbers), not {}, {} and "
                "{} of shape {}".format(*lengths, scores.dtype, scores.shape)
            )
        wrong = np.flatnonzero(~np.isfinite(scores.astype(np.float64)))
        if len(wrong):
            raise DataError(
                f"scores hold NaN or infinity in {name_rows(wrong)}; repair or remove those pairs"
            )
        object.__setattr__(self, "scores", scores.astype(np.float64))

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


def read_scored_pairs(
    path: str | Path, first: str | None = None, second: str | None = None, score: str | None = None
) -> ScoredPairs:
    """Scored pairs out of a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file.

    Columns that are not named are found by their usual names: ``sentence1``, ``text1``, ``question1`` ...,
    ``sentence2`` ..., and ``score``, ``similarity``, ``label`` ... A file of three columns is taken in its
    order, with or without a line of names: one that holds a number is a pair.

    Args:
        path: the file, read as by :func:`~nestling.data.tables.table.read_table`; ``-``: standard
            input.
        first: its column of first texts.
        second: its column of second texts.
        score: its column of scores, finite numbers of any range.

    Raises:
        DataError: if the file cannot be read or is empty, a column is missing (the nearest names are listed),
            texts are blank or scores are no finite numbers (their lines are named).
    """
    named = header(first, second, score)
    table = read_table(path, lambda fields: named(fields) and not any(map(_is_number, fields)))
    given = {"first": first, "second": second, "score": score}
    chosen = {role: name or table.find_column(_COLUMNS[role]) for role, name in given.items()}
    if len(table.columns) == len(chosen):
        left = [name for name in table.columns if name not in chosen.values()]
        chosen = {role: name or left.pop(0) for role, name in chosen.items()}
    for role, name in chosen.items():
        if name is None:
            raise DataError(
                f"{table.path} has no column known to hold the {role} of scored pairs, but: "
                f"{', '.join(table.columns)}; name it with {role}=, or name it with "
                f"columns='first=NAME,second=NAME,score=NAME', or call it {_COLUMNS[role][0]!r}"
            )
    columns = {role: str(name) for role, name in chosen.items()}
    texts = [tuple(table.texts(columns[role])) for role in ("first", "second")]
    return ScoredPairs(texts[0], texts[1], np.array(table.floats(columns["score"])))


_COLUMNS = {
    "first": (
        "sentence1", "text1", "question1", "sentencea", "texta", "first", "premise", *QUERY_COLUMNS,
    ),
    "second": (
        "sentence2", "text2", "question2", "sentenceb", "textb", "second", "hypothesis", *DOCUMENT_COLUMNS,
    ),
    "score": (
        "score", "similarity", "similarity score", "relatedness score", "rating", "gold", "label",
        "is duplicate", "relevance", "grade",
    ),
}  # fmt: skip


def _is_number(field: str) -> bool:
    try:
        return math.isfinite(float(field.replace(",", ".")))
    except ValueError:
        return False
