"""Tables on the command line: kinds of columns, remarks on them, and listings of their values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from commands import answer, run
from nestling.cli.flags.tables import read_fields, read_id_column
from nestling.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32))
    return tmp_path / "v.npy"


BUILD = ("--plan", "flat@full", "-o")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("sku", ("sku", None)),
        ("sku:text", ("sku", "text")),
        (" sku : int ", ("sku", "int")),
        ("dc:identifier", ("dc:identifier", None)),
        ("dc:identifier:text", ("dc:identifier", "text")),
        ("", ("", None)),
        (None, (None, None)),
    ],
)
def test_a_column_may_be_named_with_its_kind(given: str | None, found: tuple[str | None, str | None]) -> None:
    assert read_id_column(given) == found


def test_fields_may_have_colons_in_their_names() -> None:
    assert read_fields("dc:title,dc:year:int, price") == {"dc:title": None, "dc:year": "int", "price": None}
    with pytest.raises(ConfigError, match="unknown kind of column 'flaot'; did you mean 'float'"):
        read_fields("price:flaot")


def test_ids_of_digits_may_be_texts_from_the_start(vectors: Path, tmp_path: Path) -> None:
    first = write(tmp_path / "a.csv", "sku,price\n7,1\n8,2\n9,3\n")
    index = tmp_path / "i"
    answer("index", "build", vectors, "--table", first, "--id-column", "sku:text", *BUILD, index)
    found = answer("search", index, "--vectors", vectors, "--k", 1)
    assert [row[0]["id"] for row in found] == ["7", "8", "9"]
    more = write(tmp_path / "b.csv", "sku,price\n007,4\n10,5\n11,6\n")
    assert answer("index", "add", index, vectors, "--table", more)["rows"] == 6
    assert answer("index", "delete", index, "007")["rows"] == 5
    bare = answer("index", "build", vectors, "--table", first, "--id-column", "sku", *BUILD, tmp_path / "j")
    assert bare["id_kind"] == "int"


def test_a_float_widens_a_field_and_that_is_told(vectors: Path, tmp_path: Path) -> None:
    index = tmp_path / "i"
    first = write(tmp_path / "a.csv", "id,price\n1,1\n2,2\n3,n/a\n")
    built = answer("index", "build", vectors, "--table", first, *BUILD, index)
    assert built["fields"] == {"price": "int"}
    changed = run("index", "update", index, write(tmp_path / "b.csv", "id,price\n2,2.5\n"))
    assert "price: changed from whole numbers to floats" in changed.stderr
    assert answer("index", "info", index)["fields"] == {"price": "float"}
    found = answer("search", index, "--vectors", vectors, "--where", "price>=1 and price<=2.5", "--k", 3)
    assert {hit["id"]: hit["fields"] for hit in found[0]} == {1: {"price": 1.0}, 2: {"price": 2.5}}
    whole = write(tmp_path / "c.csv", "id,price\n1,3.0\n3,\n")
    assert answer("index", "update", index, whole)["replaced"] == 2
    wrong = run("index", "update", index, write(tmp_path / "d.csv", "id,price\n1,cheap\n"))
    expected = "d.csv: column 'price' holds numbers, but 'cheap' is in line 2; give values of its kind"
    assert f"{expected}, or a blank where there is none" in str(wrong.exception)


def test_a_misspelt_column_of_an_update_is_told(vectors: Path, tmp_path: Path) -> None:
    index = tmp_path / "i"
    first = write(tmp_path / "a.csv", "id,price,brand\n1,1.5,a\n2,2,b\n3,3,c\n")
    answer("index", "build", vectors, "--table", first, *BUILD, index)
    for text, expected in (
        ("id,prise\n1,9\n", r"no column for a field of the index.*prise (did you mean 'price'?)"),
        ("id\n1\n", "it holds ids only; the fields are: price, brand"),
    ):
        wrong = run("index", "update", index, write(tmp_path / "b.csv", text))
        assert wrong.exit_code != 0
        assert all(part in str(wrong.exception) for part in expected.split(".*"))
    partly = run("index", "update", index, write(tmp_path / "c.csv", "id,prise,brand\n1,9,z\n"))
    assert (partly.exit_code, "no such fields: prise (did you mean 'price'?)" in partly.stderr) == (0, True)
    beside = run("index", "update", index, vectors, "--table", write(tmp_path / "d.csv", "id\n1\n2\n3\n"))
    assert beside.exit_code == 0, beside.exception  # the vectors change
    big = write(tmp_path / "e.csv", "id,price\n1,9007199254740993\n")
    wrong = run("index", "update", index, big)
    assert "column 'price', line 2: 9007199254740993 has more digits than a float" in str(wrong.exception)


def test_why_a_column_is_text_is_told(vectors: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "id,price,zip\n1,1,01\n2,abc,02\n3,3,03\n")
    told = run("index", "build", vectors, "--table", table, *BUILD, tmp_path / "i").stderr
    assert "price is kept as text: line 3 holds 'abc' (1 of 3 values say no number)" in told
    assert "zip" not in told
    told = run(
        "index", "build", vectors, "--table", table, "--fields", "price:text", *BUILD, tmp_path / "j"
    ).stderr
    assert "as text" not in told


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_ids_that_will_not_do_are_refused_before_the_model_is_opened(name: str, tmp_path: Path) -> None:
    lines = "".join(json.dumps({"id": each, "text": "a b"}) + "\n" for each in ("a", name))
    table = write(tmp_path / "a.jsonl", lines)
    for command in (
        ("index", "build", table, "-o", tmp_path / "i", "--encoder", tmp_path / "no such model"),
        ("encode", tmp_path / "no such model", table, "-o", tmp_path / "v"),
    ):
        message = str(run(*command).exception)
        assert "column 'id', the ids, holds" in message
        assert "in line 2" in message
        assert "no such model" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl"]


def test_an_answer_takes_the_lines_that_it_should(tmp_path: Path) -> None:
    fields = {"id": "a\nb", "text": "two\r\nlines of\ttext", "note": "x\n\u001b[31my"}
    table = write(tmp_path / "a.jsonl", json.dumps(fields) + "\n")
    answer("index", "build", table, "-o", tmp_path / "c", "--encoder", "wordllama")
    shown = run("search", tmp_path / "c", "lines").stdout.splitlines()
    assert len(shown) == 3
    assert shown[0].endswith("  a b")
    assert shown[1] == "       two lines of text"
    assert shown[2] == "       note=x \\x1b[31my"
    (hit,) = answer("search", tmp_path / "c", "lines")
    assert (hit["id"], hit["text"], hit["fields"]) == (fields["id"], fields["text"], {"note": fields["note"]})


def test_an_update_of_counted_rows_says_which_column_numbers_them(tmp_path: Path) -> None:
    table, index = write(tmp_path / "v.csv", "id,text\n0,cat\n1,dog\n2,owl\n"), tmp_path / "index"
    build = ["index", "build", table, "--encoder", "wordllama", "--column", "text", "-o", index]
    assert run(*build, "--id-column", "", "--fields", "").exit_code == 0
    changed = run("index", "update", index, table)
    assert "the index numbers its rows from 0; column 'id' of" in changed.stderr
    assert "0 added, 3 replaced" in changed.stderr
    # A column that is a field of the index is none of ids.
    assert run(*build, "--id-column", "", "--fields", "id", "--overwrite").exit_code == 0
    assert "3 added" in run("index", "add", index, table).stderr
    assert "update needs the ids" in str(run("index", "update", index, table).exception)
