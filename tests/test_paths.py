"""``~`` is a home in every path that a user may give."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nestling
from nestling import AdaptiveIndex, Curve, Nesting, StoredVectors
from nestling.arguments.paths import home_path
from nestling.data import TextPairs, read_beir, read_pairs, read_qrels, read_run
from nestling.data.sets.images import read_idx
from nestling.data.sets.retrieval_sets import read_squad
from nestling.data.tables.table import read_table
from nestling.domains.fidelity import read_fidelity_plan
from nestling.domains.text.collection import Collection
from nestling.domains.text.train_plan import read_plan, write_plan
from nestling.encoders.text.names import check_model
from nestling.encoders.text.opening import open_encoder
from nestling.errors import NestlingError
from nestling.measure import Retrieval, sweep
from nestling.papers.claims.report import Report
from nestling.search.tuning.planner import build
from nestling.storage.artifact import (
    check_file_target,
    check_folder_target,
    open_new,
    read_folder,
    read_manifest,
)
from nestling.vectors.opening import open_vectors

SOURCE = Path(nestling.__file__).parent
X = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and a working folder elsewhere, where no folder of the name ``~`` may appear."""
    for name in ("home", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def user_paths() -> list[tuple[str, str, ast.FunctionDef]]:
    """All functions that take a path as text, with the name of the parameter."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or path.name == "arguments/paths.py":
                continue
            for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                written = "" if each.annotation is None else ast.unparse(each.annotation)
                if {"str", "Path"} <= set(written.replace("|", " ").split()):
                    found.append((f"{path.relative_to(SOURCE)}:{node.name}", each.arg, node))
    return found


def test_no_function_makes_a_path_of_what_a_user_gave_but_by_home_path() -> None:
    paths = user_paths()
    assert len(paths) > 60
    wrong = [
        (place, name)
        for place, name, function in paths
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("Path", "open", "Path.open")
        and [ast.unparse(argument) for argument in node.args[:1]] == [name]
    ]
    assert not wrong


def saved(home: Path) -> dict[str, Callable[[str], Any]]:
    """Functions that write to a path, by name."""
    index = AdaptiveIndex.create(home / "made", X, plan="flat@full")
    curve = sweep(lambda x: x, Retrieval(X, X, range(30), k=3), "dim=2,8", resamples=5)
    encoder = open_encoder("wordllama").extract("dim=64")
    stored = StoredVectors(X, Nesting.parse("dim=4,8"))
    return {
        "index": lambda path: AdaptiveIndex.create(path, X, plan="flat@full").close(),
        "build": lambda path: build(path, X, plan="flat@full").close(),
        "copy": index.save,
        "smaller": lambda path: index.extract("dim=8", path),
        "collection": lambda path: Collection.create(path, encoder, ["a b", "c d"], plan="flat@full").close(),
        "stored": stored.save,
        "cut": lambda path: stored.extract(4, path),
        "encoder": encoder.save,
        "pairs": TextPairs(["a", "b"], ["c", "d"]).save,
        "curve.json": curve.save,
        "curve.png": lambda path: curve.plot(path),
        "report.html": curve.to_html,
        "plan.toml": lambda path: write_plan(read_plan(None, {"nesting": "dim=16,64"}), path),
        "paper": Report("mrl", "a title", (), {}, {}).save,
    }


def test_what_is_written_below_a_tilde_is_at_home(home: Path) -> None:
    for name, save in saved(home).items():
        save(f"~/{name}")
        assert (home / name).exists(), name
    assert not list(Path.cwd().iterdir())
    assert len(open_vectors("~/stored")) == len(StoredVectors.load("~/stored")) == 30
    assert len(AdaptiveIndex.open("~/index")) == len(AdaptiveIndex.load("~/copy")) == 30
    assert len(Collection.open("~/collection")) == 2
    assert (
        open_encoder("~/encoder").nesting.full
        == type(open_encoder("~/encoder")).load("~/encoder").nesting.full
    )
    assert Curve.load("~/curve.json").nesting == Nesting.parse("dim=2,8")
    assert len(TextPairs.load("~/pairs")) == 2
    assert read_plan("~/plan.toml").model.nesting == "dim=16,64"
    assert read_manifest("~/index").kind == "index"
    assert read_folder("~/stored", "stored_vectors").files
    check_model("~/encoder", "dim=64")
    check_folder_target(home_path("~/stored"), "stored_vectors")
    check_file_target("~/curve.json")
    with open_new("~/new") as stream:
        stream.write(b"x")
    assert (home / "new").read_bytes() == b"x"


READERS: dict[str, Callable[[str], Any]] = {
    each.__name__: each
    for each in (
        read_pairs,
        read_table,
        read_beir,
        read_idx,
        read_qrels,
        read_run,
        read_squad,
        read_plan,
        read_fidelity_plan,
        open_vectors,
    )
}


@pytest.mark.parametrize("name", READERS)
def test_what_is_missing_below_a_tilde_is_missed_at_home(name: str, home: Path) -> None:
    with pytest.raises((NestlingError, OSError)) as raised:
        READERS[name]("~/none.csv")
    assert str(home) in str(raised.value) or "~" in str(raised.value)


def test_nobodys_home_is_a_file_of_that_name() -> None:
    assert home_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_the_command_line_knows_homes_where_the_shell_does_not(home: Path) -> None:
    np.save(home / "x.npy", X)
    code = "import sys; sys.argv[0] = 'nestling'; from nestling.cli import main; main()"
    words = ["index", "build", "~/x.npy", "--output=~/ix", "--plan", "flat@full"]
    told = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert (home / "ix" / "nestling.json").is_file()
