"""Pairs are split in whole groups, so that no text is in two parts; saved pairs are verified."""

from __future__ import annotations

import errno
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.data import TextPairs, read_pairs
from nestling.data.split import plain_text
from nestling.errors import ArtifactError, ConfigError, DataError, StorageError

WORDS = st.text("abAB ", min_size=1, max_size=3).filter(str.strip)
ROWS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=40)


def pairs_of(count: int, groups: int) -> TextPairs:
    rows = range(count)
    return TextPairs(
        [f"query {i}" for i in rows], [f"document {i}" for i in rows], [f"group {i % groups}" for i in rows]
    )


def components(rows: list[tuple[str, str]]) -> set[frozenset[int]]:
    """Rows that hang together through equal texts, found by merging sets until nothing changes."""
    sets = [{i} for i in range(len(rows))]
    texts = [set(map(plain_text, row)) for row in rows]
    changed = True
    while changed:
        changed = False
        for a in range(len(sets)):
            for b in range(a):
                if sets[a] and sets[b] and any(texts[i] & texts[j] for i in sets[a] for j in sets[b]):
                    sets[b] |= sets[a]
                    sets[a] = set()
                    changed = True
    return {frozenset(rows) for rows in sets if rows}


@given(ROWS)
def test_without_groups_rows_that_share_a_text_are_one_group(rows: list[tuple[str, str]]) -> None:
    queries, documents = zip(*rows, strict=True)
    groups = TextPairs(queries, documents).groups
    found = {frozenset(i for i, g in enumerate(groups) if g == group) for group in groups}
    assert found == components(rows)


@given(ROWS, st.integers(0, 5))
def test_no_text_falls_in_two_parts(rows: list[tuple[str, str]], seed: int) -> None:
    queries, documents = zip(*rows, strict=True)
    pairs = TextPairs(queries, documents)
    if len(set(pairs.groups)) < 3:
        with pytest.raises(DataError, match="3 parts need at least as many groups"):
            pairs.split(seed=seed)
        return
    parts = pairs.split((0.5, 0.3, 0.2), seed=seed)
    texts = [{plain_text(text) for text in (*part.queries, *part.documents)} for part in parts]
    assert sum(map(len, texts)) == len(set().union(*texts))
    assert sum((Counter(zip(p.queries, p.documents, strict=True)) for p in parts), Counter()) == Counter(rows)
    assert pairs.split((0.5, 0.3, 0.2), seed=seed) == parts


@given(st.lists(st.integers(1, 60), min_size=3, max_size=60), st.integers(0, 3))
def test_parts_are_whole_groups_near_their_fractions(sizes: list[int], seed: int) -> None:
    groups = [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]
    pairs = TextPairs([f"q{i}" for i in range(len(groups))], [f"d{i}" for i in range(len(groups))], groups)
    parts = pairs.split((0.8, 0.1, 0.1), seed=seed)
    assert all(len(part) for part in parts)
    names = [set(part.groups) for part in parts]
    assert sum(map(len, names)) == len(set().union(*names)) == len(sizes)
    for part, fraction in zip(parts, (0.8, 0.1, 0.1), strict=True):
        # A group goes where it fits, or where most room is: no part can miss by more than the largest.
        assert abs(len(part) - fraction * len(pairs)) <= 2 * max(sizes)


def test_many_small_groups_fill_the_parts_exactly_and_the_seed_matters() -> None:
    pairs = pairs_of(5000, 5000)
    parts = pairs.split(seed=1)
    assert [len(part) for part in parts] == [4000, 500, 500]
    assert parts != pairs.split(seed=2)
    assert list(parts[0].queries) == sorted(parts[0].queries, key=pairs.queries.index)  # order is kept


@pytest.mark.parametrize(
    "fractions", [(), (0.5, 0.6), (1.2, -0.2), (0.5, 0.4), (1.0, 0.0), (float("nan"), 1.0)]
)
def test_fractions_that_make_no_sense(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="fractions must be above 0 and sum to 1"):
        pairs_of(10, 10).split(fractions)


def test_too_few_groups_are_named() -> None:
    with pytest.raises(DataError, match=r"3 parts need .* 100 pairs are in 2 \(group 0, group 1\)"):
        pairs_of(100, 2).split()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([], []), "there are no pairs"),
        ((["a"], ["b", "c"]), "not 1, 2 and 1"),
        ((["a", "b"], ["b", "c"], ["g"]), "not 2, 2 and 1"),
        ((["a", " "], ["b", "c"]), "queries are blank in row 1"),
        ((["a", "b"], ["", "\n"]), r"documents are blank in 2 rows \(0, 1\)"),
        ((["a", None], ["b", "c"]), "queries must be strings, but row 1 holds a NoneType"),
        ((["a", 3.5], ["b", "c"]), "row 1 holds a float"),
        (("ab", "cd"), "a list of texts, not one text"),
        ((["a\ud800"], ["b"]), "lone surrogate.* in row 0"),
    ],
)
def test_rows_that_cannot_be_pairs(columns: tuple[object, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TextPairs(*columns)  # type: ignore[arg-type]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    pairs = TextPairs(
        ["ä\u2028b", 'say "hi"'], ["line\nbreak", "\U0001f600"], ["x", "y"], left_out={"short": 2}
    )
    pairs.save(tmp_path / "pairs")
    assert TextPairs.load(tmp_path / "pairs") == pairs


def test_saved_pairs_that_were_touched_are_refused(tmp_path: Path) -> None:
    pairs_of(3, 3).save(tmp_path / "pairs")
    file = tmp_path / "pairs" / "pairs.jsonl"
    file.write_bytes(file.read_bytes().replace(b"document 1", b"document 7"))
    with pytest.raises(ArtifactError, match="truncated or altered"):
        TextPairs.load(tmp_path / "pairs")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StorageError, match="disk is full"):
        pairs_of(3, 3).save(tmp_path / "pairs")
    assert list(tmp_path.iterdir()) == []


def test_retrieval_merges_equal_queries_and_documents() -> None:
    data = TextPairs(["a", "b", "a"], ["x", "x", "y"]).retrieval()
    assert data.queries == {"q0": "a", "q1": "b"}
    assert data.documents == {"d0": "x", "d1": "y"}
    assert data.qrels == {"q0": {"d0": 1, "d1": 1}, "q1": {"d0": 1}}


CSV = 'Question,Answer,Group\nwhat is it,"a cat, a ""big"" one",pets\nand this,"two\nlines",pets\n'


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    file = tmp_path / "my.csv"
    file.write_text(CSV)
    pairs = read_pairs(file)
    assert pairs.queries == ("what is it", "and this")
    assert pairs.documents == ('a cat, a "big" one', "two\nlines")
    assert pairs.groups == ("pets", "pets")


def test_the_same_records_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [("Wie spät?", "später", "de"), ("what time", "it's late; really", "en"), ("x", "y\nz", "en")]
    records = [dict(zip(("query", "document", "group"), row, strict=True)) for row in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(record) for record in records) + "\n\n")
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    quoted = [[f'"{field}"' for field in row] for row in rows]
    for name, mark, start in (("a.csv", ",", ""), ("b.csv", ";", "\ufeff"), ("a.tsv", "\t", "")):
        lines = [mark.join(("query", "document", "group")), *map(mark.join, quoted)]
        (tmp_path / name).write_text(start + "\r\n".join(lines), encoding="utf-8")
    expected = TextPairs(*zip(*rows, strict=True))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5
    for file in files:
        assert read_pairs(file) == expected, file.name


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("left,right\na,b\nc,d\n", {}, (("a", "c"), ("b", "d"))),
        ("left,right\na,b\nc,d\n", {"query": "right"}, (("b", "d"), ("a", "c"))),
        ("left,right\na,b\nc,d\n", {"document": "left"}, (("b", "d"), ("a", "c"))),
        ("text,title\na,b\nc,d\n", {}, (("b", "d"), ("a", "c"))),
        ("id,title,text\n1,b,a\n2,d,c\n", {}, (("b", "d"), ("a", "c"))),
        (
            "this line has no header,it is data\nc,d\n",
            {},
            (("this line has no header", "c"), ("it is data", "d")),
        ),
        ("id,title,text\n1,b,a\n2,d,c\n", {"document": "title", "query": "id"}, (("1", "2"), ("b", "d"))),
    ],
)
def test_columns_by_place_and_by_hand(
    tmp_path: Path, text: str, given: dict[str, str], expected: tuple[tuple[str, ...], ...]
) -> None:
    (tmp_path / "my.csv").write_text(text)
    pairs = read_pairs(tmp_path / "my.csv", **given)
    assert (pairs.queries, pairs.documents) == expected


def test_repeated_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("query,document\na,b\nA , B\nc,b\na,b\n")
    pairs = read_pairs(tmp_path / "my.csv")
    assert (pairs.queries, pairs.documents) == (("a", "c"), ("b", "b"))
    assert pairs.left_out == {"repeated rows": 2}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "does not exist"),
        ("my.xlsx", b"PK", r"unknown kind of file '\.xlsx'.*\.csv"),
        ("my.csv", b"", "is empty"),
        ("my.csv", b"query,document\n", "is empty"),
        ("my.csv", b"query,document\na,b\n", "one pair only"),
        ("my.csv", b"query,document\na,b\na,b\n", "one pair only"),
        ("my.csv", b"query,document\na,b\n\nc, \n,d\n", "column 'query' are blank in line 5"),
        ("my.csv", b"query,document\na,\nb,\nc,d\n", r"column 'document' are blank in 2 lines \(2, 3\)"),
        ("my.csv", b"query,document\na,b,c\nd,e\n", r"line 2 of .* does not have 2 fields.*double quotes"),
        ("my.csv", b'query,document\na,"b\nc,d\n', "malformed.*is a quote not closed"),
        ("my.csv", b"query,query\na,b\n", "names a column twice"),
        (
            "my.csv",
            b"one,two,three\na,b,c\n",
            r"to hold a query, but: one, two, three; .* with columns='query=NAME,document=NAME', or call",
        ),
        (
            "my.csv",
            "query,document\na,b\nf\xfcr,c\n".encode("latin-1"),
            "not UTF-8 .line 3 holds the byte 0xfc.*iconv",
        ),
        ("my.jsonl", b'{"query": "a", "document": "b"}\n{"query"\n', "line 2 of .* is not JSON"),
        ("my.jsonl", b'["a", "b"]\n', "line 1 of .* is a JSON list"),
        ("my.jsonl", b'{"query": "a"}\n{"document": "b"}\n', "column 'query' are blank in line 2"),
        ("my.jsonl", b'{"query": "a", "document": ["b"]}\n', "must be strings, but line 1 holds a list"),
        ("my.parquet", b"PAR1 no", "not a readable parquet file"),
    ],
)
def test_files_that_cannot_be_pairs(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_pairs(tmp_path / name)


def test_a_column_that_is_not_there_lists_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text(CSV)
    with pytest.raises(DataError, match="unknown column 'Qestion'; did you mean 'Question'"):
        read_pairs(tmp_path / "my.csv", query="Qestion")
    with pytest.raises(DataError, match="is a folder"):
        read_pairs(tmp_path)
