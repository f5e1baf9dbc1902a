"""``nestling train``: its flags are the fields of :mod:`nestling.domains.text.train_plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nestling.arguments.paths import home_path
from nestling.cli.flags.generated import read_flags, with_settings
from nestling.cli.flags.options import AsJson
from nestling.cli.terminal.interrupts import kept_training
from nestling.cli.terminal.output import show, show_json
from nestling.domains.text.train_plan import SETTINGS


@with_settings(SETTINGS)
def train(
    plan: Annotated[
        Path | None,
        typer.Argument(metavar="PLAN", help="A TOML file with the tables below; a flag overrides its key."),
    ] = None,
    as_json: AsJson = False,
    **flags: Any,
) -> None:
    """Train a nested text model, by a plan, by flags or by both.

    Example: nestling train plan.toml --lr 0.002
    """
    from nestling.domains.text.train_plan import read_plan
    from nestling.domains.text.training import check_plan
    from nestling.domains.text.training import train as train_by_plan
    from nestling.storage.artifact import check_folder_target

    resolved = read_plan(plan, read_flags(SETTINGS, flags))
    model = home_path(resolved.output.folder) / "model"
    check_plan(resolved)
    check_folder_target(model, "text_encoder")
    with kept_training(model.parent):
        trained = train_by_plan(resolved)
        trained.save(model)
    show_json({"model": str(model), "nesting": str(trained.nesting)}) if as_json else show(str(model))
