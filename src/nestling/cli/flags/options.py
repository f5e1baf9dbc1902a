"""Flags and arguments that several commands share, each with one name, one type and one help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli.flags.completion import models, sizes_of_thing
from nestling.cli.flags.registration import home_name

VECTORS = "Vectors (.npy, .fvecs, .parquet, a folder)"

Folder = Annotated[Path, typer.Argument(metavar="INDEX", help="The folder of the index.")]
Source = Annotated[Path, typer.Argument(metavar="VECTORS", help=f"{VECTORS}.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="wordllama, minilm, a folder, or a name on the Hugging Face hub.",
        callback=home_name,
        autocompletion=models,
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for another writer to finish.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random choices.")]
At = Annotated[
    str | None,
    typer.Option(
        help="A size, or size and precision: dim=64,bits=2; by default the full size.",
        autocompletion=sizes_of_thing,
    ),
]
Where = Annotated[
    str | None,
    typer.Option(help='Only rows that meet this condition, such as "year>=2020 and brand in (acme, nord)".'),
]
