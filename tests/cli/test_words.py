"""Messages of the command line: flags instead of arguments, letters that cannot be shown, closed pipes."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

import nestling
from nestling.axes import AXES
from nestling.cli import app
from nestling.cli.terminal.messages import command_of, flags_of, in_flags
from nestling.errors import GranularityError
from nestling.granularity import Nesting

SOURCES = sorted(Path(nestling.__file__).parent.rglob("*.py"))
GROUP = typer.main.get_command(app)
COMMANDS = {name: each for name, each in GROUP.commands.items() if name != "index"} | {
    f"index {name}": each for name, each in GROUP.commands["index"].commands.items()
}
COMMAND = (
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'nestling'; from nestling.cli import main; main()",
)
ARGUMENT = re.compile(r"(?<![\w./'\"=<>!*-])([a-z][a-z_]*)=(?![=>])")


def nestling_command(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def texts_of(node: ast.AST) -> Iterator[str]:
    """The texts in an expression, with ``7`` for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in node.values)
    elif isinstance(node, ast.Constant):
        yield str(node.value)
    else:
        for part in ast.iter_child_nodes(node):
            yield from texts_of(part)


def messages() -> Iterator[tuple[str, str]]:
    """The texts of all errors in the sources."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                yield from ((path.name, text) for text in texts_of(node.exc.args[0]))


@pytest.mark.parametrize("name", COMMANDS)
def test_no_error_names_an_argument_of_python(name: str) -> None:
    """All errors that the library has, in the words of every command."""
    flags = flags_of(COMMANDS[name])
    for file, message in messages():
        told = in_flags(message, flags)
        assert bool(told) == bool(message), (file, message)
        left = set(ARGUMENT.findall(re.sub(r"\"[^\"]*\"|'[^']*'|--columns \S+", "", told)))
        assert left <= {*AXES, "nprobe", "ef", "shortlist", "confidence"}, (file, told)


def test_the_flags_are_those_of_the_command_that_was_called() -> None:
    assert command_of(GROUP, ["index", "delete", "ix", "build"]) is COMMANDS["index delete"]
    assert command_of(GROUP, ["--help"]) is GROUP
    assert flags_of(COMMANDS["index delete"])["missing_ok"] == "--missing-ok"
    assert flags_of(COMMANDS["encode"])["output"] == "--output"
    assert flags_of(COMMANDS["encode"])["text"] == "--column"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ('write at="dim=64"', 'write --at "dim=64"'),
        ("choose by keep=0.99, at_least=, max_ms=", "choose by --keep 0.99, --at-least, --max-ms"),
        (
            "k=9 neighbours cannot be found among 4; choose fewer",
            "--k 9 neighbours cannot be found among 4; choose fewer",
        ),
        ("it has 'keep=1' and year>=2020 and x != 3", "it has 'keep=1' and year>=2020 and x != 3"),
        ("confidence=2 is text; alpha=3 is not", "confidence=2 is text"),
        ("alpha=3 is wrong; give dim=, or keep=1", "alpha 3 is wrong"),
        ("data/k=3.npy is missing", "data/k=3.npy is missing"),
    ],
)
def test_arguments_become_flags(given: str, told: str) -> None:
    names = ("at", "k", "keep", "at_least", "max_ms")
    assert in_flags(given, {name: f"--{name.replace('_', '-')}" for name in names}) == told


@given(st.from_regex(r"axis_[a-z_]{1,20}", fullmatch=True), st.integers(0, 99))
def test_sizes_on_any_axis_stay_as_the_user_writes_them(axis: str, size: int) -> None:
    """The library has no list of axes: one that a text of the user named is one."""
    for text in (f"{axis}=100,200", f"dim=8,16 x {axis}=100,200"):
        nesting = Nesting.parse(text)
        with pytest.raises(GranularityError) as refused:
            nesting.resolve(f"{axis}={size}")
        assert in_flags(str(refused.value), {}) == str(refused.value)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32))
    made = nestling_command(
        "index", "build", tmp_path / "x.npy", "-o", tmp_path / "ix", "--plan", "flat@full"
    )
    assert made.returncode == 0, made.stderr
    return tmp_path / "ix"


def test_errors_of_an_index_name_flags(index: Path) -> None:
    missing = nestling_command("index", "delete", index, 12, 1234)
    assert missing.returncode == 3
    assert "pass --missing-ok to delete those that are" in missing.stderr
    assert nestling_command("index", "delete", index, 12, 1234, "--missing-ok").stdout == "49\n"
    np.save(index.parent / "q.npy", np.ones((2, 3), np.float32))
    narrow = nestling_command("search", index, "--vectors", index.parent / "q.npy")
    assert narrow.returncode == 3
    assert "name the size with --at" in narrow.stderr
    with nestling.AdaptiveIndex.open(index):
        locked = nestling_command("index", "add", index, index.parent / "x.npy", "--wait", 0.1)
    assert locked.returncode == 1
    assert "wait for it with --wait 60 (seconds)" in locked.stderr
    assert "read_only" not in locked.stderr


def test_letters_that_a_console_cannot_show_are_escaped(tmp_path: Path) -> None:
    texts = tmp_path / "\N{HOT BEVERAGE}.npy"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    for flags in ([], ["--json"]):
        shown = nestling_command("search", texts, "cup", *flags, env=environment)
        assert shown.returncode == 1
        assert r"\u2615.npy" in shown.stderr
        assert "Traceback" not in shown.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8", "utf-16"])
@pytest.mark.parametrize("letters", ["caf\u00e9 \u2615", "\U0001f600", "\ud83d"], ids=["cup", "face", "half"])
def test_results_are_shown_in_every_encoding(letters: str, encoding: str) -> None:
    code = (
        "from nestling.cli.terminal.output import show, show_all_letters, show_json, say\n"
        f"show_all_letters(); show_json({[letters]!r}); say({letters!r}); show({letters!r})"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=environment)
    assert told.returncode == 0, told.stderr
    # click takes ASCII for a locale that was never set, and writes UTF-8.
    text = told.stdout.decode("utf-8" if encoding == "ascii" else encoding).replace("\r\n", "\n")
    assert json.loads(text[: text.index("]") + 1]) == [letters]


def test_a_closed_pipe_ends_a_command_without_a_word() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [*COMMAND, "data"]
    with os.fdopen(write, "wb") as closed:
        told = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (told.returncode, told.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
@pytest.mark.parametrize("arguments", [["data"], ["data", "--json"], ["--help"], ["--version"]])
def test_results_that_cannot_be_written_are_an_error_of_one_line(arguments: list[str]) -> None:
    command = [*COMMAND, *arguments]
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert told.returncode == 1
    assert told.stderr.count("\n") == 1
    assert "the disk is full" in told.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_talk_that_nobody_can_hear_does_not_stop_the_work(index: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from nestling.cli import main; main()",
        "index",
        "delete",
        str(index),
        "3",
    ]
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(command, stderr=full, stdout=subprocess.PIPE, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "49\n")


def test_the_version_is_shown() -> None:
    assert nestling_command("--version").stdout == f"nestling {nestling.__version__}\n"


def test_completion_knows_the_commands() -> None:
    asked = {"_NESTLING_COMPLETE": "complete_bash", "COMP_WORDS": "nestling ind", "COMP_CWORD": "1"}
    assert nestling_command(env={**os.environ, **asked}).stdout.strip() == "index"
