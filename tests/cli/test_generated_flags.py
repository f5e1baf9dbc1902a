"""Generated flags: those of ``train`` from the plan, those of other commands from dataclasses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from nestling.cli import app
from nestling.cli.flags.generated import read_flags, with_groups
from nestling.cli.flags.registration import add_command
from nestling.domains.text.train_plan import SETTINGS, TrainPlan, read_plan
from nestling.errors import ConfigError
from nestling.papers import PAPERS

GROUP = typer.main.get_command(app)
FLAGS: dict[str, list[str]] = json.loads(Path(__file__).with_name("flags.json").read_text(encoding="utf-8"))
"""The flags and arguments of every command in nestling 0.1."""


def help_of(*command: str) -> str:
    return CliRunner().invoke(app, [*command, "--help"], terminal_width=200).output


def panels(shown: str) -> list[str]:
    titles = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert (titles[0], titles[-1]) == ("Arguments:", "Options:")
    return titles[1:-1]


def parameters(command: Any) -> list[str]:
    options = [each for each in command.params if each.param_type_name == "option"]
    flags = sorted(flag for option in options for flag in (*option.opts, *option.secondary_opts))
    return flags + [each.name for each in command.params if each.param_type_name == "argument"]


def test_every_command_has_the_flags_that_it_had() -> None:
    found = {"nestling": parameters(GROUP), "index": []}
    for name, command in GROUP.commands.items():
        if name == "index":
            found |= {f"index {verb}": parameters(each) for verb, each in command.commands.items()}
        else:
            found[name] = parameters(command)
    assert found == FLAGS


def test_the_flags_of_train_are_the_settings_of_a_plan() -> None:
    names = {each.name for each in GROUP.commands["train"].params}
    settings = {name for table in TrainPlan() for name in dict(vars(table[1]))}
    assert names == settings | {"plan", "as_json"}
    assert [each.name for each in SETTINGS if not each.description] == []


def test_help_shows_panels_descriptions_and_defaults() -> None:
    shown = help_of("train")
    masking = "Masking (with --tune masked):"
    assert panels(shown) == ["Data:", "Model:", "Loss:", masking, "Training:", "Output:"]
    words = " ".join(shown.split()).replace("FLOAT", "<float>")
    assert "--lr <float> Highest learning rate of AdamW; above 0. [default: 0.001]" in words
    assert "[default: drop-last]" in words
    texts, vectors = "Texts (with --encoder):", "Vectors (without --encoder):"
    assert panels(help_of("index", "build")) == [texts, "Columns:", vectors, "Search plan:"]


def test_the_help_of_reproduce_names_every_paper() -> None:
    words = help_of("reproduce").replace(",", " ").split()
    assert [paper for paper in PAPERS if paper not in {word.strip(".") for word in words}] == []


def test_a_flag_overrides_a_default_of_the_plan() -> None:
    flags = dict.fromkeys((each.name for each in SETTINGS), None) | {"weights": "4,2,1", "drop_last": False}
    plan = read_plan(None, read_flags(SETTINGS, flags))
    assert plan.loss.weights == [4, 2, 1]
    assert plan.train.drop_last is False
    assert plan == read_plan(None, {"weights": [4.0, 2.0, 1.0], "drop_last": False})
    with pytest.raises(ConfigError, match="weights='4;2' must be numbers with commas between"):
        read_flags(SETTINGS, {"weights": "4;2"})


@dataclass(frozen=True)
class Size:
    """A group of flags."""

    width: Annotated[int, typer.Option(min=1, rich_help_panel="Size")] = 3
    place: Annotated[Path | None, typer.Option(rich_help_panel="Size")] = None


def test_a_dataclass_is_a_group_of_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    called: list[Any] = []

    @with_groups
    def measure(files: list[Path], size: Size, *, deep: bool = False, query: str = "") -> None:
        """Measure."""
        called.append((files, size, deep, query))

    program = typer.Typer(rich_markup_mode=None)
    add_command(program, measure)
    runner = CliRunner()
    flags = ["--width", "4", "--place", "~/z", "--query", "~/q"]
    assert runner.invoke(program, ["~/x", "~y", *flags]).exit_code == 0
    assert runner.invoke(program, ["x", "--deep"]).exit_code == 0
    assert runner.invoke(program, ["x", "--width", "0"]).exit_code == 2
    assert called == [
        ([tmp_path / "x", Path("~y")], Size(4, tmp_path / "z"), False, "~/q"),  # a query is no path
        ([Path("x")], Size(), True, ""),
    ]
    assert "Size:\n  --width" in runner.invoke(program, ["--help"]).output
