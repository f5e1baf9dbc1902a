"""The program ``nestling``: its verbs, and how errors and warnings end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from nestling import __version__
from nestling.cli.bench import bench
from nestling.cli.compare import compare
from nestling.cli.data import data
from nestling.cli.demo import demo
from nestling.cli.encode import encode, extract
from nestling.cli.flags.registration import add_command
from nestling.cli.index.command import index
from nestling.cli.measure import choose, reproduce, sweep
from nestling.cli.search import search
from nestling.cli.terminal.interrupts import interruptible
from nestling.cli.terminal.messages import command_of, flags_of, in_flags
from nestling.cli.terminal.output import say, saying_all, show, show_all_letters
from nestling.cli.train import train
from nestling.errors import NestlingError, missing, reason_of
from nestling.process.extras import EXTRAS
from nestling.process.progress import Progress

app = typer.Typer(
    name="nestling",
    help="One model, every budget: embeddings whose size is chosen at use.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

VERBS: tuple[Callable[..., None], ...] = (
    demo,
    train,
    encode,
    sweep,
    choose,
    compare,
    extract,
    search,
    bench,
    reproduce,
    data,
)
for verb in VERBS:
    add_command(app, verb)
app.add_typer(index)


def _show_version(wanted: bool) -> None:
    if wanted:
        show(f"nestling {__version__}")
        raise typer.Exit


@app.callback()
def _nestling(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; an error of nestling becomes one line and an exit code.

    Exit codes: 0 done, 1 the request cannot be met, 2 wrong usage, 3 unusable data, 130 and 143 interrupted
    by Ctrl-C and SIGTERM.
    """
    show_all_letters()
    try:
        with saying_all(_in_flags), interruptible(_in_flags), Progress("working"):
            app()
    except NestlingError as error:
        say(f"error: {_in_flags(error)}")
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        say(f"error: {missing(error.name, EXTRAS[error.name])}")
        sys.exit(NestlingError.exit_code)
    except OSError as error:
        what = error.filename or "a file"
        say(f"error: {what} cannot be read or written: {reason_of(error)}")
        sys.exit(1)


def _in_flags(message: object) -> str:
    """A message of the library in the words of the command line."""
    group = typer.main.get_command(app)
    return in_flags(str(message), flags_of(command_of(group, sys.argv[1:])))
