"""``train`` does what a plan says, from Python as from the command line."""

from __future__ import annotations

import logging
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from nestling.cut import cut
from nestling.domains.text import train
from nestling.domains.text.train_plan import read_plan
from nestling.encoders.text.opening import open_encoder
from nestling.errors import DataError
from nestling.vectors.stored import StoredVectors


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


@pytest.mark.filterwarnings("ignore::nestling.errors.ServingWarning", "ignore::nestling.errors.NoGainWarning")
@pytest.mark.parametrize("settings", [{}, {"tune": "encoder", "nesting": "dim=8,32 x layer=1,2"}])
def test_training_for_bits_gives_a_code_that_travels_with_the_model(
    settings: dict[str, str], tmp_path: Path, tiny_bert_folder: Path
) -> None:
    pairs, folder = tmp_path / "pairs.csv", tmp_path / "run"
    words = ["".join(word) for word in product("abcdefgh", repeat=3)][:400]
    rows = [f"where is {word},the {word} cat,{word}" for word in words]
    pairs.write_text("\n".join(["query,document,group", *rows]) + "\n", encoding="utf-8")
    given = {"pairs": str(pairs), "encoder": str(tiny_bert_folder), "max_steps": 2, "batch_size": 32}
    trained = train(read_plan(None, {**given, **settings, "bits": [2, 1], "folder": str(folder)}))
    code, full = trained.rule.code, trained.nesting.full
    assert code is not None
    assert "bits" not in trained.nesting.axes
    vectors = trained.encode([f"the {word} cat" for word in words])
    assert np.allclose(code.spread, cut(vectors, code.full).std(0), rtol=0.2)  # of 4 in 5 of them
    trained.save(tmp_path / "model")
    loaded = open_encoder(tmp_path / "model")
    assert loaded.rule.code == code
    assert loaded.extract(full).rule.code == code
    assert loaded.extract(loaded.nesting[0]).rule.code is None
    stored = StoredVectors(vectors, [8, 32], loaded.rule)
    assert stored.cost("dim=32,bits=2").output_bytes == 8


def test_missing_data_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    plan = read_plan(None, {"scored": str(tmp_path / "none.csv"), "tune": "encoder", "folder": str(tmp_path)})
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        train(plan)
    assert not list(tmp_path.iterdir())
