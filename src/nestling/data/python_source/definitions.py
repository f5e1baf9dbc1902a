"""Definitions and docstrings of a Python file, read with ``ast``: the reference for :mod:`.scan`."""

from __future__ import annotations

import ast
import codecs
import io
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nestling.arguments.paths import home_path

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class UnreadableSourceError(Exception):
    """A file that Python could not compile; ``reason`` is the sort of fault, for a count."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Definition(NamedTuple):
    """A documented class or function that is not inside a function.

    Args:
        name: with the classes around it, as in ``"Path.open"``.
        parameters: names only, ``self`` and ``cls`` left out, ``*`` and ``**`` kept; None for a class.
        docstring: as Python would evaluate it, with its indentation.
    """

    name: str
    parameters: tuple[str, ...] | None
    docstring: str


def read_source(path: str | Path) -> bytes:
    r"""The file as UTF-8 with ``\n`` line ends, whatever encoding its cookie names.

    Raises:
        UnreadableSourceError: if it cannot be opened or decoded, or holds a NUL byte.
    """
    try:
        source = home_path(path).read_bytes()
    except OSError as error:
        raise UnreadableSourceError("cannot be opened") from error
    return normalise(source)


def normalise(source: bytes) -> bytes:
    r"""``source`` as UTF-8 without byte order mark, form feeds at line starts or ``\r``."""
    source = source.removeprefix(codecs.BOM_UTF8)
    if b"\0" in source:
        raise UnreadableSourceError("NUL byte")
    try:
        if b"coding" in source[:400]:
            encoding = tokenize.detect_encoding(io.BytesIO(source).readline)[0]
            source = source.decode(encoding).encode()
        elif not source.isascii():
            source.decode()
    except (SyntaxError, LookupError, UnicodeDecodeError) as error:
        raise UnreadableSourceError("wrong encoding") from error
    if b"\r" in source:
        source = source.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return source.replace(b"\n\f", b"\n") if b"\f" in source else source


def definitions_by_ast(source: bytes) -> list[Definition]:
    """The documented definitions of ``source`` (as of :func:`read_source`), in their order.

    Raises:
        UnreadableSourceError: for source that is not Python of this interpreter's version.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes are not ours to report
            tree = ast.parse(source.decode())
    except (SyntaxError, ValueError) as error:
        raise UnreadableSourceError("syntax error") from error
    except (RecursionError, MemoryError) as error:
        raise UnreadableSourceError("too deeply nested") from error
    return [found for node in _scopes_in(tree) for found in _visit(node, "")]


def _visit(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, around: str) -> Iterator[Definition]:
    is_class = isinstance(node, ast.ClassDef)
    name = around + node.name
    docstring = ast.get_docstring(node, clean=False)
    if docstring is not None:
        yield Definition(name, None if isinstance(node, ast.ClassDef) else _parameters(node.args), docstring)
    if is_class:
        for inner in _scopes_in(node):
            yield from _visit(inner, f"{name}.")


def _scopes_in(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """The definitions directly in a block, also under its ``if``, ``try``, ``with``, ``match`` ..."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _SCOPES):
            yield child
        elif not isinstance(child, ast.expr):
            yield from _scopes_in(child)


def _parameters(arguments: ast.arguments) -> tuple[str, ...]:
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    if arguments.vararg:
        names.append(f"*{arguments.vararg.arg}")
    names += [argument.arg for argument in arguments.kwonlyargs]
    if arguments.kwarg:
        names.append(f"**{arguments.kwarg.arg}")
    return without_self(names)


def without_self(names: list[str]) -> tuple[str, ...]:
    """``names`` without the first if that is the object a method is called on."""
    return tuple(names[1:] if names and names[0] in ("self", "cls") else names)


def parameters_by_ast(text: str) -> tuple[str, ...]:
    """Names out of the text between the parentheses of one ``def``.

    Raises:
        UnreadableSourceError: if the text is not a list of parameters.
    """
    try:
        node = ast.parse(f"def f({text}\n): pass").body[0]
    except (SyntaxError, ValueError) as error:
        raise UnreadableSourceError("syntax error") from error
    assert isinstance(node, ast.FunctionDef)
    return _parameters(node.args)
