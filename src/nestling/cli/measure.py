"""``nestling sweep``, ``choose`` and ``reproduce``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestling.cli.answering import check_data, curve_of_answers
from nestling.cli.flags.completion import claims_of_paper, metrics_of_curve, models, options_of
from nestling.cli.flags.generated import with_groups
from nestling.cli.flags.options import AsJson
from nestling.cli.flags.registration import home_name
from nestling.cli.flags.tasks import TaskFlags, text_task, vector_task
from nestling.cli.terminal.output import check_results, say, show, show_json

if TYPE_CHECKING:
    from nestling.granularity import Nesting
    from nestling.measure.curve.curve import Curve
    from nestling.vectors.stored import StoredVectors

_TARGETS = "Targets"


@with_groups
def sweep(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="wordllama, minilm, a folder, a name on the Hugging Face hub, or a file of vectors.",
            callback=home_name,
            autocompletion=models,
        ),
    ],
    flags: TaskFlags,
    nesting: Annotated[
        str | None,
        typer.Option(
            help="Sizes to measure, such as dim=16..256 (doubled) or dim=64,256; by default those that the "
            "model was trained for."
        ),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(
            help="Precisions to measure, such as 1,8,32: 1, 2, 3, 4 and 8 are codes of an entry, 16 and 32 "
            "floats. By default 1,2,4,8,32; with --nesting those that it names, or floats."
        ),
    ] = None,
    both_sides: Annotated[
        bool, typer.Option("--both-sides", help="Measure queries in codes as well.")
    ] = False,
    truncation: Annotated[
        bool, typer.Option(help="Compare a trained model with plain truncation of its base model.")
    ] = True,
    latency: Annotated[
        bool, typer.Option(help="Also measure how long one use takes, for choose --max-ms.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the curve; by default MODEL.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A folder for curve.json, which choose reads, and the report."),
    ] = None,
    format: Annotated[  # noqa: A002 - the name of the flag
        str,
        typer.Option(
            help="Format of the table: text, markdown, latex or csv.",
            autocompletion=options_of("measure.curve.table", "Format"),
        ),
    ] = "text",
    show_all: Annotated[
        bool,
        typer.Option(
            "--all", help="Show every size and precision; by default the best of each doubling of bytes."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure quality and cost at every size and precision.

    MODEL is a text model, a file of vectors, or a model of pictures or speech that nestling trained. Vectors
    and text models are measured with documents in floats and in codes of few bits; queries stay floats. A
    text model that nestling trained is compared with plain truncation of its base model. A model of pictures
    or speech is measured at each number of tokens.

    Example: nestling sweep nestling-demo/model --pairs my.csv -o report
    """
    from nestling.axes import read_bits
    from nestling.granularity import Nesting
    from nestling.measure.curve.table import check_format

    check_format(format)
    check_results(output, "curve.json", "curve.png", "grid.png", "report.html")
    wanted = None if nesting is None else Nesting.parse(nesting)
    how: dict[str, Any] = {
        "bits": "default" if bits is None else read_bits(bits),
        "both_sides": both_sides,
        "name": name or model,
        "latency": latency,
        "truncation": truncation,
    }
    check_data(model, flags)
    measure = _curve_of_vectors if flags.are_of_vectors else _curve_of_model
    curve = (curve_of_answers if flags.are_of_answers else measure)(model, wanted, flags, **how)
    if output is not None:
        _write(curve, output)
    grid = [curve.grid()] if len(curve.nesting.axes) == 2 and format == "text" else []
    is_short = "bits" in curve.nesting.axes and not show_all and format != "csv"
    shown = curve.at_budgets() if is_short else curve
    show(curve.to_json() if as_json else "\n\n".join([shown.table(format), *grid]))  # type: ignore[arg-type]


def _curve_of_vectors(path: str, nesting: Nesting | None, flags: TaskFlags, **how: Any) -> Curve:
    from nestling.measure.precision import DEFAULT_BITS
    from nestling.measure.sweep import sweep as measure
    from nestling.vectors.opening import open_vectors

    stored = _in_floats(open_vectors(path), path)
    task = vector_task(stored, flags)
    if nesting is None and how["bits"] == "default":
        how["bits"] = DEFAULT_BITS
    how |= {"seed": flags.seed, "source": flags.source, "rule": stored.rule}
    return measure(_as_stored, task, nesting or stored.sizes, **how)


def _as_stored(vectors: Any) -> Any:
    return vectors


def _curve_of_model(model: str, nesting: Nesting | None, flags: TaskFlags, **how: Any) -> Curve:
    from nestling.axes import OF_ONE_EMBEDDING
    from nestling.encoders.text.names import check_model
    from nestling.encoders.text.opening import open_encoder
    from nestling.measure.sweep import sweep as measure

    check_model(model)
    task = text_task(flags)
    of_layers = None
    if nesting is not None and set(nesting.axes) - set(OF_ONE_EMBEDDING):
        of_layers = nesting.without("bits")
    how |= {"seed": flags.seed, "source": flags.source}
    if of_layers is not None and "tokens" in of_layers.axes:
        from nestling.encoders.text.late_interaction import TokenEncoder  # torch

        return measure(TokenEncoder.open(model, of_layers), task, nesting, **how)
    return measure(open_encoder(model, of_layers), task, nesting, **how)


def _in_floats(stored: StoredVectors, path: str) -> StoredVectors:
    """Vectors that precisions can be measured of."""
    from nestling.errors import DataError
    from nestling.vectors.planes import BitPlanes

    if isinstance(stored.values, BitPlanes):
        raise DataError(
            f"{path} holds codes of {stored.values.bits} bits; measure the floats that they were made from"
        )
    return stored


def _write(curve: Curve, output: Path) -> None:
    from nestling.errors import ConfigError
    from nestling.measure.curve.summary import Choice

    curve.save(output / "curve.json")
    try:
        chosen = Choice.of(curve, None).row.granularity
    except ConfigError:  # nothing keeps enough; the report says so
        chosen = None
    curve.plot(output / "curve.png", chosen=chosen)
    if len(curve.nesting.axes) == 2:
        curve.heatmap(output / "grid.png")
    curve.to_html(output / "report.html")
    say(f"written to {output}")


def choose(
    curve: Annotated[Path, typer.Argument(metavar="CURVE", help="A curve.json, in the folder of sweep -o.")],
    keep: Annotated[
        float | None,
        typer.Option(help="The least fraction of the full quality, such as 0.99.", rich_help_panel=_TARGETS),
    ] = None,
    at_least: Annotated[
        float | None, typer.Option(help="The least value of the metric.", rich_help_panel=_TARGETS)
    ] = None,
    max_bytes: Annotated[
        float | None, typer.Option(help="The most bytes of one vector.", rich_help_panel=_TARGETS)
    ] = None,
    max_ms: Annotated[
        float | None,
        typer.Option(
            help="The longest latency in milliseconds; needs sweep --latency.", rich_help_panel=_TARGETS
        ),
    ] = None,
    max_flops: Annotated[
        float | None,
        typer.Option(help="The most multiply-adds for one input.", rich_help_panel=_TARGETS),
    ] = None,
    max_model_bytes: Annotated[
        float | None, typer.Option(help="The most bytes of the model.", rich_help_panel=_TARGETS)
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="The most tokens of one item.", rich_help_panel=_TARGETS)
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(help="Precisions to choose among, such as 8,32; by default all."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="The metric of --keep and --at-least; by default the main one of the curve.",
            autocompletion=metrics_of_curve,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose the size and precision of fewest bytes that meet all targets.

    The choice is printed in the form that --at takes, such as dim=64,bits=4. For extract, which takes no
    bits, choose with --bits 32.

    Example: nestling choose nestling-demo/curve.json --keep 0.99
    """
    from nestling.axes import read_bits
    from nestling.measure.curve.curve import Curve

    measured = Curve.load(curve)
    chosen = measured.choose(
        keep=keep,
        at_least=at_least,
        max_bytes=max_bytes,
        max_ms=max_ms,
        max_flops=max_flops,
        max_model_bytes=max_model_bytes,
        max_tokens=max_tokens,
        bits=None if bits is None else read_bits(bits),
        metric=metric,
    )
    if as_json:
        row = measured.row(chosen, metric)
        figures = {"metric": row.metric, "value": row.value, "low": row.low}
        show_json({"granularity": str(chosen), **figures, "vector_bytes": row.vector_bytes})
    else:
        row = measured.row(chosen, metric)
        kept = f"keeps {row.kept:.1%} [{row.kept_low:.1%}, {row.kept_high:.1%}]"
        share = "" if math.isnan(row.kept) else f", {kept} of {row.metric}"
        say(f"{chosen}: {row.vector_bytes:,} bytes{share}")
        show(str(chosen))


def reproduce(
    paper: Annotated[
        str,
        typer.Argument(
            metavar="PAPER",
            help="Name of the paper.",
            autocompletion=options_of("papers", "PAPERS"),
        ),
    ],
    seeds: Annotated[
        int, typer.Option(min=2, help="Number of seeds; confidence intervals are over seeds.")
    ] = 3,
    claims: Annotated[
        str | None,
        typer.Option(
            help="Claims to measure, such as C1,C3; by default all.", autocompletion=claims_of_paper
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A folder for the results.")] = None,
    quick: Annotated[
        bool, typer.Option(help="A short run, to see that everything works; its figures mean nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the claims of a paper at small scale.

    Papers: mrl, adanns, 2dmse, starbucks, trsa, bits, m3, mqt, llama-mtsk.

    For each claim, the result is "holds" or "does not hold".

    Example: nestling reproduce mrl --claims C1,C3
    """
    from nestling.papers import reproduce as measure

    check_results(output, f"{paper}.json", f"{paper}.md")
    wanted = None if claims is None else [claim.strip() for claim in claims.split(",")]
    report = measure(paper, seeds=seeds, claims=wanted, output=output, quick=quick)
    show(report.to_json() if as_json else report.table())
