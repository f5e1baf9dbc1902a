"""``nestling search``: words and vectors of them get the same answers, of a collection and of an index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from commands import run
from nestling.domains.text.collection import Collection
from nestling.encoders.text.opening import open_encoder
from nestling.search.index.index import AdaptiveIndex
from nestling.vectors.stored import StoredVectors

TEXTS = ["a cat sleeps on the roof", "the ship left the harbour", "knead the dough and bake"]
ASKED = ["baking a loaf", "boats at sea"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    encoder = open_encoder("wordllama")
    fields = {"year": [2001, 2010, None]}
    Collection.create(folder / "c", encoder, TEXTS, ["c", "s", "b"], fields=fields).close()
    vectors = encoder.encode(ASKED)
    np.save(folder / "q.npy", vectors)
    StoredVectors(vectors, encoder.nesting, encoder.rule.again, encoder="wordllama").save(folder / "q")
    unknown = encoder.encode(TEXTS)[:, :64]
    AdaptiveIndex.create(folder / "cut", unknown, fields={"title": TEXTS}).close()
    return folder


@pytest.mark.parametrize("queries", ["q.npy", "q"])
def test_vectors_get_the_answers_of_their_words_from_a_collection(queries: str, place: Path) -> None:
    by_vectors = run("search", place / "c", "--vectors", place / queries, "--where", "year>=2000", "--json")
    words = [run("search", place / "c", each, "--where", "year>=2000", "--json") for each in ASKED]
    assert json.loads(by_vectors.stdout) == [json.loads(each.stdout) for each in words]
    shown = run("search", place / "c", "--vectors", place / queries).stdout
    parts = [run("search", place / "c", each).stdout for each in ASKED]
    assert shown == f"query 0\n{parts[0]}query 1\n{parts[1]}"


def test_a_collection_in_codes_is_searched_at_fewer_bits(place: Path) -> None:
    encoder = open_encoder("wordllama")
    texts = [f"{text}, {number}" for number in range(100) for text in TEXTS]
    with Collection.create(place / "codes", encoder, texts, at="dim=64,bits=4"):
        pass
    coarse = run("search", place / "codes", ASKED[0], "--at", "dim=64,bits=1", "--k", 1)
    assert coarse.exit_code == 0
    assert "dough" in coarse.stdout
    refused = run("search", place / "codes", ASKED[0], "--at", "bits=8")
    assert "dim=64,bits=8 is outside the nesting dim=64 x bits=1,2,3,4" in str(refused.exception)


def test_fields_are_shown_for_queries_that_are_vectors(place: Path) -> None:
    np.save(place / "short.npy", np.load(place / "q.npy")[:1, :64])
    shown = run("search", place / "cut", "--vectors", place / "short.npy", "--k", 1).stdout.splitlines()
    assert shown[0] == "query 0"
    assert shown[1].endswith("  2")
    assert shown[2].strip() == f"title={TEXTS[2]}"


def test_the_query_may_come_through_standard_input(place: Path) -> None:
    piped = run("search", place / "c", "-", input=f"{ASKED[0]}\nanother line\n")
    assert piped.stdout == run("search", place / "c", ASKED[0]).stdout
    assert "the query is empty" in str(run("search", place / "c", "-", input="\n").exception)


def test_words_and_vectors_are_not_given_both(place: Path) -> None:
    told = run("search", place / "c", "words", "--vectors", place / "q.npy")
    assert "not both" in str(told.exception)


def test_words_are_not_cut_to_the_size_of_vectors_whose_maker_is_unknown(place: Path) -> None:
    told = run("search", place / "cut", "words", "--encoder", "wordllama")
    assert "wordllama makes vectors of 256 dims" in str(told.exception)
    assert "have 64" in str(told.exception)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("search texts.csv x", "texts.csv is a file, and not a folder saved by nestling"),
        ("index info texts.csv", "texts.csv is a file, and not a folder saved by nestling"),
        ("index info none", "none does not exist"),
        ("index verify none", "none does not exist"),
        ("index compact none", "none does not exist"),
        ("index delete none 1", "none does not exist"),
        (
            "index add c texts.csv",
            "id 's' is in the index already; replace rows with update",
        ),
        (
            "index update c years.csv",
            "id 'z' is not in the index; give texts (the column 'title')",
        ),
        ("search c x --where sku=s", "'sku' holds the ids of the rows, which are no field"),
        ("search c x --where YEAR=2001", "unknown field 'YEAR'; did you mean 'year'"),
    ],
)
def test_what_a_newcomer_gets_wrong_is_named(
    line: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.csv").write_text("sku,title,year\ns,the ship left the harbour,2001\n", encoding="utf-8")
    Path("years.csv").write_text("sku,year\nz,2002\n", encoding="utf-8")
    built = run(
        *[
            "index",
            "build",
            "texts.csv",
            "--encoder",
            "wordllama",
            "--column",
            "title",
            "--id-column",
            "sku",
            "-o",
            "c",
        ]
    )
    assert "1 segment, 0 rows in no segment yet" in built.stdout
    assert words in str(run(*line.split()).exception)
