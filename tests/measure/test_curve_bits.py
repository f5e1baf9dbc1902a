"""Curves over dims and bits: the choice by bytes, the front, tables, pictures, files."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from nestling.errors import ConfigError, GranularityError
from nestling.gain import Gain, verdict_of
from nestling.granularity import Granularity
from nestling.measure import Curve, Retrieval, compare, sweep
from nestling.measure.baselines import truncation
from nestling.measure.curve.choice import Row
from nestling.measure.curve.pictures.lines import Chart
from nestling.measure.curve.summary import headline

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 32)) * np.linspace(1.6, 0.4, 32)
TASK = Retrieval(X[:100] + RNG.normal(size=(100, 32)), X, range(100))
CURVE = sweep(lambda x: x, TASK, "dim=8,16,32", bits=(1, 4), name="nested", resamples=50)
FLOATS = truncation(TASK, "dim=8,16,32")


def curve_of(cells: dict[str, tuple[float, int, float | None]]) -> Curve:
    """A curve of quality, bytes and FLOPs, its intervals without width."""
    rows = tuple(
        Row(Granularity.parse(at), "m", value, value, value, value, value, value, size, flops)
        for at, (value, size, flops) in cells.items()
    )
    return Curve(rows, "toy", "retrieval", 50, 0.95, 100, {}, "a machine", "2026-01-31")


TOY = curve_of(
    {
        "dim=8,bits=1": (0.2, 1, 8.0),
        "dim=16,bits=1": (0.5, 2, 16.0),
        "dim=8,bits=4": (0.6, 4, 8.0),
        "dim=32,bits=1": (0.6, 4, 32.0),
        "dim=16,bits=4": (0.9, 8, 16.0),
        "dim=32,bits=4": (0.99, 16, 32.0),
        "dim=8,bits=32": (0.7, 32, 8.0),
        "dim=16,bits=32": (0.95, 64, 16.0),
        "dim=32,bits=32": (1.0, 128, 32.0),
    }
)


@pytest.mark.parametrize(
    ("targets", "at"),
    [
        ({"keep": 0.98}, "dim=32,bits=4"),
        ({"keep": 0.995}, "dim=32,bits=32"),
        ({"keep": 0.6}, "dim=8,bits=4"),  # as many bytes as 32 bits of one, and fewer FLOPs
        ({"max_bytes": 70}, "dim=32,bits=4"),
        ({"max_bytes": 4}, "dim=8,bits=4"),
        ({"keep": 0.6, "max_flops": 8}, "dim=8,bits=4"),
        ({"at_least": 0.65, "max_flops": 8}, "dim=8,bits=32"),
    ],
)
def test_the_choice_goes_over_both_axes(targets: dict[str, float], at: str) -> None:
    assert TOY.choose(**targets) == Granularity.parse(at)


def test_of_equal_bytes_and_unknown_flops_fewer_dims_are_chosen() -> None:
    rows = tuple(replace(row, flops=None) for row in TOY.rows)
    assert replace(TOY, rows=rows[::-1]).choose(keep=0.6) == Granularity(dim=8, bits=4)


def test_of_equal_bytes_the_better_quality_is_chosen() -> None:
    better = curve_of(
        {
            "dim=32,bits=4": (0.94, 16, 32.0),
            "dim=64,bits=2": (0.95, 16, 64.0),
            "dim=64,bits=32": (1, 256, 64.0),
        }
    )
    for targets in ({"keep": 0.9}, {"at_least": 0.9}, {"keep": 0.9, "max_bytes": 20}):
        assert better.choose(**targets) == Granularity(dim=64, bits=2)
    assert better.choose(keep=0.9, cheapest="flops") == Granularity(dim=32, bits=4)


def test_the_front_counts_bytes_and_layers_but_not_dims() -> None:
    front = {str(row.granularity) for row in TOY.pareto()}
    assert front == {
        "dim=8,bits=1",
        "dim=16,bits=1",
        "dim=8,bits=4",
        "dim=32,bits=1",  # as good and as small as the one before
        "dim=16,bits=4",
        "dim=32,bits=4",
        "dim=32,bits=32",
    }
    layers = curve_of(
        {
            "dim=8,bits=1,layer=1": (0.5, 1, 10.0),
            "dim=8,bits=32,layer=1": (0.6, 32, 10.0),
            "dim=8,bits=1,layer=2": (0.7, 1, 20.0),
            "dim=8,bits=32,layer=2": (0.9, 32, 20.0),
        }
    )
    assert len(layers.pareto()) == 4  # a layer less costs fewer FLOPs


def test_budgets_are_powers_of_two() -> None:
    short = TOY.at_budgets()
    assert [str(g) for g in sorted(short.nesting, key=lambda g: short.row(g).vector_bytes)] == [
        "dim=8,bits=1",
        "dim=16,bits=1",
        "dim=8,bits=4",
        "dim=16,bits=4",
        "dim=32,bits=4",
        "dim=32,bits=32",
    ]
    for row in TOY.column():
        within = [each.value for each in short.column() if each.vector_bytes <= row.vector_bytes]
        assert max(within) >= row.value


def test_a_part_is_a_curve_of_its_own() -> None:
    front = CURVE.part(row.granularity for row in CURVE.pareto())
    assert front.nesting.full == CURVE.nesting.full
    assert 3 <= len(front.nesting) < len(CURVE.nesting)
    assert front.row("dim=32,bits=4").value == CURVE.row("dim=32,bits=4").value
    gain = Gain(Granularity(dim=8, bits=1), "ndcg@10", 0.1, 0.0, 0.2)
    trained = replace(CURVE, truncation=CURVE, gains=(gain,))
    assert "+0.100 [+0.000, +0.200]" in trained.part(["dim=8,bits=1"]).table("markdown")
    part = trained.part(["dim=16,bits=4"])
    assert part.verdict == trained.verdict
    assert part.truncation is not None
    assert part.truncation.nesting == part.nesting
    with pytest.raises(GranularityError, match="outside the nesting"):
        CURVE.part(["dim=9"])


def test_the_verdict_names_a_size_once() -> None:
    at = ["dim=8,bits=1", "dim=8,bits=4", "dim=16,bits=1", "dim=16,bits=4"]
    gains = [
        Gain(Granularity.parse(g), "m", v, v - 0.05, v + 0.05)
        for g, v in zip(at, (0.1, 0.2, 0.1, 0.0), strict=True)
    ]
    assert verdict_of(gains, "m") == (
        "Training pays at dim=8, dim=16,bits=1 (m +0.100 to +0.200); "
        "at dim=16,bits=4 plain truncation is as good."
    )


def test_tables_are_sorted_by_bytes_and_mark_the_front() -> None:
    lines = CURVE.table().splitlines()
    assert lines[1].split()[-3:] == ["front", "recall@10", "mrr@10"]
    body = lines[2 : 2 + len(CURVE.nesting)]
    spent = [int(line.split()[1].replace(",", "")) for line in body]
    assert spent == sorted(spent)
    marked = {line.split()[0] for line in body if " * " in line}
    assert marked == {str(row.granularity) for row in CURVE.pareto()}
    chart = CURVE.chart().splitlines()[1:]
    assert [int(line.split()[1]) for line in chart] == spent
    assert "front" not in FLOATS.table().splitlines()[1]


def test_floats_stand_beside_curves_without_bits() -> None:
    lines = {line.split()[0]: line for line in compare([CURVE, FLOATS]).splitlines()[2:]}
    assert set(lines) == {str(g).removesuffix(",bits=32") for g in CURVE.nesting}
    for dim in (8, 16, 32):
        value = f"{FLOATS.row(dim).value:.3f}"
        assert lines[f"dim={dim}"].count(f" {value} ") == 2
    assert "dim=8,bits=32" in compare([CURVE, CURVE])


def test_the_headline_says_bytes() -> None:
    chosen = CURVE.choose(keep=0.5)
    row = CURVE.row(chosen)
    first = headline(CURVE, [], chosen, 1_000_000)[0]
    assert first.startswith(f"{row.vector_bytes} bytes a vector ({chosen}) keep {100 * row.kept:.1f} % [")
    assert f"of the ndcg@10 of 128: {row.vector_bytes} MB in place of 128 MB" in first


def test_pictures_have_a_line_a_precision_and_the_front() -> None:
    chart = Chart.of([CURVE, CURVE, FLOATS], "ndcg@10", Granularity(dim=16, bits=4))
    assert [line.name for line in chart.lines] == [
        "nested, bits=1",
        "nested, bits=4",
        "nested, bits=32",
        "nested, bits=32",
        "nested, best dim and bits",
        "truncation",
    ]
    assert chart.lines[0].places == (1, 2, 4)
    assert chart.over == "bytes per vector"
    assert chart.front is not None
    values = [row.value for row in chart.front.rows]
    assert values == sorted(values)
    assert chart.chosen is not None
    assert chart.chosen.places == (8,)
    assert Chart.of([FLOATS], "ndcg@10").front is None


def test_pictures_and_reports_are_drawn(tmp_path: Path) -> None:
    axes = Figure().subplots()
    CURVE.plot(axes, others=[FLOATS], chosen="dim=16,bits=4")
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[-2:] == ["Pareto front", "chosen"]
    ring = next(line for line in axes.lines if line.get_label() == "chosen")
    assert list(ring.get_xdata()) == [8]
    CURVE.heatmap(tmp_path / "grid.svg")
    CURVE.to_html(tmp_path / "page.html", chosen="dim=16,bits=4", others=[FLOATS])
    page = (tmp_path / "page.html").read_text()
    assert page.count('class="ring"') == len(CURVE.metrics)
    assert page.count('<polyline class="front"') == len(CURVE.metrics)
    assert len(re.findall('<tr class="chosen">', page)) == 1
    plt.close("all")


def test_curves_are_saved_with_bits(tmp_path: Path) -> None:
    CURVE.save(tmp_path / "curve.json")
    assert Curve.load(tmp_path / "curve.json") == CURVE
    assert {"dim", "bits"} <= set(CURVE.to_pandas().columns)
    assert CURVE.grid().splitlines()[1].split() == ["bits", "\\", "dim", "8", "16", "32"]


@pytest.mark.parametrize(
    "bits", ["", "abc", "1 2", "5", [], [True], True, 2.0, 5, [1, 24], np.array(["a"]), np.array(2.0), [None]]
)
def test_bits_that_are_no_precisions_are_refused_alike(bits: Any) -> None:
    message = "bits= must be one or more of 1, 2, 3, 4, 8, 16, 32"
    with pytest.raises(GranularityError, match=message):
        sweep(lambda x: x, TASK, "dim=8", bits=bits)
    with pytest.raises(GranularityError, match=message):
        CURVE.choose(keep=0.9, bits=bits)


@pytest.mark.parametrize("bits", [(4, 1), "4,1", [1, 4, 4], np.array([4, 1]), {1, 4}, iter([4, 1])])
def test_precisions_are_sorted_and_named_once(bits: Any) -> None:
    curve = sweep(lambda x: x, TASK, "dim=8,16,32", bits=bits, resamples=50)
    assert curve.nesting.sizes("bits") == (1, 4, 32)


def test_a_choice_is_among_measured_precisions_alone() -> None:
    with pytest.raises(ConfigError, match="bits=2, 8 was not measured; the curve has bits=1, 4, 32"):
        CURVE.choose(keep=0.5, bits=(1, 2, 8))


@pytest.mark.parametrize("one", ["dim=16,bits=4", Granularity(dim=16, bits=4), {"dim": 16, "bits": 4}])
def test_a_part_may_be_one_granularity(one: Any) -> None:
    assert CURVE.part(one) == CURVE.part([one])
