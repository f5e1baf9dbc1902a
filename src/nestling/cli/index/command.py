"""The group ``nestling index`` and its commands."""

from __future__ import annotations

import typer

from nestling.cli.flags.registration import add_command
from nestling.cli.index.build import build
from nestling.cli.index.change import add, compact, delete, update
from nestling.cli.index.export import export
from nestling.cli.index.extract import extract
from nestling.cli.index.inspect import info, verify
from nestling.cli.index.tune import tune

index = typer.Typer(name="index", help="Build, change and check an index on disk.", no_args_is_help=True)

for verb in (build, add, update, delete, compact, info, verify, tune, extract, export):
    add_command(index, verb)
