"""Errors in the words of the command line: where the library names an argument, the flag is named.

In errors of the library an argument is written ``name=`` or ``name=value``. Here it becomes the flag of the
command that was called. Advice that needs an argument without a flag is of no use here and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import dropwhile
from typing import Any

_ALIASES = {"text": "column", "draws": "resamples", "encoder": "made_by"}
"""Parameters of commands that are called otherwise than the argument that they set."""

_OF_POINTS = ("nprobe", "ef", "shortlist", "confidence")

_ARGUMENT = re.compile(
    r"""(?<![\w./'"=<>!*-])(?P<name>[a-z][a-z_]*)=(?![=>])(?P<value>"[^"]*"|'[^']*'|[^\s,;:()]*)"""
    r"""|(?<!\w)(?:'[^']*'|"[^"]*")(?!\w)"""  # what is quoted was given by the user
)
_HAS_VERB = re.compile(r"[a-z]+ ")
_CLAUSES, _ALTERNATIVES = "; ", ", or "


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """A message of the library in the words of a command.

    Args:
        message: as the library writes it.
        flags: of the command, by the names of the arguments that they set.

    >>> flags = {"missing_ok": "--missing-ok", "wait": "--wait"}
    >>> in_flags("9 is not here; pass missing_ok=True to delete the others", flags)
    '9 is not here; pass --missing-ok to delete the others'
    >>> in_flags("it is open elsewhere; wait with wait=60; to search it, say read_only=True", flags)
    'it is open elsewhere; wait with --wait 60'
    """
    first, *advice = message.split(_CLAUSES)
    kept = [_in_words(first, flags)]
    for clause in advice:
        ways = clause.split(_ALTERNATIVES)
        open_ways = [way for way in ways if set(_arguments(way)) <= set(flags)]
        if open_ways and open_ways[0] != ways[0]:  # the verb went with the first
            open_ways = list(dropwhile(lambda way: not _HAS_VERB.match(way), open_ways))
        kept += [_in_words(_ALTERNATIVES.join(open_ways), flags)] if open_ways else []
    return _CLAUSES.join(kept)


def command_of(group: Any, words: Sequence[str]) -> Any:
    """The command that a command line calls, which begins with its name."""
    for word in words:
        found = getattr(group, "commands", {}).get(word)
        if found is None:
            break
        group = found
    return group


def flags_of(command: Any) -> dict[str, str]:
    """The flags of a command of click, by the names of the arguments that they set."""
    options = (each for each in command.params if each.param_type_name == "option")
    found = {option.name: max(option.opts, key=len) for option in options}
    return found | {name: found[flag] for name, flag in _ALIASES.items() if flag in found}


def _arguments(text: str) -> Iterator[str]:
    """The names of the arguments of the library in a text."""
    for found in _ARGUMENT.finditer(text):
        if found["name"] is not None and not _is_text_form(found):
            yield found["name"]


def _is_text_form(found: re.Match[str]) -> bool:
    """Whether it stands in a granularity or a point, which the command line takes as the same text."""
    from nestling.granularity import AXES  # when an error is told: it takes long

    return found["name"] in (*AXES, *_OF_POINTS) and found["value"] != ""


def _in_words(text: str, flags: Mapping[str, str]) -> str:
    def words(found: re.Match[str]) -> str:
        name = found["name"]
        if name is None or _is_text_form(found):
            return found[0]
        value = "" if found["value"] == "True" else found["value"].strip("'")
        return f"{flags.get(name) or name.replace('_', ' ')} {value}".strip()

    return _ARGUMENT.sub(words, text)
