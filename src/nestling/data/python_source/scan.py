"""Fast docstring scanner: one regular expression over the bytes, and ``ast`` where it is unsure.

Compiling 200 MB of source to reach its docstrings spends nearly all its time on code that is thrown
away. Few lines matter: those that open a block (they give a definition's scope) and triple-quoted
strings (what looks like a block inside them is none). One expression finds both. Any form that it does
not know for sure is left to the plain twin, :func:`definitions_by_ast`. A file that Python could not
compile may still yield its definitions.
"""

from __future__ import annotations

import ast
import re
import warnings
from functools import cache, reduce

from nestling.data.python_source.definitions import (
    Definition,
    UnreadableSourceError,
    definitions_by_ast,
    parameters_by_ast,
    without_self,
)

# Quantifiers are possessive throughout, so that an expression that fails does so in one pass.
# A line that opens a block, and the start of a triple-quoted string.
_BLOCK = (
    rb"(?=[acdefimtw])(?:(?:async[ \t]++)?(def|class)[ \t]++([^\s(:\[\\]++)"
    rb"|(?:async|if|elif|else|try|except|finally|for|while|with|match|case)\b)"
)
_TRIPLE = rb"\"\"\"|'''"
_TOKEN = re.compile(rb"\n([ \t]*+)%s|%s" % (_BLOCK, _TRIPLE))
_STRING = rb"\"(?:[^\"\\\n]|\\[\s\S])*+\"|'(?:[^'\\\n]|\\[\s\S])*+'"
_COMMENT = rb"#[^\n]*+"
# One piece of the lines on which a triple-quoted string starts.
_PIECE = re.compile(rb"[^\"'#]++|%s|%s" % (_STRING, _COMMENT))
# The rest of a header up to its suite: parameters or bases, with brackets up to eight deep.
_FLAT = rb"[^()\[\]{}\"'#\\]++|\\\n|%s|%s" % (_STRING, _COMMENT)
_INNER = reduce(lambda inner, _: rb"[(\[{](?:%s|%s)*+[)\]}]" % (_FLAT, inner), range(8), rb"(?!)")
_RETURNS = rb"(?:[^:()\[\]{}\"'#\\\n]++|\\\n|%s|%s)*+" % (_INNER, _STRING)
_HEADER_REST = re.compile(rb"[ \t]*+(?:\(((?:%s|%s)*+)\)[ \t]*+)?(?:->%s)?:" % (_FLAT, _INNER, _RETURNS))
# From the colon to the suite: group 1 is the opening of a string, 2 that of one in brackets.
_SUITE = re.compile(
    rb"(?:[ \t]*+(?:%s)?\n)*+[ \t]*+(?:([rRuU]?(?:\"\"\"|'''|\"|'))|(\(\s*+[rRuU]?[\"']|\\))?" % _COMMENT
)
_LINE_STRING = re.compile(_STRING)
_STATEMENT_END = re.compile(rb"[ \t]*+(?:%s)?(?:[\n;]|\Z)" % _COMMENT)

_STRING_OR_COMMENT = re.compile(rb"%s|%s" % (_COMMENT, _STRING))
_BRACKETS = re.compile(rb"[(\[{][^()\[\]{}]*+[)\]}]")


@cache
def _outer_token(indent: int) -> re.Pattern[bytes]:
    """``_TOKEN`` without the blocks that are indented more: within a function none of them matters."""
    return re.compile(rb"\n([ \t]{0,%d}+)%s|%s" % (indent, _BLOCK, _TRIPLE))


class _UnsureError(Exception):
    """The scan found a form that it cannot parse reliably."""


def definitions_by_scan(source: bytes) -> list[Definition]:
    """The same as :func:`definitions_by_ast`, several times faster.

    Raises:
        UnreadableSourceError: if the scan was unsure and the source turns out not to be Python.
    """
    try:
        return _Scan(source).definitions()
    except _UnsureError:
        return definitions_by_ast(source)


class _Scan:
    """One pass over one file.

    ``blocks`` are the open blocks as (column, what a definition in them is called by): the names of the
    classes around it, each with its dot, and None inside a function.
    """

    def __init__(self, source: bytes) -> None:
        self.source = b"\n" + source
        self.found: list[Definition] = []
        self.blocks: list[tuple[int, str | None]] = []

    def definitions(self) -> list[Definition]:
        source, search, position = self.source, _TOKEN.search, 0
        while (token := search(source, position)) is not None:
            if token[1] is None:
                position = self._skip_string(token.start(), position)
                continue
            if self._goes_on(token.start()):
                position = token.end()
                continue
            column = len(token[1].expandtabs())
            around = self._around(column)
            position = token.end()
            search = _TOKEN.search
            if around is None or token[2] is None:
                self.blocks.append((column, around))
                continue
            name = around + _text(token[3])
            position = self._read(name, token[2], position)
            if token[2] == b"def":
                self.blocks.append((column, None))
                search = _outer_token(len(token[1])).search
            else:
                self.blocks.append((column, f"{name}."))
        return self.found

    def _around(self, column: int) -> str | None:
        """Close the blocks that end before a line at ``column``; return the enclosing scope."""
        blocks = self.blocks
        while blocks and blocks[-1][0] >= column:
            blocks.pop()
        return blocks[-1][1] if blocks else ""

    def _goes_on(self, newline: int) -> bool:
        """Whether the line that ends at ``newline`` is continued, so that the next line opens no block."""
        if not self.source.endswith(b"\\", 0, newline):
            return False
        if b"#" in self.source[self.source.rfind(b"\n", 0, newline) : newline]:
            raise _UnsureError  # a comment ends here, whatever stands at its end
        return True

    def _skip_string(self, start: int, position: int) -> int:
        """The end of the triple-quoted string at ``start``, or of the comment or string that contains it."""
        newline = self.source.rfind(b"\n", position, start)
        while newline > position and self.source.endswith(b"\\", 0, newline):
            newline = self.source.rfind(b"\n", position, newline)
        at = max(position, newline + 1)
        while at < start:
            piece = _PIECE.match(self.source, at)
            if piece is None:
                raise _UnsureError
            at = piece.end()
        return at if at > start else self._end_of_triple(start)

    def _end_of_triple(self, start: int) -> int:
        source = self.source
        quotes = source[start : start + 3]
        end = source.find(quotes, start + 3)
        while end > 0 and source[end - 1] == _BACKSLASH and _is_escaped(source, end, start + 3):
            end = source.find(quotes, end + 1)
        if end < 0:
            raise _UnsureError
        return end + 3

    def _read(self, name: str, keyword: bytes, position: int) -> int:
        """Keep the definition whose header continues at ``position`` if documented; return its end."""
        source = self.source
        header = _HEADER_REST.match(source, position)
        if header is None or (header[1] is None and keyword == b"def"):
            raise _UnsureError
        suite = _SUITE.match(source, header.end())
        assert suite is not None  # every part of it may be absent
        if suite[2] is not None:
            raise _UnsureError
        if suite[1] is None:
            return header.end()
        start = suite.end(1) - len(suite[1].lstrip(b"rRuU"))
        end = (
            self._end_of_triple(start)
            if source.startswith(_TRIPLES, start)
            else self._end_of_line_string(start)
        )
        if _STATEMENT_END.match(source, end) is None:
            raise _UnsureError
        parameters = _parameters(header[1]) if keyword == b"def" else None
        self.found.append(Definition(name, parameters, _evaluate(source[suite.start(1) : end])))
        return end

    def _end_of_line_string(self, start: int) -> int:
        string = _LINE_STRING.match(self.source, start)
        if string is None:
            raise _UnsureError
        return string.end()


_BACKSLASH = ord("\\")
_TRIPLES = (b'"""', b"'''")


def _is_escaped(source: bytes, position: int, first: int) -> bool:
    backslashes = position - first - len(source[first:position].rstrip(b"\\"))
    return backslashes % 2 == 1


def _text(name: bytes) -> str:
    if not name.isascii():  # Python normalises such names
        raise _UnsureError
    return name.decode()


def _parameters(text: bytes) -> tuple[str, ...]:
    flat = _STRING_OR_COMMENT.sub(b"", text) if b'"' in text or b"'" in text or b"#" in text else text
    while (shorter := _BRACKETS.sub(b"", flat)) != flat:
        flat = shorter
    if b"lambda" in flat or not flat.isascii():
        try:
            return parameters_by_ast(text.decode())
        except UnreadableSourceError as error:
            raise _UnsureError from error
    parts = flat.replace(b"\\\n", b"").decode().split(",")
    names = [part.partition(":")[0].partition("=")[0].replace(" ", "").strip() for part in parts]
    return without_self([name for name in names if name not in ("", "*", "/")])


def _evaluate(literal: bytes) -> str:
    text = literal.decode()
    prefix = text[: len(text) - len(text.lstrip("rRuU"))]
    if "\\" not in text or prefix in ("r", "R"):
        text = text[len(prefix) :]
        width = 3 if text.startswith(('"""', "'''")) else 1
        return text[width:-width]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes are not ours to report
            value = ast.literal_eval(text)
    except (SyntaxError, ValueError) as error:
        raise _UnsureError from error
    assert isinstance(value, str)
    return value
