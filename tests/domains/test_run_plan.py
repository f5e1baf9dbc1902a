"""Plans of every field: which one a file is for, its defaults, and the plans in the documentation."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from nestling.domains.run_plan import TASKS, SizesPlan, training_of
from nestling.errors import ConfigError
from nestling.schedules import Sandwich

GUIDES = sorted((Path(__file__).parents[2] / "docs").rglob("*.md"))
BLOCKS = [
    block
    for guide in GUIDES
    for block in re.findall(r"^```toml\n(.*?)^```$", guide.read_text(encoding="utf-8"), re.DOTALL | re.M)
    if "[model]" in block
]


def plan_of(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("task", TASKS)
def test_a_plan_of_each_field_is_read_and_written(tmp_path: Path, task: str) -> None:
    path = plan_of(tmp_path, f'task = "{task}"\n[train]\nmax_steps = 3\n')
    training = training_of(path)
    plan = training.TrainPlan.read(path, {"lr": 0.5, "folder": None})
    assert (plan.train.max_steps, plan.train.lr) == (3, 0.5)
    assert plan.train.batch_size == training.TrainPlan().train.batch_size, "a default of the plan"
    plan.write(tmp_path / "run" / "plan.toml")
    assert training_of(tmp_path / "run" / "plan.toml") is training
    assert training.TrainPlan.read(tmp_path / "run" / "plan.toml") == plan
    homes = Counter(key for keys in training.TrainPlan.keys().values() for key in keys)
    assert max(homes.values()) == 1, "a key is in one table"


def test_a_plan_without_a_task_is_one_for_texts(tmp_path: Path) -> None:
    assert training_of(None) is training_of(plan_of(tmp_path, "[train]\nlr = 0.1\n"))
    assert training_of(None).KIND == "text_encoder"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0])
def test_a_plan_of_the_documentation_is_valid(tmp_path: Path, block: str) -> None:
    tables = tomllib.loads(block)
    if {"data", "model", "output"} <= set(tables):
        path = plan_of(tmp_path, block)
        training_of(path).TrainPlan.read(path)


def test_wrong_plans_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown task 'vision'.*'vision-language'"):
        training_of(plan_of(tmp_path, 'task = "vision"\n'))
    speech = plan_of(tmp_path, 'task = "speech"\n')
    plans = training_of(speech).TrainPlan
    with pytest.raises(ConfigError, match=r"unknown setting 'pairs'.*of task 'speech'"):
        plans.read(speech, {"pairs": "my.csv", "lr": None})
    with pytest.raises(ConfigError, match="the plan has the task 'speech'"):
        training_of(None).TrainPlan.read(speech)


def test_a_plan_draws_sizes() -> None:
    assert SizesPlan(draw="sandwich", draw_count=1).schedule() == Sandwich(1)
