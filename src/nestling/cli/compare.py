"""``nestling compare``: representations with each other, or a model with its own sizes and layers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestling.cli.flags.completion import options_of
from nestling.cli.flags.options import AsJson
from nestling.cli.terminal.output import check_results, say, show, show_json
from nestling.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nestling.compare.inference.pairwise import Agreement
    from nestling.compare.rdms.rdms import RDMs
    from nestling.compare.similarity.comparators import Method
    from nestling.domains.fidelity import FidelityReport

_METHODS = ("spearman", "pearson", "kendall")
_GRID_STEP = 0.05


def compare(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILES", help="Vectors of the same rows, by two or more models."),
    ] = None,
    layers: Annotated[
        Path | None,
        typer.Option(help="A TOML plan: how much sizes or layers of one model keep of the full model."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Distance between two rows; by default cosine.",
            autocompletion=options_of("compare.rdms.from_patterns", "Metric"),
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Comparator of two matrices, may be repeated; by default spearman, pearson and kendall.",
            autocompletion=options_of("compare.similarity.comparators", "Method"),
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=3, help="The most rows to compare, drawn at random; by default 300.")
    ] = None,
    resamples: Annotated[
        int | None,
        typer.Option(min=2, help="Bootstrap resamples for confidence intervals; by default 200."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of rows and resamples; by default 0.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A folder for the pictures.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how similar representations are.

    With --layers: how much of a model its sizes and layers keep.

    Example: nestling compare small.npy large.npy -o comparison
    """
    if (layers is None) == (not files):
        raise ConfigError("give files of vectors to compare, or --layers plan.toml")
    settings = {"metric": metric, "method": method, "limit": limit, "resamples": resamples, "seed": seed}
    given = {name: value for name, value in settings.items() if value not in (None, [])}
    if layers is not None:
        if given:
            raise ConfigError(f"with --layers the plan has the settings; leave out --{next(iter(given))}")
        _compare_layers(layers, output, as_json)
    else:
        _compare_files(list(files or []), given, output, as_json)


def _compare_layers(plan: Path, output: Path | None, as_json: bool) -> None:
    from nestling.domains.fidelity import measure_fidelity, read_fidelity_plan

    check_results(output, "fidelity.json", "fidelity.png", "grid.png")
    report = measure_fidelity(read_fidelity_plan(plan))
    if output is not None:
        _draw_fidelity(report, output)
    curve = report.curve
    grid = [curve.grid()] if len(curve.nesting.axes) == 2 else []
    named = ["\n".join(f"layer={place}: {name}" for place, name in enumerate(report.layers, start=1))]
    parts = [curve.table(), *grid, *(named if report.layers else [])]
    show(curve.to_json() if as_json else "\n\n".join(parts))


def _draw_fidelity(report: FidelityReport, folder: Path) -> None:
    from nestling.picture import draw

    curve = report.curve
    curve.save(folder / "fidelity.json")

    def lines(metric: str) -> Any:
        return lambda axes: curve.plot(axes, metric=metric)

    def squares(metric: str) -> Any:
        return lambda axes: curve.heatmap(axes, metric=metric)

    draw(folder / "fidelity.png", *map(lines, curve.metrics))
    if len(curve.nesting.axes) == 2:
        draw(folder / "grid.png", *map(squares, curve.metrics))
    say(f"written to {folder}")


def _compare_files(files: list[Path], given: dict[str, Any], output: Path | None, as_json: bool) -> None:
    check_results(output, "matrices.png", "maps.png", "thresholds.png", "similarities.png")
    from nestling.compare.inference.pairwise import agreements
    from nestling.compare.rdms.files import rdms_of_files

    if len(files) < 2:
        raise ConfigError(f"{files[0]} alone cannot be compared; give two files or more")
    seed = given.get("seed", 0)
    rdms = rdms_of_files(files, given.get("metric", "cosine"), limit=given.get("limit", 300), seed=seed)
    found = agreements(rdms, given.get("method", _METHODS), draws=given.get("resamples", 200), seed=seed)
    if output is not None:
        _draw_matrices(rdms, given.get("method", _METHODS)[0], output)
    if as_json:
        show_json({"metric": rdms.metric, "stimuli": rdms.n, "agreements": [asdict(row) for row in found]})
        return
    show(f"{rdms.metric} distances of {rdms.n:,} rows, 95 % confidence intervals over rows\n{_table(found)}")


def _draw_matrices(rdms: RDMs, method: Method, folder: Path) -> None:
    from nestling.compare.inference.pairwise import similarity_by_thresholds
    from nestling.compare.pictures.maps import plot_maps, plot_matrices, threshold_panel
    from nestling.compare.similarity.comparators import compare as compare_matrices
    from nestling.compare.transforms.thresholds import threshold_grid
    from nestling.picture import draw, heat_map

    plot_matrices(rdms, folder / "matrices.png")
    plot_maps(rdms, folder / "maps.png")
    grid, names = threshold_grid(_GRID_STEP), [str(name) for name in rdms.labels["name"]]
    quantity = f"{method} of {rdms.metric} distances"
    alike, labels = compare_matrices(rdms, rdms, method), ("", names)
    draw(folder / "similarities.png", lambda axes: heat_map(axes, alike, labels, labels, quantity, quantity))
    values = similarity_by_thresholds(rdms, grid)
    pairs = [(first, second) for second in range(len(rdms)) for first in range(second)]
    panels = [
        threshold_panel(grid, values[:, i, j], f"{names[i]} and {names[j]}", "correlation") for i, j in pairs
    ]
    draw(folder / "thresholds.png", *panels)
    say(f"written to {folder}")


def _table(rows: Iterable[Agreement]) -> str:
    from nestling.text_table import aligned

    lines = [["first", "second", "method", "similarity"]]
    for row in rows:
        value = f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
        lines.append([row.first, row.second, row.method, value])
    return aligned(lines, left=3)
