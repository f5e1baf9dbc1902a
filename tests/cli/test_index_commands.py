"""``nestling index``, ``search`` of vectors and ``bench``, on files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import answer, run
from nestling.cut import RAW, CutRule
from nestling.errors import ConfigError
from nestling.search.exact.neighbours import nearest
from nestling.search.index.index import AdaptiveIndex
from nestling.search.stores import open_store, read_store
from nestling.vectors.stored import StoredVectors

N, DIM = 400, 32


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
    assert answer("index", "add", index, files / "more.npy") == {"added": 3, "replaced": 0, "rows": N + 3}
    assert answer("index", "delete", index, 0, N)["rows"] == N + 1
    assert run("index", "compact", index).stdout.strip() == str(N + 1)
    assert answer("index", "verify", index)["rows"] == N + 1
    tuned = answer("index", "tune", index, "--recall", 0.5, "--queries", files / "queries.npy")
    assert tuned["chosen"]["recall"] >= 0.5
    info = run("index", "info", index)
    assert f"{N + 1:,} vectors of {DIM} dims" in info.stdout
    assert "recall" in info.stdout


def test_an_index_keeps_codes(files: Path, tmp_path: Path) -> None:
    index = tmp_path / "i"
    built = answer("index", "build", files / "all.npy", "-o", index, "--at", "dim=16,bits=4")
    assert (built["dim"], built["bits"], built["row_bytes"]) == (16, 4, 8)
    assert not list(index.rglob("vectors.npy"))
    assert f"{N} vectors of 16 dims in 4 bits" in run("index", "info", index).stdout
    for at in ("dim=16", "dim=8,bits=1"):
        found = answer("search", index, "--vectors", files / "all.npy", "--k", 1, "--at", at)
        assert len(found) == N
    assert answer("index", "add", index, files / "more.npy")["added"] == 3
    wrong = run(
        "index", "build", files / "all.npy", "-o", tmp_path / "j", "--at", "bits=4", "--plan", "flat@full"
    )
    assert "flat@32 needs floats" in str(wrong.exception)


def test_texts_are_encoded_as_codes(tmp_path: Path) -> None:
    texts = tmp_path / "t.txt"
    texts.write_text("".join(f"text {n} of a red cat\n" for n in range(300)), encoding="utf-8")
    whole = answer("encode", "wordllama", texts, "-o", tmp_path / "v")
    coded = answer("encode", "wordllama", texts, "-o", tmp_path / "c", "--at", "dim=256,bits=2")
    assert (whole["granularity"], coded["granularity"]) == ("dim=256", "dim=256,bits=2")
    stored, floats = (StoredVectors.load(tmp_path / name) for name in ("c", "v"))
    assert stored.cost().output_bytes == 64
    assert {path.name for path in (tmp_path / "c").glob("*.npy")} == {"plane1.npy", "plane2.npy"}
    np.testing.assert_allclose(stored.matrix(), floats.calibrated().matrix("bits=2"), atol=1e-6)
    answer("index", "build", tmp_path / "c", "-o", tmp_path / "i")
    assert answer("index", "info", tmp_path / "i")["row_bytes"] == 64
    refused = run("encode", "wordllama", texts, "-o", tmp_path / "c.npy", "--at", "bits=2")
    assert "give a folder as --output" in str(refused.exception)
    small = answer("encode", "wordllama", texts, "-o", tmp_path / "h", "--at", "dim=64,bits=16")
    assert small["granularity"] == "dim=64,bits=16"


def test_an_export_says_what_it_did(files: Path, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    answer("index", "build", files / "all.npy", "-o", tmp_path / "i", "--plan", "flat@full")
    export = ("index", "export", tmp_path / "i", "--to", f"lancedb://{tmp_path}/items")
    first = answer(*export)
    assert (first["rows"], first["added"], first["extra"]) == (N, N, 0)
    assert first["seconds"] > 0
    again = run(*export)
    assert again.stdout.strip() == str(N)
    assert f"0 rows added, 0 changed, 0 deleted, {N} unchanged; 0." in again.stderr
    assert "--delete-missing" not in again.stderr


def test_a_second_export_brings_what_changed(files: Path, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    index = tmp_path / "i"
    answer("index", "build", files / "all.npy", "-o", index, "--plan", "flat@full")
    export = ("index", "export", index, "--to", f"lancedb://{tmp_path}/items")
    answer(*export)
    answer("index", "add", index, files / "more.npy")
    answer("index", "delete", index, 0, 1)
    told = run(*export)
    assert told.stdout.strip() == str(N + 1)
    assert f"3 rows added, 0 changed, 0 deleted, {N - 2} unchanged" in told.stderr
    assert "2 rows of the table are not in the index; --delete-missing deletes them" in told.stderr
    last = answer(*export, "--delete-missing")
    assert (last["added"], last["deleted"], last["extra"]) == (0, 2, 0)


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


def test_a_collection_that_was_exported_and_read_back_is_searched_by_words(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    texts, folder, back = tmp_path / "texts.txt", tmp_path / "c", tmp_path / "back"
    texts.write_text("a cat on the roof\nbread in the oven\nships at sea\n", encoding="utf-8")
    answer("index", "build", texts, "-o", folder, "--encoder", "wordllama", "--at", "dim=64")
    url = f"lancedb://{tmp_path}/texts"
    run("index", "export", folder, "--to", url)
    with open_store(url, encoder=AdaptiveIndex.open(folder / "index", read_only=True).encoder) as store:
        read_store(store, back)
    answer("index", "build", back, "-o", tmp_path / "i")
    for index in (tmp_path / "i", folder / "index"):
        [found] = answer("search", index, "baking", "--k", 1)
        assert found["fields"]["text"] == "bread in the oven"
    assert answer("index", "export", tmp_path / "i", "--to", url)["unchanged"] == 3
    (folder / "encoder").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match="no folder of an encoder"):
        answer("search", tmp_path / "i", "baking")
    [again] = answer("search", tmp_path / "i", "baking", "--k", 1, "--encoder", tmp_path / "moved")
    assert again["fields"] == found["fields"]
    with pytest.raises(ConfigError, match="--encoder"):
        answer("search", tmp_path / "i", "baking", "--encoder", "wordllama")


def test_vectors_are_cut_to_the_size_of_at(files: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    """As for texts: the index holds the smaller size alone, and is searched with vectors of that size."""
    built = answer(
        "index", "build", files / "all.npy", "-o", tmp_path / "i", "--at", 16, "--plan", "flat@full"
    )
    assert (built["dim"], built["nesting"]) == (16, "dim=8,16")
    queries = np.load(files / "queries.npy")[:, :16]
    np.save(tmp_path / "q.npy", queries)
    found = answer("search", tmp_path / "i", "--vectors", tmp_path / "q.npy", "--k", 3)
    expected = nearest(queries, vectors[:, :16], 3).indices
    assert [[each["id"] for each in row] for row in found] == expected.tolist()


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
        (["build", "all.npy", "-o", "x", "--at", "dim=9"], 1, "nearest valid granularity is dim=8"),
        (
            ["build", "all.npy", "-o", "x", "--nesting", "dim=8,32", "--plan", "rabitq@full > rerank@full"],
            1,
            "cannot be searched",
        ),
        (["build", "all.npy", "-o", "x", "--overwrite"], 1, "--overwrite is for collections"),
        (["build", "all.npy", "-o", "x", "--plan", "flat@64"], 1, "choose 1 to 32"),
        (["build", "all.npy", "-o", "x", "--max-bytes", "1"], 1, "no plan fits"),
        (
            ["build", "all.npy", "-o", "x", "--metric", "manhattan"],
            1,
            "must be one of dot, euclidean",
        ),
        (["build", "all.npy", "-o", "x", "--before", "l2"], 1, "must be one of none, layer_norm"),
        (["build", "x.txt", "-o", "x", "--encoder", "minilm", "--made-by", "x"], 1, "are for vectors"),
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


@pytest.mark.parametrize("asked", [{"encoder": "my model"}, {"rule": CutRule("layer_norm", "none")}])
def test_the_command_that_a_refusal_names_builds_what_was_asked_for(
    asked: dict[str, Any], files: Path, tmp_path: Path
) -> None:
    plan = "int4@16 > rerank@32"
    assert answer("index", "build", files / "all.npy", "-o", tmp_path / "a", "--plan", plan)["rows"] == N
    with pytest.raises(ConfigError) as refused:
        AdaptiveIndex.open(tmp_path / "a", read_only=True, **asked)
    program, *arguments = shlex.split(str(refused.value).partition("nestling index")[2])
    assert program == "build"
    filled = {"VECTORS": str(files / "all.npy"), "FOLDER": str(tmp_path / "b")}
    assert answer("index", "build", *(filled.get(each, each) for each in arguments))["plan"] == plan
    with AdaptiveIndex.open(tmp_path / "b", read_only=True, **asked) as index:
        assert len(index) == N


def test_vectors_of_another_encoder_are_neither_added_nor_searched_for(
    vectors: np.ndarray, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        StoredVectors(vectors, "dim=8,32", encoder=name).save(tmp_path / name)
    np.save(tmp_path / "bare.npy", vectors)
    answer("index", "build", tmp_path / "a", "-o", tmp_path / "index", "--plan", "flat@full")
    for command in (("index", "add", tmp_path / "index"), ("search", tmp_path / "index", "--vectors")):
        error = run(*command, tmp_path / "b").exception
        assert isinstance(error, ConfigError)
        assert "vectors of the encoder 'a', not of 'b'" in str(error)
        for same in (tmp_path / "a", tmp_path / "bare.npy"):
            assert run(*command, same).exit_code == 0


def test_flags_go_before_what_a_folder_says_of_its_vectors(vectors: np.ndarray, tmp_path: Path) -> None:
    saved = StoredVectors(vectors, "dim=8,32", CutRule("layer_norm", "l2"), encoder="a")
    saved.save(tmp_path / "saved")
    build = ("index", "build", tmp_path / "saved", "--plan", "flat@full", "-o")
    answer(*build, tmp_path / "plain")
    AdaptiveIndex.open(tmp_path / "plain", encoder="a", rule=saved.rule, read_only=True)
    answer(*build, tmp_path / "named", "--made-by", "b", "--after", "none")
    AdaptiveIndex.open(tmp_path / "named", encoder="b", rule=RAW, read_only=True)


def test_a_table_goes_in_and_answers_carry_ids_and_columns(tmp_path: Path) -> None:
    table, folder = tmp_path / "products.csv", tmp_path / "products"
    rows = [f"S{row},{'red' if row % 2 else 'blue'} chair {row},{2000 + row},{row / 2}" for row in range(20)]
    table.write_text("\n".join(["sku,title,year,price", *rows]) + "\n", encoding="utf-8")
    built = answer(
        "index",
        "build",
        table,
        "-o",
        folder,
        "--encoder",
        "wordllama",
        "--column",
        "title",
        "--id-column",
        "sku",
    )
    assert built["fields"] == {"title": "text", "year": "int", "price": "float"}
    found = answer("search", folder, "a red chair", "--where", "year>=2010 and price<7", "--k", 9)
    assert {hit["id"] for hit in found} == {"S10", "S11", "S12", "S13"}
    by_id = {hit["id"]: hit for hit in found}
    assert by_id["S11"]["text"] == "red chair 11"
    assert by_id["S11"]["fields"] == {"year": 2011, "price": 5.5}
    shown = run("search", folder, "a red chair", "--where", "year=2011").stdout
    assert shown.split("\n")[0].endswith("  S11")
    assert "year=2011  price=5.5" in shown

    more = tmp_path / "more.csv"
    more.write_text(
        "sku,title,year,colour\nS3,green lamp,1999,green\nS99,green boat,2024,green\n", encoding="utf-8"
    )
    refused = run("index", "add", folder, more)
    assert "is in the index already" in str(refused.exception)
    updated = run("index", "update", folder, more, "--json")
    assert "no such fields: colour" in updated.stderr
    assert json.loads(updated.stdout) == {"added": 1, "replaced": 1, "rows": 21}
    (lamp,) = answer("search", folder, "lamp", "--where", "year<2000")
    assert (lamp["id"], lamp["text"], lamp["fields"]) == ("S3", "green lamp", {"year": 1999, "price": 1.5})
    assert answer("index", "delete", folder, "--where", "year>=2015 and not price=9")["deleted"] == 5
    gone = tmp_path / "gone.csv"
    gone.write_text("sku\nS0\nS1\nnothing\n", encoding="utf-8")
    assert "not in the index" in str(run("index", "delete", folder, "--table", gone).exception)
    assert answer("index", "delete", folder, "--table", gone, "--missing-ok")["deleted"] == 2
    assert answer("index", "verify", folder)["rows"] == 14


def test_a_table_beside_vectors_gives_ids_and_columns(files: Path, tmp_path: Path) -> None:
    table, folder = tmp_path / "rows.jsonl", tmp_path / "index"
    records = [{"id": f"r{row}", "group": "ab"[row % 2], "n": row} for row in range(N)]
    table.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    answer("index", "build", files / "all.npy", "-o", folder, "--table", table, "--plan", "flat@full")
    found = answer(
        "search", folder, "--vectors", files / "queries.npy", "--k", 5, "--where", "group=a and n<100"
    )
    assert all(int(hit["id"][1:]) % 2 == 0 and hit["fields"]["n"] < 100 for row in found for hit in row)
    more = tmp_path / "more.jsonl"
    more.write_text('{"id": "x", "n": 1}\n{"id": "y"}\n{"id": "z", "group": "c"}\n', encoding="utf-8")
    assert answer("index", "add", folder, files / "more.npy", "--table", more)["rows"] == N + 3
    wrong = run("index", "build", files / "all.npy", "-o", tmp_path / "i", "--table", more)
    assert "400 vectors; give one row for each" in str(wrong.exception)


def test_words_are_looked_for_in_an_index_of_vectors_that_knows_its_encoder(tmp_path: Path) -> None:
    texts = tmp_path / "t.txt"
    texts.write_text("a cat on the roof\nbread in the oven\nships at sea\n", encoding="utf-8")
    run("encode", "wordllama", texts, "-o", tmp_path / "v")
    answer("index", "build", tmp_path / "v", "-o", tmp_path / "i", "--plan", "flat@full")
    assert answer("search", tmp_path / "i", "baking", "--k", 1)[0]["id"] == 1
    np.save(tmp_path / "v.npy", np.load(tmp_path / "v" / "vectors.npy"))
    answer("index", "build", tmp_path / "v.npy", "-o", tmp_path / "j", "--plan", "flat@full")
    assert "name it with --encoder" in str(run("search", tmp_path / "j", "baking").exception)
    assert answer("search", tmp_path / "j", "baking", "--k", 1, "--encoder", "wordllama")[0]["id"] == 1


def test_encoded_tables_keep_ids_and_columns(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("sku,title,year\nA,a red boat,2001\nB,a blue lamp,2002\n", encoding="utf-8")
    flags = ("--column", "title", "--id-column", "sku")
    run("encode", "wordllama", table, *flags, "-o", tmp_path / "v")
    answer("index", "build", tmp_path / "v", "-o", tmp_path / "i", "--plan", "flat@full")
    (lamp,) = answer("search", tmp_path / "i", "a lamp", "--where", "year>2001")
    assert (lamp["id"], lamp["fields"]) == ("B", {"title": "a blue lamp", "year": 2002})
    assert answer("index", "info", tmp_path / "i")["columns"] == {"text": "title", "id": "sku"}
    alone = run("encode", "wordllama", table, *flags, "-o", tmp_path / "v.npy")
    assert "give a folder as -o to keep the ids and columns" in alone.stderr
    run("encode", "wordllama", table, *flags, "--fields", "", "-o", tmp_path / "w")
    assert StoredVectors.load(tmp_path / "w").fields.kinds == {"title": "text"}


def test_later_tables_have_the_ids_of_the_index_and_may_lack_its_texts(tmp_path: Path) -> None:
    def table(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    folder, flags = tmp_path / "c", ("--column", "title", "--id-column", "sku")
    first = table("a.csv", "sku,title,price\n111,a cat,1\n222,a dog,2\nX3,a cow,3\n")
    answer("index", "build", first, "-o", folder, "--encoder", "wordllama", *flags)
    assert answer("index", "add", folder, table("b.csv", "sku,title,price\n444,a hen,4\n"))["added"] == 1
    changed = answer("index", "update", folder, table("c.csv", "sku,price\n444,9\n111,8\n"))
    assert changed == {"added": 0, "replaced": 2, "rows": 4}
    (hen,) = answer("search", folder, "hen", "--where", "price=9")
    assert (hen["id"], hen["text"]) == ("444", "a hen")
    assert answer("index", "delete", folder, "--table", tmp_path / "b.csv")["deleted"] == 1
    assert "no row meets --where" in run("search", folder, "hen", "--where", "price>100").stderr
    run("encode", "wordllama", first, *flags, "-o", tmp_path / "v")
    answer("index", "build", tmp_path / "v", "-o", tmp_path / "i", "--plan", "flat@full")
    alone = tmp_path / "d.csv"
    alone.write_text("sku,price\n111,7\n", encoding="utf-8")
    assert answer("index", "update", tmp_path / "i", alone) == {"added": 0, "replaced": 1, "rows": 3}


def test_flags_that_mean_nothing_are_refused(files: Path, tmp_path: Path) -> None:
    texts = tmp_path / "t.txt"
    texts.write_text("a cat\na dog\n", encoding="utf-8")
    build = ("index", "build", "-o", tmp_path / "x")
    for flag in (("--metric", "euclidean"), ("--nesting", "dim=8,32")):
        assert "are for vectors" in str(run(*build, texts, "--encoder", "wordllama", *flag).exception)
    for flag in (("--fields", "year"), ("--id-column", "sku")):
        assert "give a table of its rows with --table" in str(run(*build, files / "all.npy", *flag).exception)


def test_an_index_is_cut_to_a_size_and_a_precision(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    with AdaptiveIndex.create(tmp_path / "whole", rows, at="bits=4", nesting="dim=8,16") as whole:
        expected = whole.search(rows[:3], k=2, at="dim=8,bits=2").ids
    done = run("index", "extract", tmp_path / "whole", "--at", "dim=8,bits=2", "-o", tmp_path / "small")
    assert "300 vectors of 8 dims in 2 bits" in done.stdout
    with AdaptiveIndex.open(tmp_path / "small", read_only=True) as small:
        assert np.array_equal(small.search(rows[:3], k=2).ids, expected)
