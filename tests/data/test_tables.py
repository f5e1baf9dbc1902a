"""One reader for all that has rows: its grammars, encodings, packings and pipes."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nestling.data import read_pairs, read_texts
from nestling.data.sets.sts import read_scored_pairs
from nestling.data.tables.table import read_in_parts, read_table
from nestling.errors import DataError

FIELD = st.text('ab "\t\n;,|é', max_size=8)
IN_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(path: Path) -> list[tuple[object, ...]]:
    return list(zip(*read_table(path).columns.values(), strict=True))


# Tab-separated values


def test_quotes_in_tsv_glue_no_rows_together(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.tsv", 'query\tdocument\na\t"starts here\nb\tsecond\nc\tends here"\nd\tfourth\n'
    )
    pairs = read_pairs(path)
    assert pairs.queries == ("a", "b", "c", "d")
    assert pairs.documents == ('"starts here', "second", 'ends here"', "fourth")
    assert read_texts(write(tmp_path / "t.tsv", 'text\n"starts here\nsecond\nends here"\nfourth\n')) == (
        '"starts here', "second", 'ends here"', "fourth",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ('"Hello" he said', '"Hello" he said'),
        ('he said "Hello"', 'he said "Hello"'),
        ('"Hello" and "bye"', '"Hello" and "bye"'),
        ('5" disk', '5" disk'),
        ('"', '"'),
        ('"open', '"open'),
        ('"quoted"', "quoted"),
        ('"a ""b"" c"', 'a "b" c'),
        ('"tab\tinside"', "tab\tinside"),
        ('"two\nlines"', "two\nlines"),
        ('"three\n\nlines ""quoted"""', 'three\n\nlines "quoted"'),
    ],
)
def test_quotes_in_tsv(field: str, expected: str, tmp_path: Path) -> None:
    for first, row in (("x", f"x\t{field}"), (expected, f"{field}\tx")):
        path = write(tmp_path / "q.tsv", f"query\tdocument\nbefore\tit\n{row}\nafter\tit\n")
        assert rows_of(path)[1] == ((first, expected) if first == "x" else (first, "x"))
        assert len(rows_of(path)) == 3


@IN_FOLDER
@given(rows=st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=6))
def test_tsv_of_data_frames_is_read_back(rows: list[tuple[str, str, str]], tmp_path: Path) -> None:
    """But for a text with line breaks of which each line looks like a row."""
    assume(all(any(map(str.strip, row)) for row in rows))
    assume(not any("\n" in "".join(row) and "\t" in "".join(row) for row in rows))
    path = tmp_path / "a.tsv"
    pandas.DataFrame(rows, columns=["x", "y", "z"]).to_csv(path, sep="\t", index=False)
    assert rows_of(path) == rows


@IN_FOLDER
@given(rows=st.lists(st.tuples(*[st.text('ab "', max_size=6)] * 2), min_size=1, max_size=8))
def test_tsv_without_quoting_keeps_every_row_apart(rows: list[tuple[str, str]], tmp_path: Path) -> None:
    rows = [(f"x{a}", b) for a, b in rows]
    path = write(tmp_path / "a.tsv", "".join(f"{a}\t{b}\n" for a, b in [("x", "y"), *rows]))
    found = rows_of(path)
    assert len(found) == len(rows)
    for row, expected in zip(found, rows, strict=True):
        assert [str(field).replace('"', "") for field in row] == [
            field.replace('"', "") for field in expected
        ]


# Comma-separated values, as workbooks write them


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("query,document\na,b\n,\nc,d\n", {"query": ["a", "c"], "document": ["b", "d"]}),
        ("query,document,,\na,b,,\n,,,\nc,d,,\n", {"query": ["a", "c"], "document": ["b", "d"]}),
        ("query,document\na,b,,\n", {"query": ["a"], "document": ["b"]}),
        (
            'query;document;"note, long"\na;b;"c, d"\n',
            {"query": ["a"], "document": ["b"], "note, long": ["c, d"]},
        ),
        ("sep=;\nquery;document\na,b;c\n", {"query": ["a,b"], "document": ["c"]}),
        ("query\tdocument\na, b\tc; d\n", {"query": ["a, b"], "document": ["c; d"]}),
        ("query|document\na, b|c\n", {"query": ["a, b"], "document": ["c"]}),
        ('"one; two",x\n"a; b; c",d\n', {"one; two": ["a; b; c"], "x": ["d"]}),
        (",query,document\n0,a,b\n1,c,d\n", {"1": ["0", "1"], "query": ["a", "c"], "document": ["b", "d"]}),
        ("query , document\r\na,b\r\n", {"query": ["a"], "document": ["b"]}),
        ('"two\nlines",document\na,b\n', {"two\nlines": ["a"], "document": ["b"]}),
        ("text\nhello; world\n", {"text": ["hello; world"]}),
        ("a b c d,\ne,f\n", {"1": ["a b c d", "e"], "2": ["", "f"]}),
        (f"a,b\n{'x' * 300_000},y\n", {"a": ["x" * 300_000], "b": ["y"]}),
    ],
)
def test_what_workbooks_write(content: str, expected: dict[str, list[str]], tmp_path: Path) -> None:
    assert read_table(write(tmp_path / "a.csv", content)).columns == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("query,document\na,b,c\n", "line 2 of .* does not have 2 fields as the first line has, but 3"),
        ("query,document,\na,b,\nc,d,e\n", "line 3 of .* does not have 2 fields"),
        ("a,a\n1,2\n", "names a column twice in its first line: a, a"),
        (",,\n", "is empty"),
    ],
)
def test_what_no_workbook_writes(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path / "a.csv", content))


@IN_FOLDER
@given(
    rows=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=60),
    delimiter=st.sampled_from([",", ";", "|"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_csv_is_read_as_it_was_written(
    rows: list[tuple[str, str]], delimiter: str, quoting: Literal[0, 1], tmp_path: Path
) -> None:
    rows = [*rows, ("x", "y")]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows([("left", "right"), *rows])
    path = write(tmp_path / "a.csv", text.getvalue())
    assert rows_of(path) == [row for row in rows if any(map(str.strip, row))]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["3,5", "20", "", "-0,25"], ["3.5", "20", "", "-0.25"]),
        (["1,000", "2,500"], ["1,000", "2,500"]),
        (["3,5", "a, b"], ["3,5", "a, b"]),
        (["3.5", "2"], ["3.5", "2"]),
    ],
)
def test_decimals_behind_a_comma(column: list[str], expected: list[str], tmp_path: Path) -> None:
    lines = "".join(f"x;{value}\n" for value in column)
    assert read_table(write(tmp_path / "a.csv", f"name;price\n{lines}")).columns["price"] == expected
    quoted = "".join(f'x,"{value}"\n' for value in column)
    assert read_table(write(tmp_path / "a.csv", f"name,price\n{quoted}")).columns["price"] == column


def test_a_long_name_that_is_asked_for_is_a_name(tmp_path: Path) -> None:
    content = "Title of the product (English),Its description for the catalogue\na,b\nc,d\n"
    path = write(tmp_path / "a.csv", content)
    assert list(read_table(path).columns) == ["1", "2"]
    assert read_texts(path, text="Title of the product (English)") == ("a", "c")
    pairs = read_pairs(path, document="Its description for the catalogue")
    assert (pairs.queries, pairs.documents) == (("a", "c"), ("b", "d"))


# Encodings and packings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".jsonl"])
def test_a_byte_order_mark_says_the_encoding(encoding: str, suffix: str, tmp_path: Path) -> None:
    text = {
        ".csv": "text\nspät, €\n".replace(",", " "),
        ".tsv": "text\r\nspät  €\r\n",
        ".txt": "spät  €\n",
        ".jsonl": '{"text": "spät  €"}\n',
    }[suffix]
    assert read_texts(write(tmp_path / f"a{suffix}", text.encode(encoding))) == ("spät  €",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\nspät\n".encode("utf-16-le"), "null bytes, as UTF-16.*iconv -f UTF-16LE"),
        ("text\nspät\n".encode("utf-16-be"), "iconv -f UTF-16BE"),
        ("text\nspät\n".encode("cp1252"), r"line 2 holds the byte 0xe4\).*iconv -f WINDOWS-1252"),
        ("text\nspät\n".encode("utf-16")[:-1], "not whole UTF-16"),
        (b"PK\x03\x04 anything", "a zip archive or a workbook"),
        (b"\x28\xb5\x2f\xfd anything", "compressed with zstd"),
        (
            gzip.compress(b"text\n" + bytes(range(32, 127)) * 99, mtime=0)[:-9],
            "damaged and cannot be unpacked",
        ),
        (gzip.compress("text\nspät\n".encode("cp1252"), mtime=0), "line 2 holds the byte 0xe4"),
    ],
)
def test_bytes_that_are_no_text_get_the_right_advice(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path / "a.csv", content))


@pytest.mark.parametrize(("suffix", "packer"), [(".gz", gzip), (".bz2", bz2), (".xz", lzma)])
def test_packed_files(suffix: str, packer: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, text in (
        ("a.csv", "x,y\n1,2\n"),
        ("a.TSV", "x\ty\n1\t2\n"),
        ("a.jsonl", '{"x":"1","y":"2"}\n'),
    ):
        write(tmp_path / f"{name}{suffix}", packer.compress(text.encode()))  # type: ignore[attr-defined]
        assert read_table(f"~/{name}{suffix}").columns == {"x": ["1"], "y": ["2"]}


# Texts and numbers of columns


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a\\ud83d b"}', r"lone surrogate U\+D83D\) in line 2"),
        ('{"text": " "}', "are blank in line 2"),
        ('{"text": null}', "are blank in line 2"),
        ('{"text": 1.5}', "line 2 holds a float"),
        ('{"text": true}', "line 2 holds a bool"),
    ],
)
def test_texts_of_a_column_are_whole(line: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"text": "c d"}}\n{line}\n{{"text": 7}}\n')
    with pytest.raises(DataError, match=message):
        read_texts(path)


SCORED = [("a cat", "a dog", 7.5), ("x, y", "z\tw", -1.0), ('say "hi"', "é", 0.0)]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.CSV"])
@pytest.mark.parametrize(
    "names",
    [("sentence1", "sentence2", "score"), ("Text 1", "Text_2", "Similarity"), ("x", "y", "z"), None],
)
def test_scored_pairs_of_any_kind_of_file(name: str, names: tuple[str, ...] | None, tmp_path: Path) -> None:
    frame, path = pandas.DataFrame(SCORED, columns=list(names or "xyz")), tmp_path / name
    if name.endswith("parquet"):
        frame.to_parquet(path)
    elif name.endswith("jsonl"):
        frame.to_json(path, orient="records", lines=True)
    else:
        sep = "\t" if name.endswith("tsv") else ","
        frame.to_csv(path, index=False, header=names is not None, sep=sep)
    pairs = read_scored_pairs(path)
    assert list(zip(pairs.first, pairs.second, pairs.scores, strict=True)) == SCORED


def test_columns_of_scored_pairs_by_hand_and_by_name(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", "id,b,a,Question 2,Question 1,is_duplicate\n9,p,q,two,one,1\n8,r,s,x,y,0\n"
    )
    pairs = read_scored_pairs(path)
    assert (pairs.first, pairs.second, pairs.scores.tolist()) == (("one", "y"), ("two", "x"), [1, 0])
    pairs = read_scored_pairs(path, first="b", second="a", score="id")
    assert (pairs.first, pairs.second, pairs.scores.tolist()) == (("p", "r"), ("q", "s"), [9, 8])
    with pytest.raises(DataError, match="unknown column 'c'"):
        read_scored_pairs(path, first="c")
    decimals = write(tmp_path / "b.csv", "one;two;3,5\nthree;four;1\n")
    assert read_scored_pairs(decimals).scores.tolist() == [3.5, 1]


# Pipes: what is read once is kept as long as the process

CONTENTS = {
    "lines": b"one\n\ntwo, three\n",
    "objects": b'{"text": "one"}\n{"text": "two, three"}\n',
    "packed": gzip.compress(b"one\ntwo, three\n", mtime=0),
    "utf-16": "one\ntwo, three\n".encode("utf-16"),
}
READ_TWICE = """
import sys
from nestling.data import TextFile
from nestling.data.tables.table import read_table
texts = TextFile(sys.argv[1])
assert tuple(texts) == tuple(texts) == ("one", "two, three"), tuple(texts)
"""


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
@pytest.mark.parametrize("content", CONTENTS)
def test_texts_from_standard_input(content: str, name: str) -> None:
    subprocess.run([sys.executable, "-c", READ_TWICE, name], input=CONTENTS[content], check=True, timeout=60)


def test_the_copy_of_standard_input_goes_with_the_program(tmp_path: Path) -> None:
    (temporary := tmp_path / "temporary").mkdir()
    command = [sys.executable, "-m", "nestling", "encode", "wordllama", "-", "-o", str(tmp_path / "vectors")]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    subprocess.run(command, input=CONTENTS["lines"], env=environment, check=True, timeout=60)
    assert not list(temporary.iterdir())


def test_texts_from_a_named_pipe_and_from_a_file_as_standard_input(tmp_path: Path) -> None:
    command = (
        f'{sys.executable} -c "$CODE" <(printf "one\\ntwo, three\\n") && {sys.executable} -c "$CODE" - < t'
    )
    write(tmp_path / "t", CONTENTS["lines"])
    environment = {**os.environ, "CODE": READ_TWICE}
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=True, timeout=60)


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("read_pairs('-').queries == ('a', 'c')", b"left,right\na,b\nc,d\n"),
        ("read_pairs('-').queries == ('a', 'c')", b"left\tright\na\tb, x\nc\td\n"),
        (
            "read_pairs('-').queries == ('a', 'c')",
            b'{"query":"a","document":"b"}\n{"query":"c","document":"d"}\n',
        ),
        ("read_scored_pairs('-').scores.tolist() == [2, 3]", b"a,b,2\nc,d,3\n"),
        ("read_texts('-', text='title') == ('x, y', 'z')", b'id,title\n1,"x, y"\n2,z\n'),
        ("read_texts('-') == ('x, y', 'z')", b'id,text\n1,"x, y"\n2,z\n'),
        ("read_texts('-') == ('x, y', 'text, z')", b"x, y\ntext, z\n"),
        ("tuple(TableFile.open('-')) == ('x', 'z')", b"x\nz\n"),
        ("tuple(TableFile.open('-').ids) == ('a', 'b')", b"id,text\na,x\nb,z\n"),
        ("tuple(TableFile.open('-', text='name')) == ('x', 'z')", b"name,price\nx,1\nz,2\n"),
        ("read_texts('-') == ('x', 'z')", pandas.DataFrame({"id": [1, 2], "text": ["x", "z"]}).to_parquet()),
    ],
)
def test_tables_from_standard_input(code: str, content: bytes) -> None:
    source = (
        "from nestling.data import read_pairs, read_texts\n"
        "from nestling.data.sets.sts import read_scored_pairs\n"
        "from nestling.data.tables.description import TableFile\n"
        f"assert {code}"
    )
    subprocess.run([sys.executable, "-c", source], input=content, check=True, timeout=60)


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (None, "standard input is closed")])
def test_nothing_comes_through_the_pipe(
    content: bytes | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None if content is None else io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(DataError, match=message):
        read_table("-")


def test_parts_of_a_large_table_agree_with_pandas(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = np.array(["plain", 'a "quoted" one', "with, comma", "two\nlines", "tab\there", "é"])
    frame = pandas.DataFrame({name: rng.choice(words, 20_000) for name in ("query", "document")})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for name in ("a.csv", "a.tsv", "a.jsonl"):
        parts = list(read_in_parts(tmp_path / name))
        assert len(parts) == 3
        found = {column: [v for part in parts for v in part.columns[column]] for column in frame}
        assert found == frame.to_dict("list"), name
    assert json.loads((tmp_path / "a.jsonl").read_text().split("\n")[0]) == frame.iloc[0].to_dict()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ends_of_lines(end: str, tmp_path: Path) -> None:
    text = end.join(["one\u2028still one", "", "two", ""])
    assert tuple(read_texts(write(tmp_path / "a.txt", text))) == ("one\u2028still one", "two")
    lines = end.join(['{"text": "one"}', '{"text": "two"}'])
    table = read_table(write(tmp_path / "a.jsonl", lines))
    assert (table.columns, [*table.numbers]) == ({"text": ["one", "two"]}, [1, 2])


@pytest.mark.parametrize("last", ["3,5", "none"])
def test_decimals_are_decided_by_the_whole_file(last: str, tmp_path: Path) -> None:
    """The last row lies in another part than the first."""
    rows = "".join(f"{n},5;{n},5\n" for n in range(9000))
    path = write(tmp_path / "a.csv", f"item_id;price\n{rows}1,5;{last}\n")
    columns = read_table(path).columns
    assert columns["item_id"][:2] == ["0,5", "1,5"]
    assert (columns["price"][0], columns["price"][-1]) == (
        ("0.5", "3.5") if last == "3,5" else ("0,5", "none")
    )


def test_parquet_that_does_not_fit(tmp_path: Path) -> None:
    twice = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    pyarrow.parquet.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="names a column twice: text, text"):
        read_table(tmp_path / "a.parquet")
