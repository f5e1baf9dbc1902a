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
        help="What to compare of each vector, such as dim=64, or of an index of codes dim=64,bits=2: the "
        "leading 64 entries, and the leading 2 bits of each; by default all that the index keeps.",
        autocompletion=sizes_of_thing,
    ),
]
StoredAt = Annotated[
    str | None,
    typer.Option(
        help="What to store of each vector, such as dim=256,bits=2: the leading 256 entries in codes of 2 "
        "bits each, 64 bytes a vector. bits is 1, 2, 3, 4 or 8; without it, entries are float32 (4 bytes "
        "each). By default the full size in float32.",
        autocompletion=sizes_of_thing,
    ),
]
Where = Annotated[
    str | None,
    typer.Option(help='Only rows that meet this condition, such as "year>=2020 and brand in (acme, nord)".'),
]
