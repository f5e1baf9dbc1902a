"""Cranfield, XQuAD, BEIR folders and TREC files are read; damaged ones are refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas
import pytest

from nestling.cut import RAW
from nestling.data import RetrievalData, cranfield, read_beir, read_qrels, read_run, xquad
from nestling.data.sets.retrieval_sets import read_squad
from nestling.errors import DataError
from nestling.measure.tasks.qrels import Qrels
from nestling.measure.tasks.tasks import Retrieval

CRAN_DOCUMENTS = """.I 1
.T
a wing
.A
somebody
.W
the wing of a plane
  bends in the wind .
.I 2
.T
.A
.B
.W
"""
CRAN_QUERIES = ".I 001\r\n.W\r\nwhat bends in\r\nthe wind .\r\n.I 004\r\n.W\r\nwhat else bends .\r\n"
CRAN_QRELS = "1 1 1\n1 2 4 \n2 1 -1\n2 2  3\n"


@pytest.fixture
def small_cranfield(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cranfield"
    folder.mkdir()
    (folder / "cran.all.1400").write_bytes(CRAN_DOCUMENTS.encode())
    (folder / "cran.qry").write_bytes(CRAN_QUERIES.encode())
    (folder / "cranqrel").write_bytes(CRAN_QRELS.encode())
    monkeypatch.setenv("NESTLING_DATA", str(tmp_path))
    return folder


def test_questions_count_by_position_and_the_best_code_has_the_highest_grade(small_cranfield: Path) -> None:
    data = cranfield()
    assert data.queries == {"1": "what bends in the wind .", "2": "what else bends ."}
    assert data.documents == {"1": "the wing of a plane bends in the wind .", "2": "(empty abstract 2)"}
    assert data.qrels == {"1": {"1": 4, "2": 1}, "2": {"1": 1, "2": 2}}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("cranqrel", "1 1 7\n", "line 1 of .* is not: query, document, code"),
        ("cranqrel", "1 1\n", "line 1 of .* is not"),
        ("cranqrel", "9 1 1\n", "no query can be scored: query '9' without a text"),
        ("cran.qry", "nothing", "holds no records"),
        ("cran.all.1400", ".I 1\n.T\ntitle\n", "record 1 of .* has no text"),
        ("cran.all.1400", "\xe4", "cannot be read as the text it should be"),
    ],
)
def test_damaged_collections(small_cranfield: Path, file: str, content: str, message: str) -> None:
    (small_cranfield / file).write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=message):
        cranfield()


def test_the_real_cranfield(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTLING_DATA", str(shared_data))
    data = cranfield()
    assert (len(data.queries), len(data.documents), len(data.qrels)) == (225, 1400, 225)
    assert sum(len(grades) for grades in data.qrels.values()) == 1837
    # Words in common, the best grade against the lowest: wrong order of grades or queries would show.
    words = {key: set(text.split()) for key, text in (data.documents | {}).items()}
    shared = {1: [], 4: []}
    for query, grades in data.qrels.items():
        asked = {word for word in data.queries[query].split() if len(word) > 4}
        for document, grade in grades.items():
            if grade in shared:
                shared[grade].append(len(asked & words[document]) / len(asked))
    assert sum(shared[4]) / len(shared[4]) > sum(shared[1]) / len(shared[1])


def test_the_real_xquad(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTLING_DATA", str(shared_data))
    data = xquad()
    assert (len(data.queries), len(data.documents)) == (1190, 240)
    raw = json.loads((shared_data / "xquad" / "xquad.en.json").read_text())["data"]
    answers = {q["id"]: q["answers"][0]["text"] for a in raw for p in a["paragraphs"] for q in p["qas"]}
    assert all(answers[query] in data.documents[next(iter(grades))] for query, grades in data.qrels.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{", "not in SQuAD's format"),
        ("[]", "not in SQuAD's format"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', "not in SQuAD's format.*context"),
        ('{"data": []}', "hold no queries"),
    ],
)
def test_files_that_are_no_squad(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_squad(tmp_path / "a.json")


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    (tmp_path / "qrels").mkdir()
    documents = [{"_id": "d1", "title": "Owls", "text": "hunt"}, {"_id": 2, "title": "", "text": "cats"}]
    queries = [{"_id": "q1", "text": "who hunts"}, {"_id": "q2", "text": "not in this split"}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)) + "\n")
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\t2\t0\n")
    (tmp_path / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td1\t1\n")
    return tmp_path


def test_a_folder_in_beir_format(beir: Path) -> None:
    data = read_beir(beir)
    assert data.queries == {"q1": "who hunts"}
    assert data.documents == {"d1": "Owls\nhunt", "2": "cats"}
    assert data.qrels == {"q1": {"d1": 2, "2": 0}}
    assert set(read_beir(beir, "dev").queries) == {"q2"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", None, "lacks corpus.jsonl"),
        ("corpus.jsonl", "", "hold no documents"),
        ("corpus.jsonl", '{"id": "d1", "text": "x"}', 'line 1 of .* has no "_id"'),
        ("corpus.jsonl", '{"_id": "d1", "text": 3}', "line 1 of .* 'd1' must be texts or null"),
        (
            "corpus.jsonl",
            '{"_id": "d1", "text": "x"}\n{"_id": "d1", "text": "y"}',
            "line 2 of .* repeats the id 'd1'",
        ),
        (
            "corpus.jsonl",
            '{"_id": "d7", "text": "x"}',
            "none of the 2 judged documents is there, such as '2'",
        ),
        ("corpus.jsonl", '{"_id": "d1"', "line 1 of .* is not JSON"),
        ("queries.jsonl", '{"_id": "q2", "text": "x"}', "hold no queries"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", "holds no judgements"),
        ("qrels/test.tsv", "q1\td1\n", "line 1 of .* has 2 columns; judgements have"),
        ("qrels/test.tsv", "q1\td1\tgood\n", "line 1 of .*: the grade 'good' is not a whole number"),
        ("qrels/test.tsv", "q1\td1\t0.5\n", "line 1 of .*: the grade '0.5' is not a whole number"),
        (
            "qrels/test.tsv",
            "q1\td1\t1\nq1\td1\t2\n",
            "line 2 of .* judges document 'd1' of query 'q1' a second time",
        ),
        ("qrels/test.tsv", "q1\td1\t0\n", "no query can be scored: query 'q1' without a relevant document"),
    ],
)
def test_damaged_beir_folders(beir: Path, file: str, content: str | None, message: str) -> None:
    if content is None:
        (beir / file).unlink()
    else:
        (beir / file).write_text(content)
    with pytest.raises(DataError, match=message):
        read_beir(beir)


def test_an_unknown_split_lists_the_others(beir: Path) -> None:
    with pytest.raises(DataError, match="unknown split 'tests'; did you mean 'test'"):
        read_beir(beir, "tests")


def test_trec_files(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("1 0 FT-1 2\n1 0 FT-2 -2\n\n2 Q0 FT-1 1\n")
    assert read_qrels(tmp_path / "qrels") == {"1": {"FT-1": 2, "FT-2": -2}, "2": {"FT-1": 1}}
    (tmp_path / "run").write_text("1 Q0 a 2 0.5 me\n1\tQ0\tb\t1\t1.5e0\tme\n2 Q0 a 1 -3 me\n")
    run = read_run(tmp_path / "run")
    assert run == {"1": {"b": 1.5, "a": 0.5}, "2": {"a": -3.0}}
    assert list(run["1"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no run"),
        ("1 Q0 a 1 0.5\n", "line 1 of .* has 5 columns; a run has 6"),
        ("1 Q0 a 1 nan me\n", "the score 'nan' is not a finite number"),
        ("1 Q0 a 1 x me\n", "the score 'x' is not a finite number"),
        ("1 Q0 a 1 1 me\n1 Q0 a 2 0 me\n", "line 2 of .* ranks document 'a' of query '1' twice"),
    ],
)
def test_damaged_runs(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "run").write_text(content)
    with pytest.raises(DataError, match=message):
        read_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (({}, {"d": "x"}, {"q": {"d": 1}}), "hold no queries"),
        (({"q": "x"}, {"d": "x"}, {}), "hold no qrels"),
        (({"q": "x"}, {"d": "x"}, {"p": {"d": 1}, "r": {"d": 1}}), r"2 queries \('p', 'r'\) without a text"),
        (({"q": "x"}, {"d": "x"}, {"q": {"e": 1}}), "none of the 1 judged documents is there, such as 'e'"),
        (({"q": "x"}, {"d": "x"}, {"q": {"d": 0}}), "query 'q' without a relevant document"),
        (({"q": "x"}, {"d": "x", "e": 3}, {"q": {"d": 1}}), "must be texts, not an int as in document 'e'"),
        (({"q": "x"}, {"d": "x"}, {"q": {"d": float("nan")}}), "document 'd' for query 'q' is nan"),
        (({"q": "x"}, {"d": "x"}, {"q": {"d": "1"}}), "document 'd' for query 'q' is '1'"),
        (({"q": "x"}, {"d": "x"}, {"q": ["d"]}), "query 'q' must be grades by document id, not a list"),
    ],
)
def test_parts_that_do_not_fit(parts: tuple[dict[str, str], ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        RetrievalData(*parts)  # type: ignore[arg-type]


def write_lines(path: Path, records: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as BEIR publishes them: empty documents, grades of all kinds, judgements that do not fit."""
    (tmp_path / "qrels").mkdir()
    documents = [{"_id": f"d{i}", "title": "", "text": f"document {i}"} for i in range(6)]
    documents[1]["text"] = ""
    documents[2] |= {"text": None, "title": "a title alone"}
    documents += [
        {"_id": "d6", "text": " \n"},
        {"_id": "d7", "text": "torn \ud83d"},
        {"_id": "d8", "title": "t"},
    ]
    write_lines(tmp_path / "corpus.jsonl", [*documents, documents[3]])
    queries = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(4)]
    write_lines(tmp_path / "queries.jsonl", [*queries, {"_id": "q5", "text": ""}])
    rows = [
        ("q0", "d0", "1.0"), ("q0", "d3", "-2"), ("q0", "gone", "2"), ("q0", "d1", "1"),
        ("q1", "d4", "2"), ("q1", "gone too", "0"),
        ("q2", "d4", "0"), ("q2", "d5", "-1"), ("q3", "gone", "1"),
        ("q5", "d0", "1"), ("q9", "d0", "1"),
    ]  # fmt: skip
    text = "".join("\t".join(row) + "\n" for row in [("query-id", "corpus-id", "score"), *rows])
    (tmp_path / "qrels" / "test.tsv").write_text(text)
    return tmp_path


def test_one_bad_record_refuses_no_published_set(published: Path) -> None:
    data = read_beir(published)
    assert list(data.qrels) == ["q0", "q1", "q3"]
    assert data.qrels["q0"] == {"d0": 1, "d3": -2, "gone": 2, "d1": 1}
    assert list(data.searchable) == ["d0", "d2", "d3", "d4", "d5", "d8"]
    assert (len(data.documents), data.documents["d2"], data.documents["d8"]) == (9, "a title alone", "t")
    assert data.left_out == {
        "judged queries without a text": 2,
        "queries without a relevant document": 1,
        "documents without a text": 3,
        "judged documents that are not there": 2,
    }


def test_figures_are_those_of_trec_eval(published: Path) -> None:
    """Documents that cannot be found count as relevant in recall and in ideal nDCG; by hand, with k = 3."""
    task = Retrieval.from_data(read_beir(published), k=3, measures=("ndcg", "recall", "map", "mrr"))
    axes = np.eye(6)
    encoded = {
        # q0 finds d3 (not relevant), d0, d2; q1 finds d4 first; q3 finds nothing, as "gone" is its only one.
        "queries": np.array([axes[2] * 3 + axes[0] * 2 + axes[1], axes[3], axes[5]]),
        "documents": axes,
    }
    q0, q1, q3 = task.score(encoded, [6], RAW).values[0]
    second = 1 / np.log2(3)
    assert q0.tolist() == pytest.approx([second / (2 + second + 1 / 2), 1 / 3, 1 / 6, 1 / 2])
    assert q1.tolist() == [1, 1, 1, 1]
    assert q3.tolist() == [0, 0, 0, 0]


def test_grades_below_zero_are_not_relevant() -> None:
    data = RetrievalData({"q": "a"}, {"d": "x", "e": "y"}, {"q": {"d": 1, "e": -2}})
    assert (data.left_out, data.qrels) == ({}, {"q": {"d": 1, "e": -2}})
    task = Retrieval.from_data(data, k=2, measures=("ndcg", "recall"))
    vectors = {"queries": np.array([[1.0, 0.2]]), "documents": np.eye(2)[::-1].copy()}  # e is found first
    assert task.score(vectors, [2], RAW).values[0][0].tolist() == pytest.approx([1 / np.log2(3), 1])
    assert Qrels([{0: -1, 1: 2}]).relevant.tolist() == [1]


def test_documents_that_were_not_there_stay_so() -> None:
    task = Retrieval.from_data(RetrievalData({"q": "a"}, {"d": "x"}, {"q": {"d": 1, "e": 1}}), k=1)
    with pytest.raises(DataError, match="2 documents are given"):
        task.with_inputs({"queries": np.eye(2)[:1], "documents": np.eye(2)})


def test_packed_folders_and_homes(beir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        (beir / f"{name}.gz").write_bytes(gzip.compress((beir / name).read_bytes()))
        (beir / name).unlink()
    monkeypatch.setenv("HOME", str(beir.parent))
    assert read_beir(f"~/{beir.name}").documents == {"d1": "Owls\nhunt", "2": "cats"}


@pytest.mark.parametrize("header", ["query_id\tdoc_id\trelevance\n", "qid 0 docno rel\n", ""])
def test_judgements_with_and_without_names_of_columns(header: str, tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text(f"{header}q 0 d 2.0\n", encoding="utf-16")
    assert read_qrels(tmp_path / "qrels") == {"q": {"d": 2}}


TABLES = {
    "a.csv": "corpus-id,query-id,score\nd 1,q,2\ne,q,0\n",
    "b.csv": "q,d 1,2\nq,e,0\n",
    "c.tsv": '"query-id"\t"corpus-id"\t"score"\nq \td 1 \t2\nq\te\t0\n',
    "d.jsonl": '{"query_id": "q", "document_id": "d 1", "grade": 2}\n'
    '{"query_id": "q", "document_id": "e", "grade": 0}\n',
    "e.tsv": "query-id\tcorpus-id\tscore\rq\td 1\t2\rq\te\t0\r",
    "f.txt": "q\td 1 \t2\rq\te\t0",
    "qrels": "query,document,relevance\nq,d 1,2.0\nq,e,0\n",
    "h.csv": "q;0;d 1;2\nq;0;e;0\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_judgements_of_any_table(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(TABLES[name].encode())
    assert read_qrels(tmp_path / name) == {"q": {"d 1": 2, "e": 0}}


def test_judgements_of_parquet(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"query-id": [7, 7], "corpus-id": ["a", "b"], "score": [1.0, 0.0]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_qrels(tmp_path / "a.parquet") == {"7": {"a": 1, "b": 0}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "query,document,score\nq,d,0.5\n", "line 2 of .* the grade '0.5' is not a whole number"),
        ("a.jsonl", '{"query": "q", "document": "d"}', "has the columns query, document; judgements have"),
        ("a.jsonl", '{"query": "q", "document": null, "score": 1}', "line 1 of .*: None is no id"),
        ("a.jsonl", '{"query": "q", "document": "d", "score": null}', "the grade None is not a whole"),
    ],
)
def test_damaged_tables_of_judgements(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_qrels(tmp_path / name)


@pytest.mark.parametrize("part", ["queries", "documents", "qrels"])
def test_parts_are_mappings(part: str) -> None:
    parts = {"queries": {"q": "a"}, "documents": {"d": "b"}, "qrels": {"q": {"d": 1}}, part: ["a"]}
    with pytest.raises(DataError, match=f"the {part} of retrieval data must be a mapping by id, not a list"):
        RetrievalData(**parts)  # type: ignore[arg-type]


def test_ids_of_two_types_that_are_not_there() -> None:
    with pytest.raises(DataError, match="none of the 2 judged documents is there, such as 1"):
        RetrievalData({"q": "a"}, {"d": "b"}, {"q": {"x": 1, 1: 1}})  # type: ignore[dict-item]
