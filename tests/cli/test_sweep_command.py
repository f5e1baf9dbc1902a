"""``nestling sweep`` over vectors, its tables and names."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import commands
from nestling.cli.terminal.messages import in_flags
from nestling.measure import Curve
from nestling.vectors.stored import StoredVectors

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 16)).astype(np.float32)
LABELS = np.arange(200) % 5


run = partial(commands.run, "sweep")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    np.save(tmp_path / "documents.npy", X)
    np.save(tmp_path / "queries.npy", X + 0.3 * RNG.normal(size=X.shape).astype(np.float32))
    (tmp_path / "labels.csv").write_text("id,label\n" + "".join(f"{i},c{c}\n" for i, c in enumerate(LABELS)))
    return tmp_path


def test_row_i_asks_for_row_i(files: Path) -> None:
    result = run(
        files / "documents.npy", "--queries", files / "queries.npy", "--json", "--measures", "map,mrr"
    )
    assert result.exit_code == 0, result.output
    curve = json.loads(result.stdout)
    assert {row["metric"] for row in curve["rows"]} == {"map@10", "mrr@10"}
    assert curve["rows"][-1]["value"] > 0.95
    assert curve["examples"] == 200


def test_judgements_name_rows_or_ids(files: Path) -> None:
    (files / "rows.tsv").write_text("".join(f"{i}\t0\t{i}\t1\n" for i in range(0, 200, 2)))
    asked = ("--queries", files / "queries.npy", "--name", "same")
    by_row = run(files / "documents.npy", *asked, "--relevant", files / "rows.tsv")
    assert "100 examples" in by_row.stdout, by_row.output
    StoredVectors(X, ids=[f"d{i}" for i in range(200)]).save(files / "named")
    (files / "ids.tsv").write_text("".join(f"{i}\td{i}\t1\n" for i in range(0, 200, 2)))
    by_id = run(files / "named", *asked, "--relevant", files / "ids.tsv")
    assert by_id.stdout.splitlines()[2:] == by_row.stdout.splitlines()[2:]
    wrong = run(files / "named", "--queries", files / "queries.npy", "--relevant", files / "rows.tsv")
    assert "judged documents is there, such as '0'" in str(wrong.exception)


def test_vectors_of_a_class_look_for_each_other(files: Path) -> None:
    centres = np.eye(5, 16, dtype=np.float32)[LABELS] * 5 + X
    np.save(files / "classes.npy", centres)
    result = run(files / "classes.npy", "--labels", files / "labels.csv", "--json")
    assert result.exit_code == 0, result.output
    curve = json.loads(result.stdout)
    assert [row["metric"] for row in curve["rows"]][:4] == ["map@10", "mrl_map@10", "precision@10", "top1"]
    assert curve["examples"] == 40
    assert curve["rows"][-1]["value"] > 0.9


def test_names_formats_and_ks_are_flags(files: Path) -> None:
    given = (files / "documents.npy", "--queries", files / "queries.npy", "--name", "mine", "--k", 3)
    assert run(*given).stdout.startswith("mine on retrieval")
    assert run(*given, "--format", "csv").stdout.startswith("curve,task,granularity")
    assert run(*given, "--format", "markdown").stdout.startswith("| granularity")
    assert "ndcg@3" in run(*given, "--format", "latex").stdout
    assert "did you mean 'latex'" in str(run(*given, "--format", "latx").exception)


def test_few_pairs_can_be_measured(tmp_path: Path) -> None:
    path = tmp_path / "four.csv"
    path.write_text("query,document\n" + "".join(f"ask {i},text number {i}\n" for i in "abcd"))
    few = run("wordllama", "--pairs", path)
    assert "ndcg@4" in few.stdout
    assert "4 documents, so --k 4 is measured" in few.stderr
    assert "ndcg@3" in run("wordllama", "--pairs", path, "--k", 3).stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\na\n\nb\na\n", "3 labels, but there are 4 vectors; blank: line 3; give one"),
        ("id,label\n1,a\n2,\n3,b\n4,a\n", "no label in line 3; give one for each vector"),
        ("label\na\n", "1 labels, but there are 4 vectors; give one"),
    ],
)
def test_lines_without_a_label_are_named(text: str, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(4, 8, dtype=np.float32))
    (tmp_path / "l.csv").write_text(text, encoding="utf-8")
    assert message in str(run(tmp_path / "x.npy", "--labels", tmp_path / "l.csv").exception)


def test_the_flag_that_names_columns_of_pairs_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("one,two,three\na,b,c\n", encoding="utf-8")
    message = str(run("wordllama", "--pairs", tmp_path / "p.csv").exception)
    assert "--columns query=NAME,document=NAME" in in_flags(message, {"columns": "--columns"})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "give the data to measure on"),
        (("--labels", "l.csv", "--queries", "q.npy"), "give the data to measure on"),
        (("--labels", "l.csv", "--relevant", "r.tsv"), "give both"),
        (("--scored", "s.csv", "--k", "3"), "leave out --k and --measures"),
    ],
)
def test_flags_that_do_not_fit_are_named(flags: tuple[str, ...], message: str) -> None:
    assert message in str(run("vectors.npy", *flags).exception)


def test_precisions_are_measured_and_chosen_among(files: Path) -> None:
    given = (files / "documents.npy", "--queries", files / "queries.npy", "--measures", "ndcg")
    front = run(*given, "-o", files / "report")
    assert front.exit_code == 0, front.output
    curve = Curve.load(files / "report" / "curve.json")
    assert str(curve.nesting) == "dim=8,16 x bits=1,2,4,8,32"
    table, grid = front.stdout.split("\n\n")
    shown = {line.split()[0] for line in table.splitlines() if line.startswith("dim=")}
    assert shown == set(map(str, curve.at_budgets().nesting))
    assert len(shown) < len(curve.nesting)
    assert len(grid.splitlines()) == 2 + 5
    assert {path.name for path in (files / "report").iterdir()} == {
        "curve.json", "curve.png", "grid.png", "report.html",
    }  # fmt: skip
    everything = run(*given, "--all").stdout.split("\n\n")[0]
    assert everything.count("dim=") == len(curve.nesting)
    assert run(*given, "--format", "csv").stdout.count("dim=") == len(curve.nesting)

    choose = partial(commands.run, "choose", files / "report" / "curve.json")
    assert choose("--keep", 0.9).stdout.strip() == str(curve.choose(keep=0.9))
    assert choose("--keep", 0.9, "--bits", 32).stdout.strip() == str(curve.choose(keep=0.9, bits=32))
    assert json.loads(choose("--max-bytes", 8, "--json").stdout)["vector_bytes"] <= 8
    assert "needs tokens" in str(choose("--max-tokens", 8).exception)
    assert "the curve has bits=1, 2, 4, 8, 32" in str(choose("--keep", 0.9, "--bits", 16).exception)


def test_bits_say_which_precisions(files: Path) -> None:
    given = (files / "documents.npy", "--queries", files / "queries.npy", "--all")
    assert run(*given, "--bits", 32).stdout.count(",bits=") == 0
    two = run(*given, "--bits", "2,32", "--nesting", "dim=8,16", "--both-sides").stdout
    assert two.count("bits=2 ") == 2
    named = run(*given, "--nesting", "dim=4,16 x bits=4,32").stdout
    assert named.count("bits=4 ") == 2
    assert "must be one or more of 1, 2, 3, 4, 8, 16, 32" in str(run(*given, "--bits", "5").exception)
    StoredVectors(X).calibrated(np.tile(X, (2, 1))).extract("dim=16,bits=4", files / "codes")
    assert "holds codes of 4 bits" in str(run(files / "codes", *given[1:]).exception)


def test_a_calibrated_folder_is_measured_in_its_own_codes(files: Path) -> None:
    strange = 5 + np.tile(X, (2, 1))
    StoredVectors(X, "dim=8,16").calibrated(strange).save(files / "strange")
    StoredVectors(X, "dim=8,16").save(files / "plain")
    values = []
    for name in ("strange", "plain"):
        result = run(files / name, "--queries", files / "queries.npy", "--bits", "2,32", "--json")
        assert result.exit_code == 0, result.output
        rows = json.loads(result.stdout)["rows"]
        found = {(row["granularity"], row["metric"]): row["value"] for row in rows}
        values.append(found["dim=16,bits=2", "ndcg@10"])
    assert values[0] < values[1]
