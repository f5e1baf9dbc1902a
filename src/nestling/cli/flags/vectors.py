"""Flags that describe vectors of a file, where no encoder of this command made them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestling.cli.flags.completion import models, options_of
from nestling.cli.flags.registration import home_name
from nestling.errors import ConfigError

if TYPE_CHECKING:
    from nestling.cut import CutRule

_PANEL = "Vectors (without --encoder)"


@dataclass(frozen=True)
class VectorFlags:
    """Sizes, cut rule, metric and origin of vectors."""

    nesting: Annotated[
        str | None,
        typer.Option(help="Sizes to search at, such as dim=32,64,256.", rich_help_panel=_PANEL),
    ] = None
    metric: Annotated[
        str,
        typer.Option(
            help="dot (the cosine, for unit vectors) or euclidean.",
            rich_help_panel=_PANEL,
            autocompletion=options_of("search.exact.neighbours", "Metric"),
        ),
    ] = "dot"
    made_by: Annotated[
        str | None,
        typer.Option(
            help="The model that made the vectors, by its name or folder.",
            rich_help_panel=_PANEL,
            callback=home_name,
            autocompletion=models,
        ),
    ] = None
    before: Annotated[
        str | None,
        typer.Option(
            help="Normalisation before a cut: none (the default) or layer_norm.",
            rich_help_panel=_PANEL,
            autocompletion=options_of("cut", "Before"),
        ),
    ] = None
    after: Annotated[
        str | None,
        typer.Option(
            help="Normalisation after a cut: l2 (the default) or none.",
            rich_help_panel=_PANEL,
            autocompletion=options_of("cut", "After"),
        ),
    ] = None
    table: Annotated[
        Path | None,
        typer.Option(
            help="A table with ids and fields, one row for each row of a .npy or .fvecs file.",
            rich_help_panel=_PANEL,
        ),
    ] = None

    @property
    def rule(self) -> CutRule | None:
        """The cut rule; None, where neither flag is given, leaves it to the vectors."""
        if self.before is None and self.after is None:
            return None
        from nestling.cut import CutRule

        return CutRule(self.before or "none", self.after or "l2")  # type: ignore[arg-type]

    @property
    def about(self) -> dict[str, Any]:
        """The arguments of :func:`~nestling.vectors.opening.open_vectors`."""
        return {"nesting": self.nesting, "rule": self.rule, "encoder": self.made_by}

    def check_absent(self) -> None:
        """Refuse these flags beside ``--encoder``.

        Raises:
            ConfigError: if one is given.
        """
        absent = VectorFlags()
        given = [each.name for each in fields(self) if getattr(self, each.name) != getattr(absent, each.name)]
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ConfigError(f"with --encoder, leave out {flags}: they are for vectors")
