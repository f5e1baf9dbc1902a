"""Messages of the library in the words of the command line, with flags in place of arguments.

Errors of the library write an argument as ``name=`` or ``name=value``. Here it becomes a flag of the command.
A call that a command makes becomes the command. Advice about an argument without a flag, or about another
call in Python, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import dropwhile
from typing import Any

_ALIASES = {"text": "column", "draws": "resamples", "encoder": "made_by"}
"""Arguments whose flag has another name."""

_COMMANDS = {
    "AdaptiveIndex.create or Collection.create with at=": "nestling index build or encode with --at "
}
"""Commands that make a call, by the text of the call."""

_OF_POINTS = ("nprobe", "ef", "shortlist", "confidence")

_ARGUMENT = re.compile(
    r"""(?<![\w./'"=<>!*-])(?P<name>[a-z][a-z_]*)=(?![=>])(?P<value>"[^"]*"|'[^']*'|[^\s,;:()]*)"""
    r"""|(?<!\w)(?:'[^']*'|"[^"]*")(?!\w)"""  # quoted text comes from the user
)
_PYTHON = re.compile(r"\w\.\w+\(|[A-Z]\w+(?:\.\w+|\()|\bnestling(?:\.\w+){2}")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_HAS_VERB = re.compile(r"[a-z]+ ")
_CLAUSES, _ALTERNATIVES = "; ", ", or "


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """A message of the library in the words of a command.

    Args:
        message: of the library.
        flags: of the command, by the name of the argument.

    >>> flags = {"missing_ok": "--missing-ok", "wait": "--wait"}
    >>> in_flags("9 is not here; pass missing_ok=True to delete the others", flags)
    '9 is not here; pass --missing-ok to delete the others'
    >>> in_flags("it is open elsewhere; wait with wait=60; to search it, say read_only=True", flags)
    'it is open elsewhere; wait with --wait 60'
    >>> in_flags("it has no code; leave bits out, or make one: stored.calibrated()", flags)
    'it has no code; leave bits out'
    >>> in_flags('make codes: AdaptiveIndex.create or Collection.create with at="bits=2"', flags)
    'make codes: nestling index build or encode with --at "bits=2"'
    """
    for call, command in _COMMANDS.items():
        message = message.replace(call, command)
    first, *advice = message.split(_CLAUSES)
    kept = [_in_words(first, flags)]
    for clause in advice:
        alternatives = clause.split(_ALTERNATIVES)
        possible = [each for each in alternatives if _is_possible(each, flags)]
        if possible and possible[0] != alternatives[0]:  # the first alternative had the verb
            possible = list(dropwhile(lambda each: not _HAS_VERB.match(each), possible))
        kept += [_in_words(_ALTERNATIVES.join(possible), flags)] if possible else []
    return _CLAUSES.join(kept)


def command_of(group: Any, words: Sequence[str]) -> Any:
    """The command that the words of a command line call."""
    for word in words:
        found = getattr(group, "commands", {}).get(word)
        if found is None:
            break
        group = found
    return group


def flags_of(command: Any) -> dict[str, str]:
    """The flags of a command, by the name of the argument."""
    options = (each for each in command.params if each.param_type_name == "option")
    found = {option.name: max(option.opts, key=len) for option in options}
    return found | {name: found[flag] for name, flag in _ALIASES.items() if flag in found}


def _is_possible(advice: str, flags: Mapping[str, str]) -> bool:
    """Whether a command line can do it: it names flags alone, and no call in Python."""
    return set(_arguments(advice)) <= set(flags) and not _PYTHON.search(_QUOTED.sub("", advice))


def _arguments(text: str) -> Iterator[str]:
    """Names of the library's arguments in a text."""
    for found in _ARGUMENT.finditer(text):
        if found["name"] is not None and not _is_text_form(found):
            yield found["name"]


def _is_text_form(found: re.Match[str]) -> bool:
    """Whether it is part of a granularity or a point, which the command line writes in the same way."""
    from nestling.axes import named_axes  # slow to import, and only errors need it

    return found["name"] in {*named_axes(), *_OF_POINTS} and found["value"] != ""


def _in_words(text: str, flags: Mapping[str, str]) -> str:
    def words(found: re.Match[str]) -> str:
        name = found["name"]
        if name is None or _is_text_form(found):
            return found[0]
        value = "" if found["value"] == "True" else found["value"].strip("'")
        return f"{flags.get(name) or name.replace('_', ' ')} {value}".strip()

    return _ARGUMENT.sub(words, text)
