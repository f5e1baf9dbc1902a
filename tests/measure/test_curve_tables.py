"""Curves as CSV, Markdown and LaTeX; several seeds as one curve; the verdict on training."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from nestling.errors import ConfigError, DataError
from nestling.gain import Gain, verdict_of
from nestling.granularity import Granularity
from nestling.measure import STS, Curve, Retrieval, compare, sweep
from nestling.measure.curve.table import cells

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 8))
TASK = Retrieval(X + RNG.normal(size=X.shape), X, range(80))
CURVE = sweep(lambda x: x, TASK, "dim=2,8", name="100 %_of|a", resamples=50)


def test_csv_holds_every_figure_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(CURVE.table("csv"))))
    assert len(rows) == len(CURVE.rows)
    for found, row in zip(rows, CURVE.rows, strict=True):
        assert (found["curve"], found["task"]) == (CURVE.name, CURVE.task)
        assert (found["granularity"], found["metric"]) == (str(row.granularity), row.metric)
        for name in ("value", "low", "high", "kept", "vector_bytes"):
            assert float(found[name]) == getattr(row, name)
        assert found["flops"] == ""
    both = list(csv.DictReader(io.StringIO(compare([CURVE, CURVE], format="csv"))))
    assert both == [*rows, *rows]


def test_no_share_is_kept_of_a_quality_that_is_not_above_0(tmp_path) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 60, 8))
    scores = -(x * y).sum(axis=1) + 20 * rng.normal(size=60)
    curve = sweep(lambda x: x, STS(x, y, scores), "dim=2,8", resamples=200)
    full = curve.row()
    assert full.value <= 0 < full.high  # so that some resamples have a share
    assert all(np.isnan([row.kept, row.kept_low, row.kept_high]).all() for row in curve.column())
    assert all(cell[3] == "-" for cell in cells(curve)[1:])
    rows = csv.DictReader(io.StringIO(curve.table("csv")))
    assert all(row[name] == "" for row in rows for name in ("kept", "kept_low", "kept_high"))
    with pytest.raises(ConfigError, match="not above 0, so no share of it can be kept; use at_least="):
        curve.choose(keep=0.9)
    assert curve.choose(at_least=full.low) in curve.nesting
    with pytest.raises(ConfigError, match=r"best reachable is .*\)\. Ask for less"):
        curve.choose(at_least=1)
    for chosen in (None, "dim=2"):
        curve.to_html(tmp_path / "page.html", chosen=chosen)
        page = (tmp_path / "page.html").read_text()
        assert "not above 0" in page
        assert "nan" not in page.lower().replace("nanum", "")
    for text in (curve.table(), curve.table("markdown"), curve.chart()):
        assert "nan" not in text


def test_markdown_and_latex_hold_the_cells_of_the_text() -> None:
    markdown = CURVE.table("markdown").splitlines()
    assert markdown[1].startswith("| --- | ---: |")
    assert len(markdown) == 2 + len(CURVE.nesting)
    latex = CURVE.table("latex")
    assert latex.startswith("\\begin{tabular}{lr")
    assert "100.0 \\% [" in latex
    beside = compare([CURVE], format="latex")
    assert "100 \\%\\_of|a \\\\" in beside
    assert "100 %_of\\|a" in compare([CURVE], format="markdown")
    for line in markdown[2:]:
        for cell in line.strip("| ").split(" | "):
            assert cell in CURVE.table()


def test_another_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'markdown'"):
        CURVE.table("markdwn")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be one of text"):
        compare([CURVE], format="xml")  # type: ignore[arg-type]


def test_the_repr_says_what_was_found() -> None:
    assert repr(CURVE).startswith("Curve('100 %_of|a' on retrieval, 80 examples, ndcg@10 0.")
    assert "at dim=8, 2 granularities)" in repr(CURVE)


def test_several_seeds_are_one_curve() -> None:
    curves = [
        sweep(lambda x, s=seed: x + np.random.default_rng(s).normal(size=x.shape), TASK, "dim=2,8", seed=seed)
        for seed in range(3)
    ]
    mean = Curve.mean(curves, name="three seeds")
    for row in mean.rows:
        values = [curve.row(row.granularity, row.metric).value for curve in curves]
        kept = [curve.row(row.granularity, row.metric).kept for curve in curves]
        assert row.value == pytest.approx(np.mean(values))
        assert (row.low, row.high) == (min(values), max(values))
        assert (row.kept_low, row.kept_high) == (min(kept), max(kept))
    assert (mean.name, mean.runs) == ("three seeds", 3)
    assert "mean of 3 runs, from the lowest to the highest" in mean.table()
    assert mean.choose(keep=1) == Granularity(dim=8)
    with pytest.raises(DataError, match="at least 2 runs"):
        Curve.mean(curves[:1])
    with pytest.raises(ConfigError, match="mean takes a list of curves, not 'ab'"):
        Curve.mean("ab")
    with pytest.raises(DataError, match="not of one kind"):
        Curve.mean([curves[0], sweep(lambda x: x, TASK, "dim=4,8")])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((0.2, 0.1), "Training pays at every size (m +0.100 to +0.200)."),
        ((0.2, 0.0), "Training pays at dim=8 (m +0.200); at dim=16 plain truncation is as good."),
        ((0.0, -0.1), "Training pays at no size (by m); at dim=8 plain truncation is as good; "
                      "at dim=16 plain truncation is better."),
    ],
)  # fmt: skip
def test_where_training_pays_is_one_sentence(values: tuple[float, float], sentence: str) -> None:
    gains = [
        Gain(Granularity(dim=dim), "m", value, value - 0.05, value + 0.05)
        for dim, value in zip((8, 16), values, strict=True)
    ]
    assert verdict_of(gains, "m") == sentence
