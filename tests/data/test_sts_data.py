"""The STS benchmark is read; its splits share no sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nestling.data import stsb
from nestling.data.pairs import TextPairs
from nestling.data.sets.sts import ScoredPairs, read_scored_pairs
from nestling.errors import ConfigError, DataError


def test_quoted_sentences_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sts").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / "sts" / f"stsb-en-{split}.csv").write_text('"a, ""b""",c,2.5\nd,é,5\n', encoding="utf-8")
    monkeypatch.setenv("NESTLING_DATA", str(tmp_path))
    pairs = stsb()
    assert (pairs.first, pairs.second) == (('a, "b"', "d"), ("c", "é"))
    assert pairs.scores.tolist() == [2.5, 5.0]
    assert pairs.scores.dtype == np.float64


@pytest.mark.parametrize(("split", "count"), [("train", 5749), ("dev", 1500), ("test", 1379)])
def test_the_real_benchmark(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, split: str, count: int
) -> None:
    monkeypatch.setenv("NESTLING_DATA", str(shared_data))
    pairs = stsb(split)
    assert len(pairs) == len(pairs.second) == len(pairs.scores) == count
    assert (pairs.scores.min(), pairs.scores.max()) == (0, 5)
    # Equal sentences are rated alike: the columns are the right ones.
    same = [s for a, b, s in zip(pairs.first, pairs.second, pairs.scores, strict=True) if a == b]
    assert not same or min(same) >= 4


def test_parts_share_no_sentence() -> None:
    rng = np.random.default_rng(0)
    first, second = ([f"sentence {n}" for n in rng.integers(400, size=200)] for _ in range(2))
    pairs = ScoredPairs(tuple(first), tuple(second), rng.random(200))
    training, validation = pairs.split(seed=1)
    assert len(training) + len(validation) == 200
    assert 10 <= len(validation) <= 40
    texts = [{*part.first, *part.second} for part in (training, validation)]
    assert not texts[0] & texts[1]
    whole = set(zip(pairs.first, pairs.second, pairs.scores, strict=True))
    assert {
        row for p in (training, validation) for row in zip(p.first, p.second, p.scores, strict=True)
    } == whole


@pytest.mark.parametrize(("count", "kept"), [(None, 3), (1, 1), (3, 3), (9, 3)])
def test_the_first_pairs(count: int | None, kept: int) -> None:
    columns = ("a", "b", "c"), ("d", "e", "f")
    scored = ScoredPairs(*columns, np.arange(3.0)).head(count)
    pairs = TextPairs(*columns, ("x", "y", "z")).head(count)
    assert (
        (scored.first, scored.second)
        == (pairs.queries, pairs.documents)
        == tuple(column[:kept] for column in columns)
    )
    assert (scored.scores.tolist(), pairs.groups) == ([0, 1, 2][:kept], ("x", "y", "z")[:kept])


def test_an_unknown_split() -> None:
    with pytest.raises(ConfigError, match="unknown split 'validation'"):
        stsb("validation")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"a,b,3\nc,d\n", "line 2 of .* does not have 3 fields"),
        (b"a,b,6\nc,d,nan\n", "column '3' must hold finite numbers, but holds 'nan' in line 2"),
        (b"a,b,score\nc,d,high\ne,f,\n", r"column 'score' .* holds 'high' in 2 lines \(2, 3\)"),
        (b"a,b,3\nc, ,3\n", "column '2' are blank in line 2"),
        (b"a,\xff,3\n", "line 1 holds the byte 0xff"),
        (
            b"v,w,x,y\na,b,c,3\n",
            "no column known to hold the first of scored pairs, but: v, w, x, y; name it",
        ),
        (b"sentence1,sentence2,x,y\na,b,c,3\n", "to hold the score of scored pairs.* with score="),
    ],
)
def test_files_that_are_no_scored_pairs(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_scored_pairs(tmp_path / "a.csv")
