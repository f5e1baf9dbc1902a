"""``nestling index build``: an index of vectors or texts, whose plan is chosen by measuring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nestling.cli.flags.completion import models
from nestling.cli.flags.generated import with_groups
from nestling.cli.flags.options import VECTORS, AsJson, StoredAt
from nestling.cli.flags.registration import home_name
from nestling.cli.flags.tables import (
    ColumnFlags,
    check_are_vectors,
    is_table,
    open_queries,
    open_rows,
    open_table,
)
from nestling.cli.flags.targets import PANEL, Targets
from nestling.cli.flags.vectors import VectorFlags
from nestling.cli.index.folder import show_index
from nestling.errors import ConfigError

if TYPE_CHECKING:
    from nestling.domains.text.collection import Collection
    from nestling.search.exact.neighbours import Metric
    from nestling.search.index.index import AdaptiveIndex

SourceOrTexts = Annotated[
    Path, typer.Argument(metavar="SOURCE", help=f"{VECTORS} or, with --encoder, a table of texts.")
]
_TEXTS = "Texts (with --encoder)"


@with_groups
def build(
    source: SourceOrTexts,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    *,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Encoder of the texts: wordllama, minilm, a folder, or a name on the Hugging Face hub.",
            rich_help_panel=_TEXTS,
            callback=home_name,
            autocompletion=models,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a collection that exists.", rich_help_panel=_TEXTS),
    ] = False,
    columns: ColumnFlags,
    vectors: VectorFlags,
    plan: Annotated[
        str | None,
        typer.Option(
            help="The plan, such as 'int4@full > rerank@full'; by default the fastest that reaches --recall.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    targets: Targets,
    at: StoredAt = None,
    as_json: AsJson = False,
) -> None:
    """Build an index of vectors, or of texts with --encoder.

    By default several plans are measured, and the fastest that reaches --recall is built. The ids and the
    other columns of a table are kept: results include them, and searches filter by them. With bits in --at,
    the index holds codes and no floats; searches at fewer dims and bits stay possible. If the command is
    interrupted, run it again: finished texts are not encoded again.

    Example: nestling index build products.csv --encoder wordllama --column title --id-column sku -o products
    """
    targets.check()
    if plan is not None:
        from nestling.search.plan.plan import Plan

        Plan.parse(plan)
    if encoder is None:
        _check_for_vectors(source, output, overwrite=overwrite)
        with _of_vectors(source, output, columns, vectors, targets, at, plan) as made:
            show_index(made, as_json)
    else:
        vectors.check_absent()
        with _of_texts(
            source, output, columns, targets, encoder, at, plan, overwrite=overwrite
        ) as collection:
            show_index(collection.index, as_json)


def _check_for_vectors(source: Path, output: Path, *, overwrite: bool) -> None:
    """Refuse what only a build from texts takes."""
    if overwrite:
        raise ConfigError("--overwrite is for collections, made with --encoder; give an index a new folder")
    if is_table(source):
        raise ConfigError(
            f"{source} holds no vectors; to encode the texts of a table: nestling index build {source} "
            f"--encoder wordllama -o {output}; or give the vectors of its rows and this table: "
            f"nestling index build vectors.npy --table {source} -o {output}"
        )


def _of_texts(
    source: Path,
    output: Path,
    columns: ColumnFlags,
    targets: Targets,
    encoder: str,
    at: str | None,
    plan: str | None,
    *,
    overwrite: bool,
) -> Collection:
    queries, table = open_queries(targets.queries), open_table(source, columns)
    from nestling.domains.text.collection import Collection, check_target
    from nestling.encoders.text.names import check_model
    from nestling.encoders.text.opening import open_encoder
    from nestling.vectors.coding import without_bits

    check_target(output, overwrite=overwrite)
    check_model(encoder, without_bits(at))
    return Collection.create(
        output,
        open_encoder(encoder),
        table,
        at=at,
        plan=plan,
        queries=queries,
        overwrite=overwrite,
        **targets.limits,
    )


def _of_vectors(
    source: Path,
    output: Path,
    columns: ColumnFlags,
    vectors: VectorFlags,
    targets: Targets,
    at: str | None,
    plan: str | None,
) -> AdaptiveIndex:
    from nestling.search.tuning.planner import build as build_index

    queries = check_are_vectors(open_queries(targets.queries), targets.queries)
    stored = open_rows(source, columns, vectors.table, **vectors.about)
    return build_index(
        output,
        stored,
        at=at,
        plan=plan,
        queries=queries,
        nesting=None if vectors.nesting is None else stored.sizes,  # sizes that must be searchable
        metric=cast("Metric", vectors.metric),
        **targets.limits,
    )
