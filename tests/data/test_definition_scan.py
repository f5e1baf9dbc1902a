"""The fast reader of definitions against the plain one, which compiles the whole file."""

from __future__ import annotations

import random
import sysconfig
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.data.python_source import scan
from nestling.data.python_source.definitions import (
    Definition,
    UnreadableSourceError,
    definitions_by_ast,
    normalise,
    read_source,
)
from nestling.data.python_source.prose import describe, first_paragraph
from samples import examples

# Forms that stand in a file as they are, and those that an editor might change.
_FILE = Path(__file__).parent / "definition_forms.txt"
WRITTEN = dict(part.split("\n", 1) for part in _FILE.read_text(encoding="utf-8").split("=== ")[1:])
FORMS = WRITTEN | {
    "empty": "",
    "only a docstring": '"""def f(): pass"""',
    "no newline at the end": 'def f():\n    """yes"""',
    "tabs": 'class A:\n\tdef f(self):\n\t\t"yes"\n\tif x:\n\t\tdef g(self):\n\t\t\t"yes"\n',
    "windows line ends": 'def f():\r\n    """a\r\n    b"""\r\n',
    "form feed": 'x = 1\n\f\ndef f():\n    "yes"\n\fdef g():\n    "yes"\n',
    "byte order mark": '\ufeffdef f():\n    "yes"\n',
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_read_as_python_reads_it(form: str) -> None:
    source = normalise(FORMS[form].encode())
    assert scan.definitions_by_scan(source) == definitions_by_ast(source)


def test_the_common_forms_need_no_second_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "definitions_by_ast", lambda _: pytest.fail("the plain reader was asked"))
    for form in (
        "plain",
        "method",
        "default strings",
        "annotations",
        "comments in parameters",
        "escaped quotes",
    ):
        assert scan.definitions_by_scan(FORMS[form].encode())


def test_it_agrees_with_the_compiler_on_installed_packages() -> None:
    paths = sysconfig.get_paths()
    files = sorted({*Path(paths["stdlib"]).rglob("*.py"), *Path(paths["purelib"]).rglob("*.py")})
    total = 0
    for path in random.Random(0).sample(files, 250):
        try:
            source = read_source(path)
            expected = definitions_by_ast(source)
        except UnreadableSourceError:
            continue
        assert scan.definitions_by_scan(source) == expected, path
        total += len(expected)
    assert total > 1000


LINES = sorted({line.strip() for form in WRITTEN.values() for line in form.splitlines()})


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(LINES)), max_size=12))
@settings(max_examples=examples(300))
def test_whatever_compiles_is_read_alike(lines: list[tuple[int, str]]) -> None:
    source = "\n".join("    " * indent + line for indent, line in lines).encode()
    try:
        expected = definitions_by_ast(source)
    except UnreadableSourceError:
        return
    assert scan.definitions_by_scan(source) == expected


HEADS = (
    "def f(a, b=(1, ')')):",
    "class A(B['x']):",
    "if x:  # it's",
    "while x:",
    "async def g(*c):",
    "class B:",
)


@st.composite
def programs(draw: st.DrawFn, depth: int = 0) -> str:
    """Programs that compile: forms one after the other and within blocks of every kind."""
    parts = ["x = 0\n"]
    for _ in range(draw(st.integers(1, 3))):
        parts.append(WRITTEN[draw(st.sampled_from(sorted(WRITTEN)))])
        if depth < 3 and draw(st.booleans()):
            block = textwrap.indent(draw(programs(depth=depth + 1)), "    ")
            parts.append(f"{draw(st.sampled_from(HEADS))}\n{block}")
    return "".join(parts)


@given(programs())
@settings(max_examples=examples(200))
def test_forms_within_blocks_are_read_alike(program: str) -> None:
    source = program.encode()
    assert scan.definitions_by_scan(source) == definitions_by_ast(source)


@pytest.mark.parametrize(
    "text", ['def f():\n    """never closed\n', "def f(a:\n    'x'\n", 'def f(]):\n    "x"\n']
)
def test_source_that_is_no_python_is_said_to_be_none(text: str) -> None:
    with pytest.raises(UnreadableSourceError, match="syntax error"):
        scan.definitions_by_scan(text.encode())


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"x = '\xe4'\n", "wrong encoding"),
        (b"# coding: no-such\nx = 1\n", "wrong encoding"),
        (b"# coding: utf-8\nx = '\xe4'\n", "wrong encoding"),
        (b"x = 1\0", "NUL byte"),
    ],
)
def test_bytes_that_are_no_source(tmp_path: Path, raw: bytes, reason: str) -> None:
    (tmp_path / "a.py").write_bytes(raw)
    with pytest.raises(UnreadableSourceError, match=reason):
        read_source(tmp_path / "a.py")
    with pytest.raises(UnreadableSourceError, match="cannot be opened"):
        read_source(tmp_path / "none.py")


def test_an_encoding_cookie_is_followed() -> None:
    source = normalise("# -*- coding: latin-1 -*-\ndef f():\n    'sch\xf6n'\n".encode("latin-1"))
    assert definitions_by_ast(source) == scan.definitions_by_scan(source) == [Definition("f", (), "sch\xf6n")]


@pytest.mark.parametrize(
    ("docstring", "paragraph"),
    [
        ("\n    Read a file.\n\n    More.", "Read a file."),
        ("Read a\n    file\n    twice.\n", "Read a file twice."),
        ("Read it.\n    :param x: y", "Read it."),
        ("Read it.\n    Args:\n        x: y", "Read it."),
        ("Read it.\n    Parameters\n    ----------", "Read it."),
        ("Title of it\n===========\ntext", "Title of it"),
        ("Read it.\n    >>> read()", "Read it."),
        ("Read ``x`` with :meth:`~a.b.C.read` or `docs <https://x.y>`_.", "Read x with a.b.C.read or docs."),
        ("See [the docs](https://x.y) on **this**.", "See the docs on this."),
    ],
)
def test_the_first_paragraph_is_plain_text(docstring: str, paragraph: str) -> None:
    assert first_paragraph(docstring) == paragraph


@pytest.mark.parametrize(
    ("name", "text", "taken"),
    [
        ("read", "Read a file into memory.", True),
        ("A.read", "Read a file into memory.", True),
        ("_read", "Read a file into memory.", False),
        ("_A.read", "Read a file into memory.", False),
        ("A.__init__", "Read a file into memory.", False),
        ("test_read", "Read a file into memory.", False),
        ("read", "Read a file.", False),
        ("read", "Deprecated: use the other one.", False),
        ("read", "See the other one for details.", False),
        ("read", "x = (a + b) * c / (d - e)", False),
        ("read", "pixel_values (torch.Tensor of shape (1, 2)): the tensors of it", False),
        ("read", "Read a \x00 file into memory.", False),
    ],
)
def test_what_describes_something_is_taken(name: str, text: str, taken: bool) -> None:
    assert (describe(Definition(name, ("x", "*y"), text)) is not None) == taken
    if taken:
        assert describe(Definition(name, ("x", "*y"), text)) == (f"{name}(x, *y)", text)
        assert describe(Definition(name, None, text)) == (name, text)
