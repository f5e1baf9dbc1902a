"""Flags and arguments that several commands share, each with one name, one type and one help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

VECTORS = "Vectors (.npy, .fvecs, .parquet, a folder)"

Folder = Annotated[Path, typer.Argument(metavar="INDEX", help="The folder of the index.")]
Source = Annotated[Path, typer.Argument(metavar="VECTORS", help=f"{VECTORS}.")]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="wordllama, minilm, a folder, or a name on the hub.")
]

AsJson = Annotated[bool, typer.Option("--json", help="Print the result for machines.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for another writer to end.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of what is drawn at random.")]
At = Annotated[str | None, typer.Option(help="A smaller size, such as dim=64; the full one by default.")]
Where = Annotated[
    str | None, typer.Option(help='Only rows that meet it: "year>=2020 and brand in (acme, nord)".')
]

Recall = Annotated[float, typer.Option(help="Share of the exact nearest that is to be found.")]
MaxBytes = Annotated[float | None, typer.Option(help="The most bytes in memory for each vector.")]
MaxMs = Annotated[float | None, typer.Option(help="The longest median latency of a query, in milliseconds.")]
Queries = Annotated[
    Path | None, typer.Option(help="Vectors or texts to measure with, held out; rows of the data by default.")
]
K = Annotated[int, typer.Option(min=1, help="Neighbours to find for each query, or all of fewer.")]
