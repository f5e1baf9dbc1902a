"""The command line, called in the process of a test."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nestling.cli import app, main


def run(*arguments: object, **options: Any) -> Result:
    """A command, with what it printed and how it ended."""
    return CliRunner().invoke(app, [str(each) for each in arguments], **options)


def answer(*arguments: object) -> Any:
    """JSON output of a command; an error of ours is raised."""
    result = run(*arguments, "--json")
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


def ended(
    words: Sequence[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that is called in a folder as a shell calls it."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["nestling", *words])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err
