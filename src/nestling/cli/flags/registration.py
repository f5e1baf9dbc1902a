"""Adds commands to the program: flags in panels of their help, and ``~`` in their paths."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from nestling.arguments.paths import home_path

_ARGUMENTS, _OPTIONS = "Arguments", "Options"


def add_command(group: typer.Typer, command: Callable[..., None]) -> None:
    """Add a command to a group.

    Paths among its arguments may begin with ``~``, which a shell leaves as it is in ``--output=~/x``. Flags
    are shown below the heading of their ``rich_help_panel``; those that have none come last.
    """
    group.command(cls=_PanelledCommand)(_with_home(command))


def home_name(name: str | None) -> str | None:
    """The name of a model, or its folder with ``~`` as the home; a callback of typer."""
    return str(home_path(name)) if name is not None and name.startswith("~") else name


def _with_home(command: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def call(**given: Any) -> None:
        command(**{name: _at_home(value) for name, value in given.items()})

    return call


def _at_home(value: Any) -> Any:
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    return home_path(value) if isinstance(value, Path) else value


class _PanelledCommand(TyperCommand):
    """A command whose help is plain text with a section for each panel."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {_ARGUMENTS: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                own = _ARGUMENTS if parameter.param_type_name == "argument" else _OPTIONS
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or own, []).append(record)
        last = panels.pop(_OPTIONS)
        for title, records in (*panels.items(), (_OPTIONS, last)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
