"""``train`` does what a plan says, from Python as from the command line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from nestling.domains.text import train
from nestling.domains.text.train_plan import read_plan
from nestling.errors import DataError


def test_a_plan_trains_from_python(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs, folder = tmp_path / "pairs.csv", tmp_path / "run"
    rows = [f"where is cat {n},cat {n} is in the garden,{n}" for n in range(20)]
    pairs.write_text("\n".join(["query,document,group", *rows]) + "\n", encoding="utf-8")
    settings = {"pairs": str(pairs), "nesting": "dim=8,256", "max_steps": 1, "batch_size": 4}
    with caplog.at_level(logging.INFO, "nestling"):
        trained = train(read_plan(None, {**settings, "folder": str(folder)}))
    assert str(trained.nesting) == "dim=8,256"
    assert trained.encode(["a cat"], at="dim=8").shape == (1, 8)
    assert "16 pairs to train, 2 to validate" in caplog.text
    assert read_plan(folder / "plan.toml").train.max_steps == 1


def test_missing_data_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    plan = read_plan(None, {"scored": str(tmp_path / "none.csv"), "tune": "encoder", "folder": str(tmp_path)})
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        train(plan)
    assert not list(tmp_path.iterdir())
