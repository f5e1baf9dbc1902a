"""``nestling index build`` and ``tune``, and ``nestling bench``: plans of an index, chosen by measuring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from nestling.cli.flags.options import (
    VECTORS,
    AsJson,
    At,
    Folder,
    K,
    MaxBytes,
    MaxMs,
    Queries,
    Recall,
    Seed,
    Source,
    Wait,
)
from nestling.cli.flags.tables import (
    Column,
    Fields,
    IdColumn,
    TableOption,
    check_are_vectors,
    cut_rule,
    is_table,
    open_queries,
    open_rows,
    open_table,
)
from nestling.cli.index_folder import is_collection, show_frontier, show_index, writable
from nestling.cli.terminal.output import check_results, say
from nestling.errors import ConfigError

if TYPE_CHECKING:
    from nestling.search.exact.neighbours import Metric

SourceOrTexts = Annotated[
    Path, typer.Argument(metavar="SOURCE", help=f"{VECTORS} or, with --encoder, a table of texts.")
]


def build(
    source: SourceOrTexts,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    encoder: Annotated[
        str | None,
        typer.Option(help="A model that encodes texts: wordllama, minilm, a folder, or a name on the hub."),
    ] = None,
    column: Column = None,
    id_column: IdColumn = None,
    fields: Fields = None,
    table: TableOption = None,
    at: At = None,
    nesting: Annotated[str | None, typer.Option(help="Sizes to search at, such as dim=32,64,256.")] = None,
    metric: Annotated[str, typer.Option(help="dot (of unit vectors: the cosine) or euclidean.")] = "dot",
    made_by: Annotated[str | None, typer.Option(help="What made the vectors: the name of a model.")] = None,
    before: Annotated[
        str | None, typer.Option(help="Done to vectors before a cut: none (without this flag) or layer_norm.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Done to vectors after a cut: l2 (without this flag) or none.")
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(help="How it is searched, such as 'int4@full > rerank@full'; measured by default."),
    ] = None,
    recall: Recall = 0.95,
    max_bytes: MaxBytes = None,
    max_ms: MaxMs = None,
    queries: Queries = None,
    k: K = 10,
    seed: Seed = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="With --encoder, replace a collection that exists.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build an index: the fastest plan that finds enough, chosen by measuring.

    The ids and the other columns of a table are kept: answers carry them, and searches filter by them. Texts
    that were encoded when the command was interrupted are not encoded again when it is repeated.

    Example: nestling index build products.csv --encoder wordllama --column title --id-column sku -o products
    """
    targets: dict[str, Any] = {
        "recall": recall,
        "max_bytes": max_bytes,
        "max_ms": max_ms,
        "k": k,
        "seed": seed,
    }
    _check_targets(plan, recall)
    if encoder is not None:
        if (made_by, before, after, table) != (None, None, None, None):
            raise ConfigError(
                "--made-by, --before, --after and --table are for vectors; texts get theirs from --encoder"
            )
        if (metric, nesting) != ("dot", None):
            raise ConfigError("--metric and --nesting are for vectors; of texts they are those of --encoder")
        how = {"plan": plan, "queries": open_queries(queries), **targets}
        described = open_table(source, column, id_column, fields)
        from nestling.domains.text.collection import Collection, check_target
        from nestling.encoders.text.opening import check_model, open_encoder

        check_target(output, overwrite=overwrite)
        check_model(encoder, at)
        model = open_encoder(encoder)
        with Collection.create(output, model, described, at=at, overwrite=overwrite, **how) as made:
            show_index(made.index, as_json)
        return
    if at is not None:
        raise ConfigError(
            "--at is for texts; vectors are cut with --nesting, such as --nesting dim=32,64,128"
        )
    if is_table(source):
        raise ConfigError(
            f"{source} holds no vectors; to encode the texts of a table: nestling index build {source} "
            f"--encoder wordllama -o {output}; or give the vectors of its rows, and the table beside them: "
            f"nestling index build vectors.npy --table {source} -o {output}"
        )
    if overwrite:
        raise ConfigError("--overwrite is for collections, made with --encoder; give an index a new folder")
    from nestling.search.tuning.planner import build as build_index

    asked = check_are_vectors(open_queries(queries), queries)
    stored = open_rows(
        source,
        column=column,
        id_column=id_column,
        fields=fields,
        table=table,
        nesting=nesting,
        rule=cut_rule(before, after),
        encoder=made_by,
    )
    with build_index(
        output, stored, plan=plan, queries=asked, nesting=nesting, metric=cast("Metric", metric), **targets
    ) as made_index:
        show_index(made_index, as_json)


def _check_targets(plan: str | None, recall: float) -> None:
    """Refuse a plan that is none, and a recall that is no share, before anything is read."""
    from nestling.search.plan.frontier import check_targets
    from nestling.search.plan.plan import Plan

    check_targets(recall)
    if plan is not None:
        Plan.parse(plan)


def tune(
    folder: Folder,
    recall: Recall = 0.95,
    max_bytes: MaxBytes = None,
    max_ms: MaxMs = None,
    queries: Queries = None,
    k: K = 10,
    seed: Seed = 0,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Measure the plan of an index at many points and keep the table in it, for search --recall.

    Example: nestling index tune my-index --recall 0.99
    """
    from nestling.search.plan.frontier import check_targets
    from nestling.search.tuning.planner import retune

    check_targets(recall)
    asked = open_queries(queries)
    if isinstance(asked, tuple) and is_collection(folder):
        from nestling.encoders.text.opening import open_encoder

        asked = open_encoder(folder / "encoder").encode(list(asked))
    check_are_vectors(asked, queries)
    with writable(folder, wait=wait) as opened:
        chosen, frontier = retune(
            opened, queries=asked, k=k, recall=recall, max_bytes=max_bytes, max_ms=max_ms, seed=seed
        )
    show_frontier(chosen, frontier, k, as_json)


def bench(
    source: Source,
    recall: Recall = 0.95,
    max_bytes: MaxBytes = None,
    max_ms: MaxMs = None,
    queries: Queries = None,
    k: K = 10,
    plans: Annotated[
        str | None,
        typer.Option(
            help="Plans to compare, such as 'flat@full; int4@full > rerank@full'; found by default."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder for table and picture.")
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure what plans of an index find, take and cost on your own vectors; nothing is kept.

    Example: nestling bench vectors.npy --recall 0.99 -o report
    """
    check_results(output, "frontier.json", "frontier.png")
    from nestling.search.plan.frontier import check_targets
    from nestling.search.tuning.planner import tune as measure
    from nestling.vectors.stored import open_vectors

    check_targets(recall)
    asked = check_are_vectors(open_queries(queries), queries)

    stored = open_vectors(source)
    chosen, frontier = measure(
        stored.values,
        queries=asked,
        k=k,
        recall=recall,
        max_bytes=max_bytes,
        max_ms=max_ms,
        plans=None if plans is None else [*(text.strip() for text in plans.split(";")), "flat@full"],
        sizes=stored.nesting.sizes("dim"),
        nested=stored.is_nested,
        rule=stored.rule,
        seed=seed,
    )
    if output is not None:
        frontier.save(output / "frontier.json")
        frontier.plot(output / "frontier.png")
        say(f"written to {output}")
    show_frontier(chosen, frontier, k, as_json)
