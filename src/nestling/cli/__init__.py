"""The command ``nestling``: one verb a line. Data goes to stdout, talk to stderr."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import typer

from nestling.cli.comparing import compare
from nestling.cli.demo import demo
from nestling.cli.index import bench, index
from nestling.cli.measuring import choose, reproduce, sweep
from nestling.cli.models import encode, extract, train
from nestling.cli.talk import say
from nestling.cli.texts import data, search
from nestling.errors import NestlingError

app = typer.Typer(
    name="nestling",
    help="One model, every budget: representations whose cost is chosen at the moment of use.",
    no_args_is_help=True,
    add_completion=False,
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
    app.command()(verb)
app.add_typer(index)


def main() -> None:
    """Run the command line; an error of ours becomes one line and an exit code.

    Exit codes: 0 done, 1 a request that cannot be met, 2 wrong usage, 3 data that cannot be used.
    """
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    try:
        app()
    except NestlingError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
