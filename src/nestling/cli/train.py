"""``nestling train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli.flags.options import AsJson
from nestling.cli.terminal.interrupts import kept_training
from nestling.cli.terminal.output import show, show_json
from nestling.errors import ConfigError


def train(
    plan: Annotated[
        Path | None, typer.Argument(metavar="PLAN", help="A TOML file; every key is also a flag.")
    ] = None,
    pairs: Annotated[str | None, typer.Option(help="A file of (query, document) pairs.")] = None,
    scored: Annotated[str | None, typer.Option(help="A file of (text, text, score).")] = None,
    texts: Annotated[str | None, typer.Option(help="A file of single texts.")] = None,
    docstrings: Annotated[str | None, typer.Option(help="A folder of Python packages.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Which column of the file is what, such as query=title,document=body.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="The most pairs to use.")] = None,
    encoder: Annotated[str | None, typer.Option(help="wordllama, minilm, a folder, or a hub name.")] = None,
    tune: Annotated[
        str | None,
        typer.Option(
            help="What is trained: adapter (a map of vectors), encoder (all weights), masked (pre-training)."
        ),
    ] = None,
    nesting: Annotated[
        str | None, typer.Option(help="Sizes: dim=8..256, or layer=2,4,6 zip dim=32,128,384.")
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(help="Width of a hidden layer of the map; none by default.")
    ] = None,
    orthogonal: Annotated[bool | None, typer.Option(help="Keep the map a rotation.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Temperature of the softmax in the loss.")] = None,
    symmetric: Annotated[bool | None, typer.Option(help="Also let documents pick their queries.")] = None,
    weights: Annotated[str | None, typer.Option(help="Importance of each size, such as 4,2,1,1.")] = None,
    draw: Annotated[
        str | None,
        typer.Option(help="Sizes that a step trains: every, random_some, sandwich, random_prefix or cross."),
    ] = None,
    draw_count: Annotated[int | None, typer.Option(help="Sizes drawn at random per step.")] = None,
    align: Annotated[
        str | None, typer.Option(help="Pull small sizes towards the full one, by its scores or its vectors.")
    ] = None,
    align_weight: Annotated[float | None, typer.Option(help="Weight of that term.")] = None,
    align_temperature: Annotated[float | None, typer.Option(help="Temperature of its softmax.")] = None,
    deep_documents: Annotated[bool | None, typer.Option(help="Take documents from the full layer.")] = None,
    chunk_size: Annotated[int | None, typer.Option(help="Texts encoded at a time (less memory).")] = None,
    encoder_rate: Annotated[
        float | None, typer.Option(help="Share of the words that are masked for the encoder.")
    ] = None,
    decoder_rate: Annotated[
        float | None, typer.Option(help="Share of the words that are masked for the decoder.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a text in pre-training.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Optimiser steps, in place of epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows that one loss sees.")] = None,
    drop_last: Annotated[bool | None, typer.Option(help="Leave out a last, shorter batch.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay of the matrices.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="How the learning rate falls: cosine, linear or constant.")
    ] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Fraction of the steps in which the learning rate rises.")
    ] = None,
    mixed_precision: Annotated[
        str | None, typer.Option(help="Precision of training: no, bf16 or fp16.")
    ] = None,
    gradient_accumulation: Annotated[int | None, typer.Option(help="Batches per step.")] = None,
    max_grad_norm: Annotated[float | None, typer.Option(help="Clip gradients to this norm.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all that is random.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that prepare batches.")] = None,
    log_every: Annotated[int | None, typer.Option(help="Steps between lines of the log.")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    evaluate_every: Annotated[int | None, typer.Option(help="Steps between evaluations.")] = None,
    folder: Annotated[str | None, typer.Option(help="Where model, log and checkpoints go.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a nested text model by a plan.

    Example: nestling train plan.toml --lr 0.002
    """
    flags = {key: value for key, value in locals().items() if key not in ("plan", "as_json")}
    if weights is not None:
        flags["weights"] = _numbers(weights)
    from nestling.domains.text.plan import read_plan
    from nestling.domains.text.training import check_plan
    from nestling.domains.text.training import train as train_by_plan
    from nestling.storage.artifact import check_folder_target

    resolved = read_plan(plan, flags)
    model = Path(resolved.output.folder) / "model"
    check_plan(resolved)
    check_folder_target(model, "text_encoder")
    with kept_training(model.parent):
        trained = train_by_plan(resolved)
        trained.save(model)
    show_json({"model": str(model), "nesting": str(trained.nesting)}) if as_json else show(str(model))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"weights must be numbers with commas between, such as 4,2,1; got {text!r}"
        ) from error
