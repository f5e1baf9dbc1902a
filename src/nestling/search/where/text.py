"""Conditions as text, in the style of SQL: ``year>=2020 and brand in (acme, "big corp")``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nestling.data.tables.fields.kinds import FieldKind, Value, kind_of
from nestling.data.tables.fields.words import said_by
from nestling.errors import DataError
from nestling.search.where.condition import All, Compare, Condition, Either, Not, Operator

_TOKEN = re.compile(
    r"""\s*(?:(?P<op><=|>=|!=|<>|==|=|<|>)|(?P<mark>[(),])|(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<word>[^\s<>=!(),"']+))""",
    re.DOTALL,
)
_SIGNS: dict[str, Operator] = {"=": "eq", "==": "eq", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TRUTH = {"true": True, "false": False}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    place: int


class Parser:
    """Reads the text form: ``or`` binds less than ``and``, which binds less than ``not``.

    Args:
        text: to be read.
        fields: the kind of each field, where that is known; it says what a word without quotes is.
    """

    def __init__(self, text: str, fields: Mapping[str, FieldKind]) -> None:
        self._text, self._fields = text, fields
        self._tokens = list(self._split())
        self._next = 0

    def read(self) -> Condition:
        """The condition that the whole text says.

        Raises:
            DataError: for a text that says none; the place is named.
        """
        found = self._either()
        if self._next < len(self._tokens):
            raise self._error("and, or, or the end (put a value of several words in quotes)")
        return found

    def _either(self) -> Condition:
        parts = [self._all()]
        while self._takes("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _all(self) -> Condition:
        parts = [self._one()]
        while self._takes("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self) -> Condition:
        if self._takes("not"):
            return Not(self._one())
        if self._takes("("):
            found = self._either()
            self._expect(")")
            return found
        token = self._take("word", "quoted")
        if token is None:
            raise self._error("the name of a field")
        return self._compare(_plain(token))

    def _compare(self, field: str) -> Condition:
        is_negated = self._takes("not")
        if self._takes("in"):
            return self._negated(Compare(field, "in", self._values(field)), is_negated)
        sign = None if is_negated else self._take("op")
        if sign is None:
            raise self._error("in" if is_negated else "one of = != < <= > >= in")
        if sign.text in ("!=", "<>"):
            return Not(Compare(field, "eq", (self._value(field),)))
        return Compare(field, _SIGNS[sign.text], (self._value(field),))

    @staticmethod
    def _negated(found: Condition, is_negated: bool) -> Condition:
        return Not(found) if is_negated else found

    def _values(self, field: str) -> tuple[Value, ...]:
        self._expect("(")
        values = [self._value(field)]
        while self._takes(","):
            values.append(self._value(field))
        self._expect(")")
        return tuple(dict.fromkeys(values))

    def _value(self, field: str) -> Value:
        """A quoted text; or a word, which is what the field holds, or else a number if it looks like one."""
        token = self._take("word", "quoted")
        if token is None:
            raise self._error("a value")
        word = _plain(token)
        if token.kind == "quoted":
            return word
        kind = self._fields.get(field) or kind_of([said_by(word)])
        # A word of another kind than the field stays one, and the check of the whole says so.
        if kind in ("int", "float"):
            return _number(word)
        return _TRUTH.get(word.lower(), word) if kind == "bool" else word

    def _take(self, *kinds: str) -> _Token | None:
        token = self._tokens[self._next] if self._next < len(self._tokens) else None
        if token is None or token.kind not in kinds:
            return None
        self._next += 1
        return token

    def _takes(self, text: str) -> bool:
        """Whether a keyword or a mark comes next, which is then passed."""
        token = self._tokens[self._next] if self._next < len(self._tokens) else None
        if token is None or token.kind == "quoted" or token.text.lower() != text:
            return False
        self._next += 1
        return True

    def _expect(self, text: str) -> None:
        if not self._takes(text):
            raise self._error(text)

    def _split(self) -> Iterator[_Token]:
        place, text = 0, self._text.rstrip()
        if not text:
            raise DataError("where is empty; give a condition, such as year>=2020, or leave it out")
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise DataError(
                    f"where cannot be read at {text[place:].strip()[:30]!r}: is a quote not closed?"
                )
            kind = str(match.lastgroup)
            yield _Token(kind, match[kind], match.start(kind))
            place = match.end()

    def _error(self, expected: str) -> DataError:
        token = self._tokens[self._next] if self._next < len(self._tokens) else None
        found = "the end" if token is None else f"{self._text[token.place :][:30]!r}"
        return DataError(f"where {self._text!r} has {found} where {expected} is expected")


def _number(word: str) -> int | float | str:
    """The number that a word says, as exactly as it says it."""
    if not _NUMBER.fullmatch(word):
        return word
    try:
        return int(word)
    except ValueError:
        number = float(word)
        return number if math.isfinite(number) else word


def _plain(token: _Token) -> str:
    return _ESCAPED.sub(r"\1", token.text[1:-1]) if token.kind == "quoted" else token.text
