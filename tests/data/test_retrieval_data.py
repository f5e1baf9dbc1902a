from __future__ import annotations

import json
from pathlib import Path

import pytest

from nestling.data import RetrievalData, cranfield, read_beir, read_qrels, read_run, xquad
from nestling.data.retrieval_sets import read_squad
from nestling.errors import DataError

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
        ("cranqrel", "9 1 1\n", "the qrels judge query '9', which the data do not hold"),
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
        ("corpus.jsonl", '{"id": "d1", "text": "x"}', 'line 1 of .* has no "_id" or no "text"'),
        ("corpus.jsonl", '{"_id": "d1", "text": 3}', 'line 1 of .* has no "_id" or no "text"'),
        (
            "corpus.jsonl",
            '{"_id": "d1", "text": "x"}\n{"_id": "d1", "text": "y"}',
            "line 2 of .* repeats the id 'd1'",
        ),
        ("corpus.jsonl", '{"_id": "d1", "text": "x"}', "judge document '2', which the data do not hold"),
        ("corpus.jsonl", '{"_id": "d1"', "line 1 of .* is not JSON"),
        ("queries.jsonl", '{"_id": "q2", "text": "x"}', "hold no queries"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", "holds no judgements"),
        ("qrels/test.tsv", "q1\td1\n", "line 1 of .* has 2 columns; judgements have"),
        ("qrels/test.tsv", "q1\td1\tgood\n", "line 1 of .*: the grade 'good' is not a whole number"),
        ("qrels/test.tsv", "q1\td1\t1\nq1\td1\t2\n", "line 2 of .* judges document 'd1' of query 'q1' anew"),
        ("qrels/test.tsv", "q1\td1\t0\n", "no document is relevant .* to query 'q1'"),
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
        (({"q": "x"}, {"d": "x"}, {"p": {"d": 1}, "r": {"d": 1}}), r"judge 2 queries \('p', 'r'\)"),
        (({"q": "x"}, {"d": "x"}, {"q": {"e": 1}}), "judge document 'e'"),
        (({"q": "x"}, {"d": "x"}, {"q": {"d": 0}}), "no document is relevant"),
    ],
)
def test_parts_that_do_not_fit(parts: tuple[dict[str, str], ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        RetrievalData(*parts)  # type: ignore[arg-type]
