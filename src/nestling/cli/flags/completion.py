"""Shell completion: names of models, metrics and papers, options, and sizes of a saved model or index.

Nothing here imports torch. An unreadable file completes to nothing; then the shell completes file names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from typing import TypeAlias, get_args

import typer

from nestling.arguments.paths import home_path
from nestling.errors import NestlingError

Completer: TypeAlias = Callable[[str], list[str]]

_UNREADABLE = (NestlingError, OSError, LookupError)
"""Errors that complete to nothing: nobody reads them in the middle of a word."""


def among(*options: str) -> Completer:
    """Complete one of these names."""

    def complete(incomplete: str) -> list[str]:
        return [option for option in options if option.startswith(incomplete)]

    return complete


def options_of(module: str, name: str, *, several: bool = False) -> Completer:
    """Complete one of the names in a ``Literal``, a tuple or a mapping of the library.

    Args:
        module: of the list, imported when a word is completed.
        name: of it in the module.
        several: whether the word may hold more than one, with commas between.
    """

    def complete(incomplete: str) -> list[str]:
        value = getattr(import_module(f"nestling.{module}"), name)
        options = get_args(value) or tuple(value)
        return _in_list(options, incomplete) if several else among(*options)(incomplete)

    return complete


models = options_of("encoders.text.names", "BUNDLED")
"""Complete the name of a bundled model."""


def metrics_of_curve(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a metric of the curve in the command line."""
    with suppress(*_UNREADABLE):
        from nestling.measure.curve.curve import Curve

        return among(*Curve.load(_first_argument(ctx)).metrics)(incomplete)
    return []


def claims_of_paper(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete claims, with commas between, of the paper in the command line."""
    with suppress(*_UNREADABLE):
        from nestling.papers import CLAIMS

        return _in_list(CLAIMS[_first_argument(ctx)], incomplete)
    return []


def sizes_of_thing(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete a size of the saved model, index or collection in the command line.

    Granularities of several axes are left out, since shells split words at ``=``.
    """
    with suppress(*_UNREADABLE):
        from nestling.storage.artifact import read_manifest

        folder = home_path(_first_argument(ctx))
        if (folder / "index").is_dir():  # of a collection
            folder /= "index"
        nesting = read_manifest(folder).read_nesting()
        return among(*map(str, nesting.sizes(nesting.axes[0]) if len(nesting.axes) == 1 else ()))(incomplete)
    return []


def _first_argument(ctx: typer.Context) -> str:
    """The first argument of a command whose last flag has no value yet, so that nothing is parsed."""
    return str(ctx.args[0])


def _in_list(options: Iterable[str], incomplete: str) -> list[str]:
    """The list so far, with one more of the options after its last comma."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{each}" for each in options if each.startswith(last) and each not in taken]
