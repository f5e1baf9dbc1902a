"""Training plans: flags override files, TOML round trips, mistakes are explained."""

from __future__ import annotations

import math
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.domains.text.train_plan import HOMES, TABLES, TrainPlan, read_plan, write_plan
from nestling.errors import ConfigError
from nestling.training import TrainConfig

TEXT = """
[data]
pairs = "my.csv"

[model]
encoder = "minilm"
nesting = "dim=32..384"
orthogonal = true

[loss]
temperature = 0.1
weights = [2, 1, 1, 1, 1]
draw = "sandwich"

[train]
epochs = 3
lr = 1e-4
max_grad_norm = inf

[output]
folder = "runs/mine"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plan_is_read_and_flags_go_before_it(tmp_path: Path) -> None:
    plan = read_plan(
        write(tmp_path, TEXT), {"lr": 0.5, "batch_size": "32", "epochs": None, "folder": "elsewhere"}
    )
    assert plan.data.pairs == "my.csv"
    assert plan.model.nesting == "dim=32,64,128,256,384"
    assert plan.loss.weights == [2, 1, 1, 1, 1]
    assert plan.train == TrainConfig(epochs=3, lr=0.5, batch_size=32, max_grad_norm=None)
    assert plan.output.folder == "elsewhere"
    assert read_plan() == TrainPlan()


def test_the_resolved_plan_is_written_whole_and_read_back(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, TEXT))
    write_plan(plan, tmp_path / "run" / "plan.toml")
    assert read_plan(tmp_path / "run" / "plan.toml") == plan
    written = tomllib.loads((tmp_path / "run" / "plan.toml").read_text(encoding="utf-8"))
    assert written["train"]["batch_size"] == TrainConfig().batch_size, "defaults are written out too"
    assert written["train"]["max_grad_norm"] == math.inf


@given(
    pairs=st.none() | st.text(),
    encoder=st.text(),
    temperature=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    weights=st.none() | st.lists(st.floats(allow_nan=False)),
    lr=st.floats(min_value=1e-300, max_value=1e300),
    max_grad_norm=st.none() | st.floats(min_value=1e-300),
    drop_last=st.booleans(),
)
def test_any_value_survives_toml(**values: Any) -> None:
    plan = read_plan(None, values)
    tables = tomllib.loads(plan.to_toml())
    assert TrainPlan.model_validate(tables) == plan


def test_a_key_stands_in_one_table() -> None:
    assert max(Counter(key for keys in TABLES.values() for key in keys).values()) == 1
    assert HOMES["lr"] == "train"
    assert HOMES["encoder"] == "model"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[train]\nbatchsize = 3", r"unknown key of \[train\] 'batchsize'; did you mean 'batch_size'"),
        ("[trian]\nlr = 3", "unknown table 'trian'; did you mean 'train'"),
        ("[model]\nlr = 3", r"unknown key of \[model\] 'lr'.*'lr' is a key of \[train\]"),
        ("lr = 3", r"unknown table 'lr'.*'lr' is a key of \[train\]"),
        ("train = 3", r"train must be a table: write \[train\] above its keys epochs"),
        ("[train]\nlr = 'fast'", r"\[train\] lr: .*valid number.*got 'fast'"),
        ("[train]\nlr = -1.0", r"\[train\] lr=-1.0 must be a finite number above 0"),
        ("[train]\nepochs = 1.5", r"\[train\] epochs: .*got 1.5"),
        ("[train]\nschedule = 'cos'", r"\[train\] schedule: .*'cosine'.*got 'cos'"),
        ("[loss]\ntemperature = 0", r"\[loss\] temperature=0 must be a finite number above 0"),
        (
            "[model]\ntune = 'all'\n[loss]\ndraw = 'no'",
            r"\[model\] tune='all' must be one of .*; \[loss\] draw='no' must be one of every, ",
        ),
        (
            "[loss]\nbits = [1, 5]",
            r"\[loss\] bits: bits=5 is no precision of a code",
        ),
        ("[loss]\nbits = [1]\n[model]\ntune = 'masked'", "leave out bits"),
        ("[model]\nhidden = 4\ntune = 'encoder'", r"\[model\]: hidden and orthogonal describe an adapter"),
        ("[loss]\nweights = [1, 'a']", r"\[loss\] weights 1: .*got 'a'"),
        ("[model]\nnesting = 'dim:8'", r"\[model\] nesting: 'dim:8' is not a nesting"),
        ("[model]\nhidden = 4\northogonal = true", r"\[model\]: an orthogonal adapter has no hidden layer"),
        ("[data]\npairs = 'a'\ntexts = 'b'", r"\[data\]: pairs and texts are both given"),
        ("[data]\nscored = 'a'", "scored pairs train all weights of the encoder"),
        ("[data]\nlimit = 0", r"\[data\] limit=0 must be a whole number of at least 1"),
        ("[train\nlr = 3", "is not TOML: .*line 1"),
        ("\0", "is not TOML"),
    ],
)
def test_a_wrong_plan_is_explained(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_plan(write(tmp_path, text))


def test_a_plan_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file"):
        read_plan(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_plan(tmp_path / "bytes.toml")
    with pytest.raises(ConfigError, match="unknown setting 'learning_rate'"):
        read_plan(None, {"learning_rate": 1})


def test_reading_a_plan_costs_no_torch() -> None:
    program = (
        "import sys, nestling.domains.text.train_plan as t; t.read_plan(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_layers_need_an_encoder_that_is_tuned() -> None:
    nesting = "layer=1,2 zip dim=8,16"
    with pytest.raises(ConfigError, match="an adapter is cut on dim alone"):
        read_plan(None, {"nesting": nesting})
    plan = read_plan(None, {"nesting": nesting, "tune": "encoder", "align": "vectors", "draw": "cross"})
    assert plan.model.nesting == "dim=8,16 zip layer=1,2"
    assert plan.loss.align == "vectors"
