"""``nestling sweep``, ``choose`` and ``reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nestling.cli.talk import AsJson, say, show, show_json
from nestling.errors import ConfigError

if TYPE_CHECKING:
    from nestling.measure.tasks import Task


def sweep(
    model: Annotated[str, typer.Argument(help="wordllama, minilm, a folder, or a hub name.")],
    pairs: Annotated[Path | None, typer.Option(help="A file of (query, document) pairs.")] = None,
    beir: Annotated[Path | None, typer.Option(help="A folder in the format of BEIR.")] = None,
    scored: Annotated[Path | None, typer.Option(help="A file of (text, text, score).")] = None,
    nesting: Annotated[str | None, typer.Option(help="Other sizes than the model's own.")] = None,
    latency: Annotated[bool, typer.Option(help="Also measure the time of one use.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A folder for the report.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure quality and cost of a model at every granularity.

    Example: nestling sweep nestling-demo/model --pairs my.csv -o report
    """
    from nestling.encoders.text import TextEncoder
    from nestling.granularity import Nesting
    from nestling.measure.sweep import sweep as measure

    task = _task(pairs, beir, scored)
    wanted = None if nesting is None else Nesting.parse(nesting)
    of_layers = wanted if wanted is not None and "layer" in wanted.axes else None
    encoder = TextEncoder.open(model, of_layers)
    curve = measure(encoder, task, wanted, seed=seed, name=model, latency=latency)
    if output is not None:
        curve.save(output / "curve.json")
        curve.plot(output / "curve.png")
        if len(curve.nesting.axes) == 2:
            curve.heatmap(output / "grid.png")
        curve.to_html(output / "report.html")
        say(f"written to {output}")
    grid = [curve.grid()] if len(curve.nesting.axes) == 2 else []
    show(curve.to_json() if as_json else "\n\n".join([curve.table(), *grid]))


def choose(
    curve: Annotated[Path, typer.Argument(help="A curve.json of a sweep.")],
    keep: Annotated[float | None, typer.Option(help="Share of the full quality, such as 0.99.")] = None,
    at_least: Annotated[float | None, typer.Option(help="A value of the metric.")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Bytes of a vector.")] = None,
    max_ms: Annotated[float | None, typer.Option(help="Milliseconds, where the sweep measured them.")] = None,
    max_flops: Annotated[float | None, typer.Option(help="Multiply-adds for one input.")] = None,
    max_model_bytes: Annotated[float | None, typer.Option(help="Bytes of what answers.")] = None,
    metric: Annotated[str | None, typer.Option(help="The first of the curve by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Name the cheapest granularity of a curve that meets a target.

    Example: nestling choose nestling-demo/curve.json --keep 0.99
    """
    from nestling.measure.curve import Curve

    measured = Curve.load(curve)
    chosen = measured.choose(
        keep=keep,
        at_least=at_least,
        max_bytes=max_bytes,
        max_ms=max_ms,
        max_flops=max_flops,
        max_model_bytes=max_model_bytes,
        metric=metric,
    )
    if as_json:
        row = measured.row(chosen, metric)
        show_json({"granularity": str(chosen), "metric": row.metric, "value": row.value, "low": row.low})
    else:
        show(str(chosen))


def reproduce(
    paper: Annotated[str, typer.Argument(help="mrl, adanns, 2dmse, starbucks or trsa.")],
    seeds: Annotated[int, typer.Option(min=2)] = 3,
    claims: Annotated[str | None, typer.Option(help="Such as C1,C3; all by default.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A folder for the results.")] = None,
    quick: Annotated[bool, typer.Option(help="See that it runs; the figures mean nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the claims of a paper at small scale; each holds or does not hold.

    Example: nestling reproduce mrl --claims C1,C3
    """
    from nestling.papers import reproduce as measure

    wanted = None if claims is None else claims.split(",")
    report = measure(paper, seeds=seeds, claims=wanted, output=output, quick=quick)
    show(report.to_json() if as_json else report.table())


def _task(pairs: Path | None, beir: Path | None, scored: Path | None) -> Task:
    from nestling.data import read_beir, read_pairs
    from nestling.data.sts import read_scored_pairs
    from nestling.measure.tasks import STS, Retrieval

    given = [path for path in (pairs, beir, scored) if path is not None]
    if len(given) != 1:
        raise ConfigError("give the data to measure on, one of --pairs FILE, --beir FOLDER, --scored FILE")
    if pairs is not None:
        return Retrieval.from_pairs(read_pairs(pairs))
    if beir is not None:
        return Retrieval.from_data(read_beir(beir))
    rated = read_scored_pairs(given[0])
    return STS(rated.first, rated.second, rated.scores)
