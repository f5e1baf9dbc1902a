"""What the command line prints: data on stdout, talk on stderr."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print the result for machines.")]


def say(text: str) -> None:
    """Talk to the person at the terminal."""
    typer.echo(f"nestling: {text}", err=True)


def show(text: str) -> None:
    """Put a result on stdout."""
    typer.echo(text)


def show_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Put a result on stdout for machines."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def readable_bytes(size: float) -> str:
    """A size with a unit.

    >>> readable_bytes(256_000_000)
    '256.0 MB'
    """
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
