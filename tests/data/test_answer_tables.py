"""Tables of questions about pictures, and of recordings: columns by name, files from the table's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nestling.data import PictureQuestions, Transcripts, read_questions, read_transcripts
from nestling.data.sets.source import where
from nestling.errors import DataError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number, colour in enumerate(("red", "blue")):
        Image.new("RGB", (4, 3), colour).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


def test_questions_are_read_by_usual_or_given_names(place: Path) -> None:
    (place / "usual.csv").write_text(
        "Image,Question,Answer\nphotos/0.png,what?,red\nphotos/1.png,what?,blue\n"
    )
    found = read_questions(place / "usual.csv")
    assert (found.questions, found.answers, found.choices) == (("what?", "what?"), ("red", "blue"), ())
    assert [picture.getpixel((0, 0)) for picture in found.pictures([1, 0])] == [(0, 0, 255), (255, 0, 0)]
    (place / "own.jsonl").write_text(
        '{"f": "photos/0.png", "q": "what?", "a": "red", "options": ["red", "blue"]}\n'
    )
    own = read_questions(place / "own.jsonl", image="f", question="q", answer="a")
    assert own.choices == (("red", "blue"),)
    assert len(own[:1]) == len(own.head(None)) == 1
    with pytest.raises(DataError, match="no column known to hold the image, but: f, q, a, options"):
        read_questions(place / "own.jsonl")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("none.png,what?,red,red|blue", "line 2 that do not exist"),
        ("photos/0.png,,red,red|blue", "line 2"),
        ("photos/0.png,what?,green,red|blue", "the answer 'green' and the choices 'red', 'blue'"),
        ("photos/0.png,what?,red,red", "at least two"),
    ],
)
def test_a_wrong_row_is_named(place: Path, row: str, words: str) -> None:
    (place / "wrong.csv").write_text(f"image,question,answer,choices\n{row}\n")
    with pytest.raises(DataError, match=words.replace("|", r"\|")):
        read_questions(place / "wrong.csv")


def test_a_file_that_is_no_picture_is_named(place: Path) -> None:
    (place / "bad.png").write_bytes(b"no picture")
    questions = PictureQuestions((place / "bad.png",), ("what?",), ("red",))
    with pytest.raises(DataError, match=r"bad\.png is missing, or not a picture"):
        questions.pictures([0])
    with pytest.raises(DataError, match="each picture needs a question"):
        PictureQuestions((place / "bad.png",), ("what?",), ())


def test_sound_is_scaled_and_needs_a_text() -> None:
    sounds = (np.array([0, 16_384, -32_768], np.int16),)
    assert Transcripts(sounds, ("zero",), 8_000).audio([0])[0].tolist() == [0, 0.5, -1]
    with pytest.raises(DataError, match="each recording needs its text"):
        Transcripts(sounds, (), 8_000)


@pytest.mark.skipif(where("fsdd") is None, reason="the spoken digits are not in NESTLING_DATA")
def test_public_recordings_have_a_name() -> None:
    digits = read_transcripts("fsdd", split="test")
    assert (len(digits), digits.texts[0], digits.sample_rate) == (300, "zero", 8_000)
