"""Bar plots of an evaluation: intervals, the noise ceiling, significance marks, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from nestling.compare import RDMs, evaluate, plot_evaluation, rdm
from nestling.compare.inference.evaluation import Evaluation
from nestling.errors import ConfigError

RNG = np.random.default_rng(3)
MEANING = RNG.normal(size=(40, 8))


def subject(seed: int) -> np.ndarray:
    own = np.random.default_rng(seed)
    return MEANING @ own.normal(size=(8, 50)) / 3 + 1.2 * own.normal(size=(40, 50))


def found(count: int = 3, subjects: int = 8) -> Evaluation:
    data = rdm(np.stack([subject(seed) for seed in range(subjects)]), "correlation")
    parts = {"all": MEANING, "nothing": RNG.normal(size=(40, 8)), "three": MEANING[:, :3]}
    parts |= {f"random {n}": RNG.normal(size=(40, 8)) for n in range(count - 3)}
    models = RDMs.concat([rdm(x, "correlation", labels={"name": name}) for name, x in parts.items()])
    over = "both" if subjects > 1 else "stimuli"
    return evaluate(models, data, "pearson", draws=200, subject=None, over=over)


def test_bars_intervals_ceiling_and_marks() -> None:
    axes, evaluation = Figure().add_subplot(), found()
    plot_evaluation(evaluation, axes)
    *_, bars = [
        each for each in axes.containers if len(each.get_children()) == 3 and hasattr(each, "patches")
    ]
    np.testing.assert_allclose([bar.get_height() for bar in bars], evaluation.values)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["all", "nothing", "three"]
    ceiling = axes.patches[0].get_extents()
    bounds = axes.transData.inverted().transform(ceiling)[:, 1]
    np.testing.assert_allclose(bounds, [evaluation.ceiling.lower, evaluation.ceiling.upper])
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["noise ceiling", "mean over subjects", "95% interval"]
    rows = evaluation.rows()
    expected = ["*" * (r["p_zero"] < 0.05) + "†" * (r["p_ceiling"] < 0.05) for r in rows]
    assert [text.get_text() for text in axes.texts] == expected == ["*", "†", "*†"]
    assert "(p < 0.05, holm)" in axes.get_xlabel()
    low, high = axes.get_ylim()
    assert low <= 0 <= high


def test_lines_join_models_that_differ() -> None:
    axes, evaluation = Figure().add_subplot(), found()
    plot_evaluation(evaluation, axes)
    numbers = {name: number for number, name in enumerate(evaluation.models)}
    expected = {
        (numbers[pair["first"]], numbers[pair["second"]]) for pair in evaluation.pairs() if pair["p"] < 0.05
    }
    joined = [line for line in axes.lines if line.get_marker() == "|" and len(line.get_xdata()) == 2]
    assert {tuple(map(int, line.get_xdata())) for line in joined} == expected
    assert expected
    top = evaluation.ceiling.upper
    assert all(line.get_ydata()[0] > top for line in joined)
    assert "a line joins models that differ" in axes.get_xlabel()


def test_many_models_have_no_lines_and_the_picture_says_where_they_are() -> None:
    axes = Figure().add_subplot()
    plot_evaluation(found(9), axes)
    assert "differences of pairs: see pairs()" in axes.get_xlabel()


def test_one_subject_has_no_ceiling(tmp_path: Path) -> None:
    axes = Figure().add_subplot()
    plot_evaluation(found(subjects=1), axes)
    assert "noise ceiling" not in [text.get_text() for text in axes.get_legend().get_texts()]
    plot_evaluation(found(subjects=1), tmp_path / "bars.svg", title="mine")
    assert "mine</text>" in (tmp_path / "bars.svg").read_text(encoding="utf-8")


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    for alpha in (0, 1, float("nan")):
        with pytest.raises(ConfigError, match="alpha="):
            plot_evaluation(found(), tmp_path / "a.png", alpha=alpha)
    with pytest.raises(ConfigError, match="correction"):
        plot_evaluation(found(), tmp_path / "a.png", correction="holms")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no picture file"):
        plot_evaluation(found(), tmp_path / "a.bmp")
