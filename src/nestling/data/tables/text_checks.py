"""Validation of input texts: strings, not blank, valid Unicode."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

from nestling.arguments.formatting import type_of
from nestling.cut import name_rows
from nestling.errors import DataError

_HALF = re.compile("[\ud800-\udfff]")


def check_texts(
    texts: Iterable[Any],
    what: str = "texts",
    name: Callable[[Sequence[int]], str] = name_rows,
    *,
    may_be_blank: bool = False,
) -> list[str]:
    """``texts`` as a list of strings that can be encoded and saved, or an error that names the others.

    Args:
        texts: strings in an order: a list, an array, a column of a table.
        what: their name in errors.
        name: names rows in errors, such as by their line in a file.
        may_be_blank: take texts without a word too.

    Raises:
        DataError: for texts that are no strings, blank, or hold half of a surrogate pair (as a torn escape
            in JSON does, or a byte on the command line that is not UTF-8); the rows are named.
    """
    if isinstance(texts, str | bytes):
        raise DataError(f"{what} must be a list of texts, not one text; write [text]")
    if isinstance(texts, Mapping | Set) or not isinstance(texts, Iterable):
        raise DataError(f"{what} must be a list of texts, not {type_of(texts)}")
    rows: list[Any] = texts.to_pylist() if hasattr(texts, "to_pylist") else list(texts)
    wrong = [row for row, text in enumerate(rows) if not isinstance(text, str)]
    if wrong:
        kind = type_of(rows[wrong[0]])
        verb = "holds" if len(wrong) == 1 else "hold"
        raise DataError(f"{what} must be strings, but {name(wrong)} {verb} {kind}; convert or remove those")
    blank = [row for row, text in enumerate(rows) if not text or text.isspace()]
    if blank and not may_be_blank:
        raise DataError(f"{what} are blank in {name(blank)}; fill or remove those")
    torn = [row for row, text in enumerate(rows) if is_torn(text)]
    if torn:
        half = ord(_HALF.findall(rows[torn[0]])[0])
        raise DataError(
            f"{what} hold half of a character (the lone surrogate U+{half:04X}) in {name(torn)}; repair "
            "those, or give them as UTF-8"
        )
    return rows


def is_torn(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which no UTF-8 can."""
    return not text.isascii() and _HALF.search(text) is not None
