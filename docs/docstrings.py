"""Docstrings as pages want them: doctests in code blocks, Sphinx roles as links."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`(?P<name>[^`]+)`")
_DOCTEST = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)


class PageDocstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed; in a terminal they stay as they are."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(_code_block, _ROLE.sub(_link, obj.docstring.value))


def _link(role: re.Match[str]) -> str:
    """A link for a name given in full, the name alone for others."""
    name = role["name"].removeprefix("~")
    short = name.rpartition(".")[2] if role["name"].startswith("~") else name
    return f"[`{short}`][{name}]" if name.startswith("nestling.") else f"`{short}`"


def _code_block(doctest: re.Match[str]) -> str:
    indent = doctest["indent"]
    return f"{indent}```pycon\n{doctest[0]}\n{indent}```"
