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
    """Train a nested model, by a plan, by flags or by both.

    The flags describe a text model. A plan with the line task = "vision-language" or task = "speech" trains a
    model of pictures or of speech instead; the flags that it has a key for override it.

    Example: nestling train plan.toml --lr 0.002
    """
    from nestling.domains.run_plan import training_of
    from nestling.storage.artifact import check_folder_target

    training = training_of(plan)
    resolved: Any = training.TrainPlan.read(plan, read_flags(SETTINGS, flags))
    model = home_path(resolved.output.folder) / "model"
    training.check_plan(resolved)
    check_folder_target(model, training.KIND)
    with kept_training(model.parent):
        trained = training.train(resolved)
        trained.save(model)
    show_json({"model": str(model), "nesting": str(trained.nesting)}) if as_json else show(str(model))
