"""Files of results: what nestling did not write is not overwritten, and what fails leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nestling.domains.text.train_plan import read_plan, write_plan
from nestling.errors import ArtifactError, StorageError
from nestling.measure import Retrieval, sweep
from nestling.picture.figure import draw
from nestling.search.plan.frontier import Frontier, Trial
from nestling.storage.artifact import check_file_target, write_result

TEXTS = "read a file\nwrite a file\nsort a list\n"


def command(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", "from nestling.cli import main; main()", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=folder)


def curve():
    x = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    task = Retrieval.from_vectors(x + 0.1, x)
    return sweep(lambda rows: rows, task, "dim=8,16", resamples=2)


def frontier():
    trial = Trial.from_json(frontier_trial())
    return Frontier((trial,), k=1, queries=1, sampled=False, seconds=1.0)


def frontier_trial():
    from nestling.search.tuning.planner import tune

    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    return tune(x, k=1, plans=["flat@full"])[0].to_json()


WRITERS = {
    "curve.json": lambda path: curve().save(path),
    "report.html": lambda path: curve().to_html(path),
    "curve.png": lambda path: curve().plot(path),
    "curve.svg": lambda path: draw(path, lambda axes: axes.plot([1, 2])),
    "curve.pdf": lambda path: draw(path, lambda axes: axes.plot([1, 2])),
    "frontier.json": lambda path: frontier().save(path),
    "plan.toml": lambda path: write_plan(read_plan(None, {"nesting": "dim=8,16"}), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_ours_is_replaced_and_that_of_another_is_not(name: str, tmp_path: Path) -> None:
    write, path = WRITERS[name], tmp_path / "new" / name
    write(path)
    first = path.read_bytes()
    write(path)
    assert len(path.read_bytes()) == pytest.approx(len(first), rel=0.1)
    path.write_bytes(b"mine")
    with pytest.raises(ArtifactError, match="not written by nestling"):
        write(path)
    assert path.read_bytes() == b"mine"
    assert [each.name for each in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", WRITERS)
def test_where_nothing_can_be_written_is_said_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is no folder"):
        WRITERS[name](tmp_path / "file" / name)
    (tmp_path / name).mkdir()
    with pytest.raises(StorageError, match="give the name of a file"):
        WRITERS[name](tmp_path / name)
    assert {each.name for each in tmp_path.iterdir()} == {"file", name}


def test_overwriting_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    path.write_text('{"about": "nestling"}')
    with pytest.raises(ArtifactError, match="is not replaced; choose another name"):
        check_file_target(path)
    write_result(path, "{}", overwrite=True)
    assert path.read_text() == "{}"


def test_encode_overwrites_no_array_unless_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text(TEXTS)
    np.save(tmp_path / "mine.npy", np.eye(3))
    line = ("encode", "wordllama", "texts.txt", "-o", "mine.npy")
    refused = command(*line, folder=tmp_path)
    assert refused.returncode == 3
    assert "give --overwrite, choose another name" in refused.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "mine.npy"), np.eye(3))
    assert command(*line, "--overwrite", folder=tmp_path).returncode == 0
    assert np.load(tmp_path / "mine.npy").shape == (3, 256)


def test_bench_and_compare_overwrite_no_file_of_another(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(80, 8)).astype(np.float32))
    for name, line in {
        "frontier.png": ("bench", "x.npy", "--plans", "flat@full", "-o", "."),
        "maps.png": ("compare", "x.npy", "x.npy", "-o", "."),
        "report.html": ("sweep", "x.npy", "--queries", "x.npy", "-o", "."),
    }.items():
        (tmp_path / name).write_bytes(b"mine")
        refused = command(*line, folder=tmp_path)
        assert refused.returncode == 3, refused.stderr
        assert f"{name} exists and was not written by nestling" in refused.stderr
        assert (tmp_path / name).read_bytes() == b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {"x.npy", "frontier.png", "maps.png", "report.html"}


def test_commands_replace_no_saved_folder_of_another_kind_nor_a_finished_collection(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text(TEXTS)
    build = ("index", "build", "texts.txt", "--encoder", "wordllama", "--plan", "flat@full", "-o")
    for line in (
        ("extract", "wordllama", "--at", "dim=64", "-o", "model"),
        ("encode", "wordllama", "texts.txt", "-o", "vectors"),
        ("index", "build", "vectors", "--plan", "flat@full", "-o", "index"),
        (*build, "collection"),
    ):
        made = command(*line, folder=tmp_path)
        assert made.returncode == 0, made.stderr
    before = contents(tmp_path)
    for line, said in {
        ("encode", "model", "texts.txt", "-o", "model"): "model holds a text encoder and is not replaced",
        ("encode", "model", "texts.txt", "-o", "index"): "index holds an index and is not replaced",
        ("encode", "model", "texts.txt", "-o", "collection"): "collection holds a collection and is not",
        ("extract", "model", "--at", "dim=16", "-o", "index"): "index holds an index and is not replaced",
        ("extract", "model", "--at", "dim=16", "-o", "collection"): "holds a collection and is not",
        ("extract", "model", "--at", "dim=16", "-o", "vectors"): "holds stored vectors and is not",
        (*build, "vectors"): "vectors holds stored vectors and is not",
        (*build, "index", "--overwrite"): "index holds an index and is not replaced by a collection",
        (*build, "collection"): "holds a finished collection, which is not replaced; pass --overwrite to",
    }.items():
        refused = command(*line, folder=tmp_path)
        assert refused.returncode == 3, (line, refused.stderr)
        assert said in " ".join(refused.stderr.split()), line
    assert contents(tmp_path) == before
    replaced = command(*build, "collection", "--overwrite", folder=tmp_path)
    assert replaced.returncode == 0, replaced.stderr


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
