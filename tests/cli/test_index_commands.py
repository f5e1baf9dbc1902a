"""``nestling index``, ``search`` of vectors and ``bench``, on files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from nestling.cli import app
from nestling.search.exact import nearest

N, DIM = 400, 32


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def answer(*arguments: object) -> Any:
    """What a command prints as JSON; an error of ours is raised."""
    result = run(*arguments, "--json")
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def files(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    np.save(folder / "all.npy", vectors)
    np.save(folder / "more.npy", vectors[:3] + 0.5)
    np.save(folder / "queries.npy", vectors[:4] + 0.01)
    return folder


def test_an_index_is_built_searched_changed_and_checked(
    files: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    built = answer(
        "index", "build", files / "all.npy", "-o", index, "--nesting", "dim=8,16,32", "--recall", 0.9
    )
    assert built["rows"] == N
    assert built["table"]
    found = answer("search", index, "--vectors", files / "queries.npy", "--k", 3, "--recall", 0.9)
    expected = nearest(np.load(files / "queries.npy"), vectors, 1).indices[:, 0]
    assert [row[0]["id"] for row in found] == expected.tolist()
    small = answer("search", index, "--vectors", files / "queries.npy", "--k", 1, "--at", "dim=8")
    assert len(small[0]) == 1
    assert answer("index", "add", index, files / "more.npy") == {"added": 3, "rows": N + 3}
    assert answer("index", "delete", index, 0, N)["rows"] == N + 1
    assert run("index", "compact", index).stdout.strip() == str(N + 1)
    assert answer("index", "verify", index)["rows"] == N + 1
    tuned = answer("index", "tune", index, "--recall", 0.5, "--queries", files / "queries.npy")
    assert tuned["chosen"]["recall"] >= 0.5
    info = run("index", "info", index)
    assert f"{N + 1:,} vectors of {DIM} dims" in info.stdout
    assert "recall" in info.stdout


def test_texts_become_a_collection(tmp_path: Path) -> None:
    texts, more = tmp_path / "texts.txt", tmp_path / "more.txt"
    texts.write_text(
        "a cat on the roof\nbread in the oven\nships at sea\nrain on the hills\n", encoding="utf-8"
    )
    more.write_text("a dog in the yard\n", encoding="utf-8")
    folder = tmp_path / "c"
    built = answer("index", "build", texts, "-o", folder, "--encoder", "wordllama", "--at", "dim=64")
    assert (built["rows"], built["dim"]) == (4, 64)
    assert answer("search", folder, "baking", "--k", 1)[0]["text"] == "bread in the oven"
    assert answer("index", "add", folder, more)["rows"] == 5
    dog = answer("search", folder, "puppy", "--k", 1)[0]
    assert dog["text"] == "a dog in the yard"
    assert answer("index", "delete", folder, dog["id"])["rows"] == 4
    assert answer("index", "info", folder)["rows"] == 4


def test_plans_are_compared_on_ones_own_vectors(files: Path, tmp_path: Path) -> None:
    found = answer(
        "bench", files / "all.npy", "--plans", "flat@full; int4@16 > rerank@full", "-o", tmp_path / "report"
    )
    assert {trial["plan"] for trial in found["trials"]} == {"flat@full", "int4@16 > rerank@full"}
    assert (tmp_path / "report" / "frontier.png").stat().st_size > 1000
    plain = run("bench", files / "all.npy", "--queries", files / "queries.npy")
    assert "queries that were given" in plain.stdout
    assert "Chosen: " in plain.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["build", "all.npy", "-o", "x", "--at", "dim=8"], 1, "--at is for texts"),
        (["build", "all.npy", "-o", "x", "--plan", "flat@64"], 1, "choose 1 to 32"),
        (["build", "all.npy", "-o", "x", "--max-bytes", "1"], 1, "no plan fits"),
        (["build", "all.npy", "-o", "x", "--metric", "manhattan"], 1, "unknown metric"),
    ],
)
def test_mistakes_leave_nothing(
    arguments: list[str],
    code: int,
    message: str,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    named = [str(files / each) if each.endswith(".npy") else each for each in arguments]
    error: Any = run("index", *named).exception
    assert error.exit_code == code
    assert message in str(error)
    assert not list(tmp_path.iterdir())
