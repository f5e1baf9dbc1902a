"""The command line, called in the process of a test."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from nestling.cli import app


def run(*arguments: object, **options: Any) -> Result:
    """A command, with what it printed and how it ended."""
    return CliRunner().invoke(app, [str(each) for each in arguments], **options)


def answer(*arguments: object) -> Any:
    """What a command prints as JSON; an error of ours is raised."""
    result = run(*arguments, "--json")
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)
