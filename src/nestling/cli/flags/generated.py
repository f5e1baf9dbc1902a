"""Flags generated from fields: those of a plan's tables, and those of a dataclass of flags."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any

import typer

from nestling.cli.flags.completion import among, models
from nestling.errors import ConfigError
from nestling.toml_plan import Setting

Command = Callable[..., None]

_PANELS = {
    "data": "Data",
    "model": "Model",
    "loss": "Loss",
    "masking": "Masking (with --tune masked)",
    "train": "Training",
    "output": "Output",
}


def with_settings(settings: Sequence[Setting]) -> Callable[[Command], Command]:
    """Give a command a flag for each setting of a plan, with the description and the default of the setting.

    The command takes them as ``**flags``; those that were not given are None.
    """

    def generate(command: Command) -> Command:
        own = [each for each in _parameters(command) if each.kind is not Parameter.VAR_KEYWORD]
        return _with_signature(command, [*own, *map(_flag_of, settings)])

    return generate


def with_groups(command: Command) -> Command:
    """Give a command, in place of each parameter that is a dataclass, a flag for each field of it.

    The fields are annotated as parameters of typer are. The command is called with the dataclass.
    """
    groups: dict[str, Any] = {
        each.name: each.annotation for each in _parameters(command) if is_dataclass(each.annotation)
    }

    @wraps(command)
    def call(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    expanded: list[Parameter] = []
    for each in _parameters(command):
        expanded += _parameters(groups[each.name]) if each.name in groups else [each]
    return _with_signature(call, expanded)


def read_flags(settings: Iterable[Setting], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a plan from its flags; lists are written as numbers with commas between.

    Raises:
        ConfigError: for a list of anything else.
    """
    lists = {each.name for each in settings if each.kind is list}
    return {
        name: _numbers(name, value) if name in lists and value is not None else value
        for name, value in flags.items()
    }


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{name}={text!r} must be numbers with commas between, such as 4,2,1") from error


def _flag_of(setting: Setting) -> Parameter:
    kind = setting.kind if setting.kind in (bool, int, float) else str
    complete = among(*setting.options) if setting.options else models if setting.name == "encoder" else None
    option = typer.Option(
        None, help=_help(setting), rich_help_panel=_PANELS[setting.table], autocompletion=complete
    )
    return Parameter(setting.name, Parameter.KEYWORD_ONLY, default=option, annotation=kind)


def _help(setting: Setting) -> str:
    """The description as a sentence, with the default that holds where neither flag nor file says another."""
    words = setting.description
    sentence = f"{words[:1].upper()}{words[1:].removesuffix('.')}."
    if setting.default is None or setting.default is False:
        return sentence
    shown = setting.name.replace("_", "-") if setting.default is True else setting.default
    return f"{sentence} [default: {shown}]"


def _parameters(command: Callable[..., Any]) -> list[Parameter]:
    return list(signature(command, eval_str=True).parameters.values())


def _with_signature(command: Command, parameters: Iterable[Parameter]) -> Command:
    """The command, as typer is to see it."""
    named = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in parameters]
    vars(command)["__signature__"] = Signature(named)
    return command
