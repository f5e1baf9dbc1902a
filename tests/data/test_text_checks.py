"""One door for texts: every entry that takes them refuses what cannot be encoded, in our words."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pyarrow
import pytest

from nestling.data import RetrievalData, TextPairs, pairs_from_texts, read_texts
from nestling.data.sets.sts import ScoredPairs
from nestling.data.tables.text_checks import check_texts
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import DataError
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import STS, Retrieval

GOOD = ["one two three four five six", "a second text of several words", "ä third"]


@pytest.mark.parametrize(
    "given",
    [GOOD, tuple(GOOD), np.array(GOOD), pandas.Series(GOOD), pyarrow.array(GOOD), (text for text in GOOD)],
)
def test_every_form_is_the_same_list(given: object) -> None:
    assert check_texts(given) == GOOD  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.open("wordllama")


def of_file(_: TextEncoder, texts: list[object], tmp_path: object) -> object:
    path = tmp_path / "a.jsonl"  # type: ignore[operator]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return read_texts(path)


ENTRIES = {
    "call": lambda encoder, texts, _: encoder(texts),
    "encode": lambda encoder, texts, _: encoder.encode(texts),
    "encode_each": lambda encoder, texts, _: encoder.encode_each(texts),
    "pairs": lambda _, texts, __: TextPairs(GOOD, texts),
    "scored": lambda _, texts, __: ScoredPairs(texts, GOOD, np.arange(3.0)),
    "paired": lambda _, texts, __: pairs_from_texts(texts),
    "sts": lambda encoder, texts, _: sweep(encoder, STS(GOOD, texts, [1, 2, 3])),
    "retrieval": lambda encoder, texts, _: sweep(encoder, Retrieval(GOOD, texts, [0, 1, 2], k=1)),
    "file": of_file,
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("torn \ud83d pair of some more words", r"lone surrogate U\+D83D\) in (row 1|line 2)"),
        ("bytes \udcff of a command line, no UTF-8", r"lone surrogate U\+DCFF\) in (row 1|line 2)"),
        (1.5, "(row 1|line 2) holds a float"),
        (["a", "list"], "(row 1|line 2) holds a list"),
    ],
)
def test_every_entry_names_the_row(
    entry: str, text: object, message: str, encoder: TextEncoder, tmp_path: object
) -> None:
    with pytest.raises(DataError, match=message):
        ENTRIES[entry](encoder, [GOOD[0], text, GOOD[1]], tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("one text", r"not one text; write \[text\]"),
        (b"bytes", "not one text"),
        ({"a": 1}, "not a dict"),
        ({"a", "b"}, "not a set"),
        (7, "not an int"),
        (["a", " \n"], "blank in row 1"),
        (["a", None, b"c"], r"2 rows \(1, 2\) hold a NoneType"),
    ],
)
def test_what_is_no_list_of_texts(given: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_texts(given)  # type: ignore[arg-type]


def test_a_torn_document_refuses_no_collection() -> None:
    data = RetrievalData({"q": "a"}, {"d": "b", "e": "torn \ud83d"}, {"q": {"d": 1, "e": 1}})
    assert (list(data.searchable), data.left_out) == (["d"], {"documents without a text": 1})
