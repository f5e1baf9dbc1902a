"""``nestling compare`` as a user meets it: files of several models, and plans for one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from commands import ended, run
from nestling.compare import rdm
from nestling.compare.similarity.comparators import compare
from nestling.measure import Curve
from nestling.vectors.stored import StoredVectors


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The same 60 rows by a model, by half of it, and by another."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 16)).astype(np.float32)
    paths = [tmp_path / f"{name}.npy" for name in ("whole", "half", "other")]
    for path, values in zip(paths, (x, x[:, :8], rng.normal(size=(60, 5))), strict=True):
        np.save(path, values)
    return paths


def test_files_are_compared_with_each_other(files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    methods = ["--method", "spearman", "--method", "pearson", "--metric", "correlation"]
    result = run("compare", *files, *methods, "--resamples", 50, "-o", folder, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["metric"], found["stimuli"]) == ("correlation", 60)
    rows = {(row["first"], row["second"], row["method"]): row for row in found["agreements"]}
    assert len(rows) == 6
    matrices = rdm({path.stem: np.load(path) for path in files}, "correlation")
    expected = compare(matrices[0], matrices[1], "spearman")[0, 0]
    row = rows["whole", "half", "spearman"]
    assert row["value"] == pytest.approx(expected, abs=1e-6)
    assert row["low"] < expected < row["high"]
    assert rows["whole", "half", "pearson"]["low"] > rows["whole", "other", "pearson"]["high"]
    for name in ("matrices", "maps", "similarities", "thresholds"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_is_for_people(files: list[Path]) -> None:
    result = run("compare", *files[:2], "--resamples", 20, "--limit", 30, "--method", "pearson")
    assert result.exit_code == 0, result.output
    said, header, row = result.stdout.splitlines()
    assert said == "cosine distances of 30 rows, 95 % confidence intervals over rows"
    assert header.split() == ["first", "second", "method", "similarity"]
    assert row.split()[:3] == ["whole", "half", "pearson"]


def test_rows_with_names_belong_together_by_name(files: list[Path], tmp_path: Path) -> None:
    x = np.load(files[0])
    names = [f"row {number}" for number in range(60)]
    order = np.random.default_rng(1).permutation(60)
    StoredVectors(x, ids=names).save(tmp_path / "one")
    StoredVectors(x[order], ids=[names[place] for place in order]).save(tmp_path / "two")
    flags = ["--resamples", 20, "--limit", 40, "--method", "pearson", "--json"]
    found = json.loads(run("compare", tmp_path / "one", tmp_path / "two", *flags).stdout)
    assert found["agreements"][0]["value"] == pytest.approx(1)
    names[3] = "stranger"
    StoredVectors(x, ids=names).save(tmp_path / "three")
    refused = run("compare", tmp_path / "one", tmp_path / "three")
    assert "three lacks 1 rows" in str(refused.exception)
    assert "row 3" in str(refused.exception)


def test_a_plan_measures_layers(tmp_path: Path, tiny_bert_folder: Path) -> None:
    texts, plan, folder = tmp_path / "texts.txt", tmp_path / "plan.toml", tmp_path / "kept"
    texts.write_text("\n".join(f"number {n} of the {thing}" for n in range(8) for thing in ("cats", "dogs")))
    head = f'[model]\nencoder = "{tiny_bert_folder}"\n'
    rest = f'[data]\ntexts = "{texts}"\n[fidelity]\nresamples = 20\nk = 3\n'
    plan.write_text(f'{head}nesting = "layer=1,2 x dim=8,32"\n{rest}', encoding="utf-8")
    result = run("compare", "--layers", plan, "-o", folder)
    assert result.exit_code == 0, result.output
    assert "on fidelity: 16 examples" in result.stdout
    assert "layer \\ dim" in result.stdout
    assert Curve.load(folder / "fidelity.json").metrics == ("rank", "topology", "local", "neighbours@3")
    for name in ("fidelity", "grid"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    plan.write_text(f'{head}layers = ["0.*.encoder.layer.*"]\n{rest}', encoding="utf-8")
    named = run("compare", "--layers", plan)
    assert named.exit_code == 0, named.output
    assert "layer=2: 0." in named.stdout
    assert json.loads(run("compare", "--layers", plan, "--json").stdout)["task"] == "fidelity"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 1, "give files of vectors to compare, or --layers"),
        (["whole.npy", "--layers", "plan.toml"], 1, "give files of vectors to compare, or --layers"),
        (["--layers", "none.toml"], 1, "none.toml cannot be read"),
        (["--layers", "torn.toml"], 1, "torn.toml is not TOML"),
        (["--layers", "wrong.toml"], 1, "did you mean 'encoder'"),
        (["--layers", "layer.toml"], 1, "no layer is called 'embeding'; near are '0.embedding'"),
        (["--layers", "torn.toml", "--seed", "0"], 1, "leave out --seed"),
        (["whole.npy"], 1, "alone cannot be compared"),
        (["whole.npy", "whole.npy"], 1, "named twice"),
        (["whole.npy", "short.npy"], 3, "short.npy has 59 rows and whole.npy has 60"),
        (["whole.npy", "missing.npy"], 3, "missing.npy does not exist"),
        (["whole.npy", "text.npy"], 3, "text.npy cannot be read"),
        (["whole.npy", "half.npy", "--metric", "cosin"], 1, "did you mean 'cosine'"),
        (["whole.npy", "half.npy", "--method", "spearmn"], 1, "did you mean 'spearman'"),
        (["whole.npy", "half.npy", "--limit", "2"], 2, "--limit"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str],
    code: int,
    message: str,
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(tmp_path / "short.npy", np.load(files[0])[1:])
    (tmp_path / "text.npy").write_text("no vectors")
    (tmp_path / "torn.toml").write_text("[model\n")
    (tmp_path / "wrong.toml").write_text('[model]\nencodr = "minilm"\n')
    (tmp_path / "texts.txt").write_text("\n".join(f"text {number}" for number in range(20)))
    (tmp_path / "layer.toml").write_text('[model]\nlayers = ["embeding"]\n[data]\ntexts = "texts.txt"\n')
    found, out, err = ended(["compare", *arguments], tmp_path, monkeypatch, capsys)
    assert found == code
    assert message in err
    assert not out
