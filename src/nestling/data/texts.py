"""Training pairs made from single texts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from nestling.data.pairs import TextPairs
from nestling.data.split import plain_text
from nestling.data.tables.delimited import header
from nestling.data.tables.table import read_in_parts, text_column
from nestling.data.tables.text_checks import check_texts
from nestling.errors import DataError

_FEWEST_WORDS = 3
_log = logging.getLogger(__name__)
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+(?=[^\sa-z])|[\u3002\uff01\uff1f]\s*")


class TextFile:
    """The texts of a file, read again on each iteration, some thousands at a time.

    Args:
        path: a ``.jsonl``, ``.csv``, ``.tsv``, ``.parquet`` or ``.txt`` file (one text per line), as
            :func:`~nestling.data.tables.table.read_table` reads it; ``-`` is standard input. Piped
            data that are not JSON lines or parquet are one text per line, or CSV where ``text`` is named.
        text: its column; by default the only one, or the first of ``text``, ``content``, ``body``, ...
        may_be_blank: take blank texts too, as ``""``; they are refused by default.

    Going through them raises:
        DataError: if the file or column is missing, unreadable or empty, or texts are blank (named).
    """

    def __init__(self, path: str | Path, text: str | None = None, *, may_be_blank: bool = False) -> None:
        self.path, self.text, self.may_be_blank = path, text, may_be_blank

    def __iter__(self) -> Iterator[str]:
        column = self.text
        for part in read_in_parts(
            self.path, header(self.text), piped=".txt" if self.text is None else ".csv"
        ):
            column = text_column(part) if column is None else column
            yield from part.texts(column, may_be_blank=self.may_be_blank)

    def check(self) -> None:
        """Read the first text, so that a wrong file or column is known before anything else is done.

        Raises:
            DataError: if the file or column is missing, unreadable or empty.
        """
        next(iter(self), None)


def read_texts(
    path: str | Path, text: str | None = None, *, leave_out_blank: bool = False
) -> tuple[str, ...]:
    """All texts of a :class:`TextFile`, in memory.

    Args:
        path: the file.
        text: its column; by default the only one, or the first of ``text``, ``content``, ``body``, ...
        leave_out_blank: skip blank texts and log their number.

    Raises:
        DataError: if the file or column is missing, unreadable or empty, or texts are blank (named).
    """
    texts = tuple(TextFile(path, text, may_be_blank=leave_out_blank))
    whole = tuple(filter(None, texts))
    if len(whole) < len(texts):
        _log.info("left out: %d texts of %s that are blank", len(texts) - len(whole), path)
    if not whole:
        raise DataError(f"{path} is empty: all its texts are blank")
    return whole


def pairs_from_texts(texts: Iterable[str]) -> TextPairs:
    r"""Pair the opening of each text with the rest of it.

    The query is the title - the first line, if the text has several - or else the first sentence; the
    document is what follows, without the query, so that a pair cannot be matched by the words alone that
    it was cut from. A single sentence is cut in the middle. Each part has at least three words; texts
    that are too short for that, and repeated ones, are left out and counted.

    The opening of a text mostly gives its topic, which makes the pairs a fair substitute for
    questions and answers; figures measured on them rank models and sizes of one collection, and do not
    compare with figures from real queries.

    Raises:
        DataError: for texts that are no strings or no whole Unicode (named), or fewer than two that can be
            paired.

    Source: the inverse cloze task, Lee et al. 2019, arXiv 1906.00300, section 4; with the title in place
    of a random sentence, as in Wang et al. 2022, arXiv 2212.03533, section 3.

    >>> texts = ["Cats purr a lot. They do it when content.", "On owls at night\nOwls hunt mice."]
    >>> pairs_from_texts(texts).queries
    ('Cats purr a lot.', 'On owls at night')
    """
    queries, documents = [], []
    seen: set[str] = set()
    short = repeated = 0
    for text in check_texts(texts, may_be_blank=True):
        key = plain_text(text)
        parts = _divide(text)
        if key in seen:
            repeated += 1
        elif parts is None:
            short += 1
        else:
            queries.append(parts[0])
            documents.append(parts[1])
        seen.add(key)
    if len(queries) < 2:
        raise DataError(
            f"only {len(queries)} of {len(queries) + short + repeated} texts can be paired; each needs "
            f"at least {2 * _FEWEST_WORDS} words (give longer texts, or real pairs: read_pairs)"
        )
    left_out = {"texts too short to pair": short, "repeated texts": repeated}
    return TextPairs(queries, documents, left_out={reason: n for reason, n in left_out.items() if n})


def _divide(text: str) -> tuple[str, str] | None:
    """(opening, rest), each on one line, or None if one of them would be too short."""
    text = text.strip()
    title, _, body = text.partition("\n")
    for opening, rest in ((title, body), *_sentence_cuts(text), _halves(text)):
        if min(len(opening.split()), len(rest.split())) >= _FEWEST_WORDS:
            return " ".join(opening.split()), " ".join(rest.split())
    return None


def _sentence_cuts(text: str) -> Iterable[tuple[str, str]]:
    return ((text[: end.end()], text[end.end() :]) for end in _SENTENCE_END.finditer(text))


def _halves(text: str) -> tuple[str, str]:
    words = text.split()
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])
