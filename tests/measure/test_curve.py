"""Curves: choice by targets, the Pareto front, tables, saving."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from nestling.errors import ArtifactError, ConfigError, DataError, GranularityError, StorageError
from nestling.granularity import Granularity, Nesting
from nestling.measure.curve.choice import Row
from nestling.measure.curve.curve import Curve
from nestling.measure.curve.table import compare
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import Retrieval


def make(rows: tuple[Row, ...], name: str = "nested", task: str = "retrieval") -> Curve:
    return Curve(
        rows, name, task, 500, 0.95, 1000, {"python": "3.11", "numpy": "2.0"}, "a machine", "2026-01-31"
    )


def row(dim: int, value: float, *, spread: float = 0.01, metric: str = "ndcg@10", **costs: float) -> Row:
    value_ends, kept = (value - spread, value + spread), value / 0.8
    kept_ends = (kept - spread, kept + spread) if dim < 256 else (1.0, 1.0)
    return Row(Granularity(dim=dim), metric, value, *value_ends, kept, *kept_ends, 4 * dim, **costs)


CURVE = make(
    (
        row(8, 0.4, flops=1e6, latency_ms=1.0, model_bytes=100),
        row(64, 0.79, flops=2e6, latency_ms=2.0, model_bytes=200),
        row(128, 0.785, flops=4e6, latency_ms=4.0, model_bytes=300),
        row(256, 0.8, spread=0.0, flops=8e6, latency_ms=8.0, model_bytes=400),
    )
)


@pytest.mark.parametrize(
    ("targets", "dim"),
    [
        ({"keep": 0.97}, 64),
        ({"keep": 0.98}, 256),  # 64 keeps 0.9875, but not for certain
        ({"keep": 1}, 256),
        ({"at_least": 0.35}, 8),
        ({"at_least": 0.775}, 64),
        ({"at_least": 0.775, "keep": 0.99}, 256),
        ({"max_bytes": 255}, 8),
        ({"max_bytes": 600}, 64),  # 128 would fit too, but is no better
        ({"max_ms": 4}, 64),
        ({"max_ms": 100}, 256),
        ({"keep": 0.4, "max_bytes": 300}, 8),
        ({"max_ms": 100, "max_bytes": 255}, 8),  # both at once
        ({"max_ms": 1, "max_model_bytes": 400}, 8),
        ({"max_flops": 7e6, "max_model_bytes": 200}, 64),
        ({"max_flops": 1e9, "max_model_bytes": 400}, 256),
    ],
)
def test_the_cheapest_that_surely_meets_the_targets_is_chosen(targets: dict, dim: int) -> None:
    assert CURVE.choose(**targets) == Granularity(dim=dim)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({}, "keep=0.99, at_least="),
        ({"keep": 1.5}, "at most 1"),
        ({"keep": 0}, "above 0"),
        ({"keep": math.nan}, "keep=nan must be a number"),
        (
            {"keep": 0.99, "max_bytes": 300},
            r"keep=0.99, max_bytes=300 .* best reachable is dim=64: ndcg@10 0.7900",
        ),
        ({"at_least": 0.9}, "best reachable is dim=256"),
        ({"max_bytes": 8}, "the cheapest is dim=8 with vector_bytes=32$"),
        ({"max_ms": 0.5, "max_flops": 1}, "the cheapest is dim=8 with latency_ms=1 and flops=1e"),
        ({"keep": 0.5, "metric": "ndcg@1"}, "did you mean 'ndcg@10'"),
        ({"keep": 0.5, "cheapest": "bytes"}, "did you mean .*'vector_bytes'"),
    ],
)
def test_what_cannot_be_met_is_said(targets: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CURVE.choose(**targets)


def test_time_limits_need_times() -> None:
    with pytest.raises(ConfigError, match="latency=True"):
        make((row(8, 0.4), row(256, 0.8))).choose(max_ms=3)
    with pytest.raises(ConfigError, match="max_model_bytes= needs model_bytes, which was not measured"):
        make((row(8, 0.4), row(256, 0.8))).choose(max_model_bytes=3)


def of_tokens(**sizes: int) -> Row:
    return replace(row(8, 0.1 + 0.01 * sum(sizes.values())), granularity=Granularity(**sizes))


def test_a_limit_of_tokens_is_that_of_all_streams_together() -> None:
    texts = make(tuple(of_tokens(tokens=n) for n in (1, 4, 16)))
    assert texts.choose(max_tokens=15) == Granularity(tokens=4)
    assert texts.choose(max_tokens=16, keep=0.3) == Granularity(tokens=16)
    with pytest.raises(ConfigError, match=r"the cheapest is tokens=1 with tokens=1$"):
        texts.choose(max_tokens=0.5)
    speech = make(tuple(of_tokens(audio=a, video=v) for a in (31, 125) for v in (50, 125)))
    assert speech.choose(max_tokens=175) == Granularity(audio=125, video=50)
    with pytest.raises(ConfigError, match=r"max_tokens= needs tokens, .*; sweep a model over tokens"):
        CURVE.choose(max_tokens=4)


def test_which_cost_counts_can_be_said() -> None:
    grid = [(2, 256, 0.8), (6, 64, 0.8), (6, 256, 0.8)]
    rows = tuple(
        Row(Granularity(layer=layer, dim=dim), "m", v, v, v, 1, 1, 1, 4 * dim, 1e6 * layer)
        for layer, dim, v in grid
    )
    curve = make(rows)
    assert curve.choose(keep=0.9) == Granularity(layer=6, dim=64)
    assert curve.choose(keep=0.9, cheapest="flops") == Granularity(layer=2, dim=256)
    assert {r.granularity for r in curve.pareto()} == {
        Granularity(layer=6, dim=64),
        Granularity(layer=2, dim=256),
    }


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_beats(points: list[tuple[float, int]]) -> None:
    rows = tuple(
        Row(Granularity(dim=i + 1), "m", v, v, v, v, v, v, 4 * (i + 1), float(flops))
        for i, (v, flops) in enumerate(points)
    )
    front = make(rows).pareto()
    assert front
    for one in rows:
        beaten = [
            other
            for other in rows
            if other is not one
            and other.vector_bytes <= one.vector_bytes
            and (other.flops or 0) <= (one.flops or 0)
            and other.value >= one.value
        ]
        assert (one in front) == (not beaten)


def test_rows_are_found_by_granularity_and_metric() -> None:
    curve = make((row(8, 0.4), row(8, 0.5, metric="mrr"), row(256, 0.8), row(256, 0.9, metric="mrr")))
    assert curve.metrics == ("ndcg@10", "mrr")
    assert curve.row("dim=8", "mrr").value == 0.5
    assert curve.row().value == 0.8
    assert curve.nesting == Nesting.parse("dim=8,256")
    with pytest.raises(GranularityError, match="dim=8"):
        curve.row(9)


@pytest.mark.parametrize("rows", [(), (row(8, 0.4), row(8, 0.4)), (row(8, 0.4), row(16, 0.4, metric="mrr"))])
def test_a_curve_has_every_metric_everywhere(rows: tuple[Row, ...]) -> None:
    with pytest.raises(DataError, match="every metric once"):
        make(rows)


def test_the_table_says_it_all() -> None:
    lines = CURVE.table().splitlines()
    assert lines[0] == "nested on retrieval: 500 examples, 95% intervals of 1,000 resamples"
    assert lines[1].split() == [
        "granularity",
        "bytes",
        "FLOPs",
        "model",
        "bytes",
        "ms",
        "ndcg@10",
        "kept",
        "front",
    ]
    dim64 = "dim=64         256    2 M          200   2  0.790 [0.780, 0.800]     98.8 % [97.8, 99.8]      *"
    assert lines[3] == dim64
    assert lines[4].endswith("]")  # 128 costs more and is no better
    assert len({len(line) for line in lines[1:4]}) == 1
    assert lines[-1].startswith("* on the Pareto front")
    assert "FLOPs" not in make((row(8, 0.4), row(256, 0.8))).table()


def test_the_chart_has_bars_as_long_as_the_values() -> None:
    bars = [line.count("█") for line in CURVE.chart(width=40).splitlines()[1:]]
    assert bars == [20, 39, 39, 40]
    assert "-0.500" in make((row(8, -0.5), row(256, 0.8))).chart()


def test_curves_stand_side_by_side() -> None:
    other = make((row(8, 0.2), row(16, 0.3), row(256, 0.8)), "truncation")
    lines = compare([CURVE, other]).splitlines()
    assert lines[0] == "ndcg@10 on retrieval, 95% intervals"
    assert lines[1].split() == ["granularity", "bytes", "nested", "truncation"]
    assert [line.split()[0] for line in lines[2:]] == ["dim=8", "dim=16", "dim=64", "dim=128", "dim=256"]
    assert lines[3].split()[2] == "-"
    with pytest.raises(ConfigError, match="unknown metric 'mrr'"):
        compare([CURVE, other], "mrr")


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    nan = Row(Granularity(dim=8), "m", 0.0, 0.0, 0.0, math.nan, math.nan, math.nan, 32)
    for curve in (CURVE, make((nan,))):
        curve.save(tmp_path / "curve.json")
        assert repr(Curve.load(tmp_path / "curve.json")) == repr(curve)
    assert [path.name for path in tmp_path.iterdir()] == ["curve.json"]
    json.loads((tmp_path / "curve.json").read_text(), parse_constant=pytest.fail)


def changed(**values: object) -> str:
    record = json.loads(saved())
    for name, value in values.items():
        if value is None:
            del record[name]
        else:
            record[name] = value
    return json.dumps(record)


def saved() -> str:
    with tempfile.TemporaryDirectory() as folder:
        CURVE.save(Path(folder) / "curve.json")
        return (Path(folder) / "curve.json").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (saved()[:200], "cannot be read"),
        ("[]", "holds no curve"),
        (changed(kind="index"), "holds no curve"),
        (changed(schema_version=2), r"schema 2, .* pip install -U nestling"),
        (changed(schema_version="x"), "malformed at schema_version"),
        (changed(machine=None), "malformed at machine"),
        (changed(extra=1), "malformed at extra"),
        (changed(rows=[]), "every metric once"),
        (changed(rows=[{"granularity": "dim=8"}]), r"malformed at rows\.0\."),
        (saved().replace('"dim=8"', '"dim:8"'), "not a granularity"),
        (saved().replace('"vector_bytes": 32', '"vector_bytes": "many"'), r"rows\.0\.vector_bytes"),
    ],
)
def test_files_that_are_no_curves_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "curve.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=message):
        Curve.load(path)
    with pytest.raises(ArtifactError, match="cannot be read"):
        Curve.load(tmp_path / "absent.json")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError, match="cannot be read"):
        Curve.load(path)


def test_a_full_disk_leaves_the_old_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CURVE.save(tmp_path / "curve.json")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        CURVE.save(tmp_path / "curve.json")
    assert [path.name for path in tmp_path.iterdir()] == ["curve.json"]
    assert Curve.load(tmp_path / "curve.json") == CURVE


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_plots_go_to_files_without_touching_pyplot(suffix: str, start: bytes, tmp_path: Path) -> None:
    backend, figures = matplotlib.get_backend(), plt.get_fignums()
    path = tmp_path / f"curve{suffix}"
    CURVE.plot(path, others=[make((row(8, 0.2), row(256, 0.8)), "truncation")])
    assert path.read_bytes().startswith(start)
    assert (matplotlib.get_backend(), plt.get_fignums()) == (backend, figures)
    with pytest.raises(ConfigError, match=r"end its name in \.png"):
        CURVE.plot(tmp_path / "curve.txt")


def test_plots_go_onto_given_axes() -> None:
    axes = Figure().add_subplot()
    grid = tuple(
        Row(Granularity(layer=layer, dim=dim), "m", 0.5, 0.4, 0.6, 1, 1, 1, 4 * dim)
        for layer in (2, 4)
        for dim in (8, 16)
    )
    make(grid).plot(axes, others=[make((row(8, 0.2, metric="m"), row(16, 0.3, metric="m")), "other")])
    assert [line.get_label() for line in axes.get_lines()] == ["nested, layer=2", "nested, layer=4", "other"]
    assert axes.get_lines()[0].get_xdata().tolist() == [32, 64]


def test_pandas_gets_a_column_for_each_axis() -> None:
    frame = CURVE.to_pandas()
    assert frame["dim"].tolist() == [8, 64, 128, 256]
    assert frame["granularity"].tolist()[0] == "dim=8"
    np.testing.assert_allclose(frame["value"], [0.4, 0.79, 0.785, 0.8])


def test_a_swept_curve_makes_the_round(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 8))
    curve = sweep(lambda v: v, Retrieval(x + 0.1, x, range(40)), Nesting.parse("dim=2..8"), resamples=20)
    curve.save(tmp_path / "curve.json")
    assert Curve.load(tmp_path / "curve.json") == curve


def test_layers_are_drawn_over_layers_and_dims_over_bytes() -> None:
    def drawn(*granularities: Granularity) -> tuple[str, str, list[float]]:
        rows = tuple(Row(g, "ndcg", 0.5, 0.4, 0.6, 1, 1, 1, 4 * g.get("dim", 96)) for g in granularities)
        axes = Figure().add_subplot()
        make(rows).plot(axes)
        return axes.get_xlabel(), axes.get_xscale(), axes.lines[0].get_xdata().tolist()

    layers = [Granularity(layer=n) for n in (1, 2, 6)]
    assert drawn(*layers) == ("layer", "linear", [1, 2, 6])
    dims = [Granularity(dim=n) for n in (8, 16)]
    assert drawn(*dims) == ("bytes per vector", "log", [32, 64])
    both = [Granularity(layer=n, dim=8 * n) for n in (1, 2)]
    assert drawn(*both)[0] == "bytes per vector"
