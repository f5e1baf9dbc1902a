"""The command line as a user meets it, on small data."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from commands import ended, run
from nestling import Curve
from nestling.cli import VERBS
from nestling.errors import ConfigError

THINGS = ["cat", "dog", "car", "tree", "river", "bread", "house", "guitar", "planet", "shoe"]
PLACES = ["garden", "city", "forest", "kitchen", "museum", "harbour", "desert", "school", "market", "valley"]


def talk(result: Result) -> str:
    return str(result.exception) if result.exception is not None else result.output


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred pairs in groups; a small column of real words."""
    path = tmp_path_factory.mktemp("data") / "pairs.csv"
    rows = [
        f"where is the {thing} of the {place},somebody put the {thing} into the {place} number {n},{place}{n}"
        for n in range(2)
        for thing in THINGS
        for place in PLACES
    ]
    path.write_text("\n".join(["query,document,group", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def demo(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and output of the demo on these pairs."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    result = run("demo", "--pairs", pairs, "--output", folder, "--nesting", "dim=8,32,256")
    assert result.exit_code == 0, talk(result)
    return folder, result.stdout


def test_every_verb_shows_an_example() -> None:
    for verb in VERBS:
        result = run(verb.__name__, "--help")
        assert result.exit_code == 0
        assert f"nestling {verb.__name__}" in result.output.split("Example:")[1]


def test_the_demo_measures_chooses_and_searches(demo: tuple[Path, str]) -> None:
    folder, said = demo
    assert "Chosen: dim=" in said
    assert re.search(r"\d bytes a vector \(dim=\d+,bits=\d\) keep .* of 1,024: .* in place of 1.02 GB", said)
    stored = re.search(r"Each of the 200 vectors takes (\d+) bytes, all [\d.]+ k?B\.", said)
    chosen = re.search(r"Chosen: dim=(\d+),bits=(\d)", said)
    assert stored
    assert chosen
    assert int(stored[1]) == -(-int(chosen[1]) // 8) * int(chosen[2])
    assert re.search(r"The collection takes [\d.]+ MB on disk, with texts, ids and encoder\.", said)
    assert not list((folder / "collection" / "index").rglob("vectors.npy"))
    curves = [Curve.load(folder / "curves" / f"{number}.json").name for number in range(1, 6)]
    assert curves == ["nested", "truncation", "trained at full size, then cut", "pca", "random dims"]
    columns = re.compile(
        r"granularity +bytes +nested +truncation +trained at full size, then cut +pca +random"
    )
    assert columns.search(said), "they stand side by side"
    curve = Curve.load(folder / "curve.json")
    assert curve.verdict.startswith("Training pays at "), "against truncation, by intervals of the difference"
    assert curve.verdict in said
    for row in curve.column():
        gain = next(
            each for each in curve.gains if (each.granularity, each.metric) == (row.granularity, row.metric)
        )
        plain = curve.truncation.row(row.granularity, row.metric)
        assert gain.value == pytest.approx(row.value - plain.value, abs=1e-9)
    assert "Next: nestling search" in said
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert 'src="http' not in html
    assert "surely better than" in html  # the report repeats the verdict of the terminal
    assert "surely better than" in said
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "curve.json").read_text())


def test_the_next_command_works(demo: tuple[Path, str]) -> None:
    index = demo[0] / "collection"
    result = run("search", index, "where is the guitar of the desert", "--k", 3, "--json")
    assert result.exit_code == 0, talk(result)
    hits = json.loads(result.stdout)
    assert len(hits) == 3
    assert "guitar" in hits[0]["text"]
    plain = run("search", index, "guitar", "--recall", 0.9)
    assert plain.stdout.count("somebody") == 10


def test_a_model_is_measured_chosen_extracted_and_used(
    demo: tuple[Path, str], pairs: Path, tmp_path: Path
) -> None:
    model, report = demo[0] / "model", tmp_path / "report"
    swept = run("sweep", model, "--pairs", pairs, "-o", report, "--json")
    assert swept.exit_code == 0, talk(swept)
    rows = json.loads(swept.stdout)["rows"]
    assert {row["granularity"].partition(",")[0] for row in rows} == {"dim=8", "dim=32", "dim=256"}
    assert {row["granularity"].partition("=")[2].partition("=")[2] for row in rows} == {*"1248", "32"}
    chosen = run("choose", report / "curve.json", "--max-bytes", 128, "--bits", 32)
    assert " bytes, keeps " in chosen.stderr
    assert chosen.stdout.strip() in ("dim=8,bits=32", "dim=32,bits=32")
    small = tmp_path / "small"
    extracted = json.loads(run("extract", model, "--at", "dim=32", "-o", small, "--json").stdout)
    assert extracted["model"] == str(small)
    assert extracted["parameters"] < extracted["parameters_before"]
    assert extracted["served_by"] == {"TEI": "none", "vLLM": "none"}  # static vectors
    texts = tmp_path / "texts.txt"
    texts.write_text("a cat in the garden\na dog in the city\n", encoding="utf-8")
    for name in ("whole", "cut"):
        source, at = (model, ["--at", "dim=32"]) if name == "whole" else (small, [])
        result = run("encode", source, texts, "-o", tmp_path / f"{name}.npy", *at, "--json")
        assert result.exit_code == 0, talk(result)
        assert json.loads(result.stdout)["granularity"] == "dim=32"
    whole, cut = (np.load(tmp_path / f"{name}.npy", allow_pickle=False) for name in ("whole", "cut"))
    assert whole.shape == (2, 32)
    np.testing.assert_allclose(whole, cut, atol=1e-6)


def test_a_plan_trains_an_encoder_whole(pairs: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(f'[data]\npairs = "{pairs}"\n[train]\nmax_steps = 3\nbatch_size = 16\n', encoding="utf-8")
    run_folder = tmp_path / "run"
    result = run(
        "train", plan, "--tune", "encoder", "--nesting", "dim=16,64", "--folder", run_folder, "--json"
    )
    if result.exit_code:
        raise AssertionError(talk(result))
    log = (run_folder / "log.csv").read_text()
    assert "dim=16" in log
    assert 'tune = "encoder"' in (run_folder / "plan.toml").read_text()
    assert run("search", json.loads(result.stdout)["model"], "x").exception is not None


def test_layers_are_trained_measured_and_extracted(
    pairs: Path, tmp_path: Path, tiny_bert_folder: Path
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(f'[data]\npairs = "{pairs}"\n[train]\nmax_steps = 3\nbatch_size = 16\n', encoding="utf-8")
    run_folder = tmp_path / "run"
    flags = ["--encoder", tiny_bert_folder, "--tune", "encoder", "--nesting", "layer=1,2 zip dim=8,32"]
    flags += ["--align", "scores", "--deep-documents", "--chunk-size", "7", "--log-every", "1"]
    result = run("train", plan, *flags, "--folder", run_folder, "--json")
    assert result.exit_code == 0, talk(result)
    log = (run_folder / "log.csv").read_text()
    assert '"dim=8,layer=1"' in log
    assert "loss,align" in log.replace("@", ",")
    model, small = json.loads(result.stdout)["model"], tmp_path / "small"
    result = run("extract", model, "--at", "layer=1,dim=8", "-o", small, "--json")
    assert result.exit_code == 0, talk(result)
    extracted = json.loads(result.stdout)
    assert extracted["parameters"] < extracted["parameters_before"]


def test_scored_pairs_train_and_measure(tmp_path: Path, tiny_bert_folder: Path) -> None:
    rows = [
        f"the {thing} is by the {place},a {other} at the {place},{5.0 if thing == other else 1.0}"
        for place in PLACES
        for thing in THINGS[:3]
        for other in THINGS[:3]
    ]
    scored = tmp_path / "scored.csv"
    scored.write_text("\n".join(rows) + "\n", encoding="utf-8")
    folder, grid = tmp_path / "run", "layer=1,2 x dim=8,32"
    flags = ["--encoder", tiny_bert_folder, "--nesting", "layer=1,2 zip dim=8,32", "--folder", folder]
    flags += ["--batch-size", "18", "--epochs", "8", "--lr", "3e-3", "--align", "scores", "--chunk-size", "5"]
    result = run("train", "--scored", scored, "--nesting", "dim=8,32", "--folder", folder)
    assert isinstance(result.exception, ConfigError)
    assert 'tune = "encoder"' in talk(result)
    result = run("train", "--scored", scored, "--tune", "encoder", "--evaluate-every", "8", *flags, "--json")
    assert result.exit_code == 0, talk(result)
    assert "spearman" in (folder / "log.csv").read_text()
    model = json.loads(result.stdout)["model"]
    learned, before = (
        json.loads(run("sweep", name, "--scored", scored, "--nesting", grid, "--json").stdout)
        for name in (model, tiny_bert_folder)
    )
    for now, then in zip(learned["rows"], before["rows"], strict=True):
        assert now["value"] > then["value"] + 0.1


def test_data_sets_are_listed() -> None:
    rows: list[dict[str, Any]] = json.loads(run("data", "--json").stdout)
    assert {"digits", "fashion-mnist", "docstrings"} <= {row["name"] for row in rows}
    assert "digits" in run("data").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "nowhere", "x"], 1, "make one with nestling index build"),
        (["search"], 1, "give a query"),
        (["search", "x", "--point", "probes=3"], 1, "did you mean 'nprobe'"),
        (["search", "--vectors", "q.npy"], 1, "name the index"),
        (["index", "build", "missing.npy", "-o", "i"], 3, "missing.npy"),
        (["index", "info", "nowhere"], 3, "nowhere"),
        (["bench", "missing.npy"], 3, "missing.npy"),
        (["demo", "--pairs", "missing.csv"], 3, "missing.csv"),
        (["train", "--pairs", "a.csv", "--texts", "b.csv"], 1, "name one source of data"),
        (["train", "missing.toml"], 1, "cannot be read"),
        (["train", "--draw", "evry"], 1, "draw"),
        (["choose", "missing.json", "--keep", "0.9"], 3, "missing.json"),
        (["sweep", "wordllama"], 1, "one of --pairs"),
        (["extract", "wordllama", "--at", "dim=65", "-o", "x"], 1, "dim=64"),
        (["reproduce", "mlr"], 1, "did you mean 'mrl'"),
        (["encode", "wordllama"], 2, "Missing argument"),
        (["demos"], 2, "No such command"),
    ],
)
def test_mistakes_are_told_with_their_exit_code(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, out, err = ended(arguments, tmp_path, monkeypatch, capsys)
    assert found == code
    assert message in err
    assert not out
    assert not list(tmp_path.iterdir())


def test_the_installed_command_answers() -> None:
    command = Path(sys.executable).with_name("nestling")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "reproduce" in done.stdout


def test_the_program_leaves_the_log_and_the_warnings_of_its_caller_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("nestling")
    before = log.level, list(log.handlers), warnings.showwarning
    for words, code in ((["--version"], 0), (["choose", "missing.json", "--keep", "0.9"], 3)):
        assert ended(words, tmp_path, monkeypatch, capsys)[0] == code
        assert (log.level, log.handlers, warnings.showwarning) == before
