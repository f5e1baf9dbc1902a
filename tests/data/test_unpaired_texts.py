"""Single texts become pairs without losing a word; blank texts are counted."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.data import TextFile, pairs_from_texts, read_texts
from nestling.data.tables import table
from nestling.errors import DataError

FILLER = "Some other text that can be paired. It has two sentences."


@pytest.mark.parametrize(
    ("text", "query", "document"),
    [
        ("On barn owls\n\nThey hunt  mice\nat night.", "On barn owls", "They hunt mice at night."),
        ("Owls hunt at night. They eat mice.", "Owls hunt at night.", "They eat mice."),
        ("Dr. Smith saw an owl. It was asleep there.", "Dr. Smith saw an owl.", "It was asleep there."),
        ("Why so late? (Because it is dark.) Go on now.", "Why so late?", "(Because it is dark.) Go on now."),
        ("version 1.5 of owls is out now", "version 1.5 of", "owls is out now"),
        ("Title\nThe rest of it. And then some more.", "Title The rest of it.", "And then some more."),
        ("猫 は 眠る。 犬 は 走る。", "猫 は 眠る。", "犬 は 走る。"),
    ],
)
def test_the_opening_is_paired_with_the_rest(text: str, query: str, document: str) -> None:
    pairs = pairs_from_texts([text, FILLER])
    assert (pairs.queries[0], pairs.documents[0]) == (query, document)


@given(st.lists(st.text("ab .\n!?A", max_size=40), max_size=12))
def test_no_word_is_lost_or_used_twice(texts: list[str]) -> None:
    texts = [*texts, FILLER, f"{FILLER} Twice."]
    pairs = pairs_from_texts(texts)
    kept = {f"{query} {document}" for query, document in zip(pairs.queries, pairs.documents, strict=True)}
    assert kept <= {" ".join(text.split()) for text in texts}
    assert len(pairs) + sum(pairs.left_out.values()) == len(texts)
    assert all(len(text.split()) >= 3 for text in (*pairs.queries, *pairs.documents))


def test_what_is_left_out_is_counted() -> None:
    pairs = pairs_from_texts(["too short", FILLER, "one two three four five six", FILLER.upper()])
    assert pairs.left_out == {"texts too short to pair": 1, "repeated texts": 1}
    with pytest.raises(DataError, match="only 1 of 3 texts can be paired; each needs at least 6 words"):
        pairs_from_texts(["too short", FILLER, FILLER])


def test_texts_are_read_from_their_column(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"id": 1, "body": "one"}) + "\n" + json.dumps({"body": "two"})
    )
    (tmp_path / "a.txt").write_text("one\n\n  two \n")
    (tmp_path / "a.csv").write_text("whatever\none\ntwo\n")
    for name in ("a.jsonl", "a.txt", "a.csv"):
        assert read_texts(tmp_path / name) == ("one", "two")
    (tmp_path / "b.csv").write_text("x,y\none,two\n")
    assert read_texts(tmp_path / "b.csv", text="y") == ("two",)
    with pytest.raises(DataError, match="no column called text, content, body or the like, but x, y"):
        read_texts(tmp_path / "b.csv")
    with pytest.raises(DataError, match="unknown column 'z'"):
        read_texts(tmp_path / "b.csv", text="z")
    (tmp_path / "c.txt").write_text("\n \n")
    with pytest.raises(DataError, match="is empty"):
        read_texts(tmp_path / "c.txt")


def test_blank_texts_are_left_out_where_order_does_not_matter(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": " "}\n{"text": null}\n{"text": "two"}\n')
    with pytest.raises(DataError, match=r"blank in 2 lines \(2, 3\)"):
        read_texts(path)
    with caplog.at_level("INFO", "nestling"):
        assert read_texts(path, leave_out_blank=True) == ("one", "two")
    assert "left out: 2 texts of" in caplog.text
    path.write_text('{"text": " "}\n')
    with pytest.raises(DataError, match="all its texts are blank"):
        read_texts(path, leave_out_blank=True)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".txt"])
def test_a_file_read_in_parts_is_the_file_read_whole(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f'line {number}, "quoted"; {"x" * number}.' for number in range(23)]
    frame, path = pandas.DataFrame({"id": range(23), "text": texts}), tmp_path / f"texts{suffix}"
    if suffix == ".txt":
        path.write_text("\n\n".join(texts), encoding="utf-8-sig")
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    whole, source = table.read_table(path), TextFile(path)
    assert whole.columns["text"] == texts
    monkeypatch.setattr(table, "_RECORDS_AT_A_TIME", 4)
    parts = list(table.read_in_parts(path))
    assert [len(part.numbers) for part in parts] == [4, 4, 4, 4, 4, 3]
    assert [number for part in parts for number in part.numbers] == list(whole.numbers)
    again = table.read_table(path)
    assert (again.columns, list(again.numbers)) == (whole.columns, list(whole.numbers))
    assert tuple(source) == tuple(source) == read_texts(path) == tuple(texts)


def test_columns_may_come_late_and_faults_are_named_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_RECORDS_AT_A_TIME", 2)
    path = tmp_path / "late.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n{"more": "c"}\n{"text": "d", "more": 5}\n')
    assert table.read_table(path).columns == {"text": ["a", "b", None, "d"], "more": [None, None, "c", 5]}
    with pytest.raises(DataError, match="blank in line 3"):
        read_texts(path)
    path = tmp_path / "late.csv"
    path.write_text("a,b\n1,2\n3,4\n5,6\n7\n")
    with pytest.raises(DataError, match=r"line 5 of .* does not have 2 fields"):
        table.read_table(path)
    path.write_bytes(b"a,b\n1,2\n3,4\n5,6\n\xff,8\n")
    with pytest.raises(DataError, match="line 5 holds the byte 0xff"):
        table.read_table(path)
