"""Roles of the columns of a table: found, named, or refused by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nestling.data.tables.description import TableFile
from nestling.errors import DataError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_and_their_kinds_are_found(tmp_path: Path) -> None:
    table = TableFile.open(
        write(
            tmp_path / "t.csv",
            "id,text,year,price,new,ean,note\n7,a b,2020,1.5,true,007,\n8,c d,,2,false,12,x\n",
        )
    )
    assert (table.text, table.id_column, table.rows) == ("text", "id", 2)
    assert table.ids is not None
    assert table.ids.tolist() == [7, 8]
    assert dict(table.kinds) == {
        "text": "text", "year": "int", "price": "float", "new": "bool", "ean": "text", "note": "text",
    }  # fmt: skip
    assert list(table) == ["a b", "c d"]
    (part,) = table.fields()
    assert part.records() == [
        {"text": "a b", "year": 2020, "price": 1.5, "new": True, "ean": "007", "note": None},
        {"text": "c d", "year": None, "price": 2.0, "new": False, "ean": "12", "note": "x"},
    ]


def test_a_kind_is_that_of_the_whole_column(tmp_path: Path) -> None:
    lines = [{"text": f"t {row}", "n": row} for row in range(20_000)]
    lines[15_000]["n"] = "many"  # in another part of the file than the first
    path = write(tmp_path / "t.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    table = TableFile.open(path)
    assert table.kinds["n"] == "text"
    records = table.all_fields().records()
    assert [records[row]["n"] for row in (3, 15_000)] == ["3", "many"]
    with pytest.raises(
        DataError,
        match=r"column 'n' holds whole numbers, but 'many' is in line 15001; .* or a blank where",
    ):
        TableFile.open(path, fields={"n": "int"})


def test_columns_that_no_field_holds_are_left_out_unless_they_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", '{"text": "a b", "tags": ["x"], "n": 1}\n{"text": "c d", "n": 2}\n')
    table = TableFile.open(path)
    assert list(table.kinds) == ["text", "n"]
    assert "holds a list" in table.left_out["tags"]
    with pytest.raises(DataError, match="line 1"):
        TableFile.open(path, fields=["tags"])


def test_fields_and_ids_may_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "sku,title,year,brand\nA1,a b,2020,x\nA2,c d,2021,y\n")
    table = TableFile.open(path, "title", "sku", {"year": "float"})
    assert dict(table.kinds) == {"title": "text", "year": "float"}
    assert table.columns == {"text": "title", "id": "sku"}
    assert TableFile.open(path, "title", "", []).ids is None
    assert TableFile.open(path, None, "sku", has_texts=False).columns == {"id": "sku"}


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("a,b\n1,2\n", {}, "name the one that holds the texts"),
        ("id,text\n1,a b\n1,c d\n", {}, r"names several rows alike \(1\)"),
        ("id,text\n1,a b\n,c d\n", {}, "column 'id', the ids, is blank in line 3"),
        ("id,text\n1,a b\n2,\n", {}, "column 'text' are blank in line 3"),
        ("id,text\n1,a b\n", {"id_column": "ids"}, "did you mean 'id'"),
        ("id,text\n1,a b\n", {"text": "txt"}, "did you mean 'text'"),
        ("id,text,year\n1,a b,2\n", {"fields": ["yaer"]}, "did you mean 'year'"),
        ("id,text,year\n1,a b,2\n", {"fields": {"year": "integer"}}, "unknown kind of field"),
        (
            "id,text,year\n1,a b,x\n",
            {"fields": {"year": "int"}},
            r"column 'year' holds whole numbers, but 'x' is in line 2",
        ),
        ("id,text,year\n1,a b,x\n", {"fields": "year"}, "a list of names"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, arguments: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        TableFile.open(write(tmp_path / "t.csv", text), **arguments)
