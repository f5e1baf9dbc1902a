"""Parses untyped text, such as a CSV cell, as a number, a boolean, a missing value or text."""

from __future__ import annotations

import math
import re

INT_END = 2**63
"""Whole numbers lie from its negative up to it, without it."""

# fmt: off
MISSING_WORDS = frozenset({
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
})
# fmt: on
"""Words for a missing value among numbers or truth values: those of ``pandas.read_csv``."""

_INFINITE = re.compile(r"[-+]?inf(inity)?", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"-?(0|[1-9]\d*)", re.ASCII)
_DECIMAL = re.compile(r"-?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_TRUTH = {"true": True, "false": False}


def said_by(text: str) -> str | int | float | bool | None:
    """A text as a number, a truth value, None if it is blank or a missing value, or itself.

    A number whose digits would be lost stays a text: ``007``, ``+49 30``, and whole ones beyond 64 bits.

    >>> [said_by(text) for text in ("12", "-.5", "007", "TRUE", "n/a", "12345678901234567890")]
    [12, -0.5, '007', True, None, '12345678901234567890']
    """
    word = text.strip()
    if not word or word in MISSING_WORDS:
        return None
    if _WHOLE.fullmatch(word):
        # Python refuses to read thousands of digits, and 64 bits hold fewer than twenty.
        number = int(word) if len(word) <= 20 else INT_END
        return number if -INT_END <= number < INT_END else text
    if _DECIMAL.fullmatch(word):
        return float(word) if math.isfinite(float(word)) else text
    if _INFINITE.fullmatch(word):
        return float(word)
    return _TRUTH.get(word.lower(), text)
