"""Spoken sentences and digits are read; files in other formats are refused."""

from __future__ import annotations

import wave
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from nestling.data import grid_sentences, spoken_digits
from nestling.data.sets.fsdd import read_wav
from nestling.data.sets.grid import read_alignment
from nestling.data.sets.source import where
from nestling.errors import ConfigError, DataError


def wav(samples: np.ndarray, rate: int = 8000, channels: int = 1) -> bytes:
    target = BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.astype("<i2").tobytes())
    return target.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sentences and some digits, made on the spot."""
    for name in ("grid", "fsdd"):
        (tmp_path / name).mkdir()
    np.savez(
        tmp_path / "grid" / "grid_s1_400.npz",
        audio=np.arange(2 * 160, dtype=np.int16).reshape(2, 160),
        video=np.zeros((2, 3, 24, 48), np.uint8),
        transcript=np.array(["0.0,0.1,sil;0.1,0.2,bin;0.2,0.3,blue", "0.0,0.1,set;0.1,0.2,sp;0.2,0.3,red"]),
        clip=np.array(["a", "b"]),
    )
    with ZipFile(tmp_path / "fsdd" / "recordings.zip", "w") as target:
        for index in range(7):
            target.writestr(f"recordings/3_theo_{index}.wav", wav(np.full(10 + index, index)))
        target.writestr("recordings/readme.txt", "not a recording")
    monkeypatch.setenv("NESTLING_DATA", str(tmp_path))
    return tmp_path


def test_sentences_have_words_with_times_and_no_silence(folder: Path) -> None:
    data = grid_sentences()
    assert data.texts == ("bin blue", "set red")
    assert data.vocabulary == ("bin", "blue", "red", "set")
    assert [(word.text, word.start, word.end) for word in data.words[0]] == [
        ("bin", 0.1, 0.2),
        ("blue", 0.2, 0.3),
    ]
    some = data.take(np.array([1]))
    assert (len(some), some.texts, some.ids) == (1, ("set red",), ("b",))
    assert np.array_equal(some.audio, data.audio[1:])


def test_digits_are_split_by_their_index(folder: Path) -> None:
    train, test = spoken_digits("train"), spoken_digits("test")
    assert (len(train), len(test), train.sample_rate) == (2, 5, 8000)
    assert [len(each) for each in train.audio] == [15, 16]
    assert set(train.labels.tolist()) == {3}
    assert set(train.speakers.tolist()) == {"theo"}
    with pytest.raises(ConfigError, match="did you mean 'test'"):
        spoken_digits("tets")


@pytest.mark.parametrize("line", ["0.0,0.1", "a,0.1,bin", "0.2,0.1,bin", "0.0,0.2,bin;0.1,0.3,now", "0,1,"])
def test_a_damaged_alignment_is_refused(line: str) -> None:
    with pytest.raises(DataError, match=r"start,end,word|follow"):
        read_alignment(line)


@pytest.mark.parametrize("change", ["missing", "torn", "other"])
def test_a_damaged_file_of_sentences_is_refused(folder: Path, change: str) -> None:
    path = folder / "grid" / "grid_s1_400.npz"
    if change == "other":
        np.savez(path, audio=np.zeros(3), video=np.zeros(3), transcript=np.zeros(3), clip=np.zeros(3))
    elif change == "torn":
        path.write_bytes(path.read_bytes()[:200])
    else:
        np.savez(path, audio=np.zeros(3))
    with pytest.raises(DataError, match="get it again"):
        grid_sentences()


def test_a_damaged_zip_of_digits_is_refused(folder: Path) -> None:
    path = folder / "fsdd" / "recordings.zip"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="no zip file"):
        spoken_digits()


@pytest.mark.parametrize("data", [b"RIFF", wav(np.zeros(4), channels=2), wav(np.zeros(0))])
def test_another_format_of_sound_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"wav file|one channel"):
        read_wav(data)


@pytest.mark.skipif(where("grid") is None, reason="the GRID sentences are not in NESTLING_DATA")
def test_the_real_sentences_follow_their_grammar() -> None:
    data = grid_sentences()
    assert (data.audio.shape, data.video.shape) == ((400, 48_000), (400, 75, 24, 48))
    assert {len(words) for words in data.words} == {6}
    assert len(data.vocabulary) == 51
    assert {words[0].text for words in data.words} == {"bin", "lay", "place", "set"}


@pytest.mark.skipif(where("fsdd") is None, reason="the spoken digits are not in NESTLING_DATA")
def test_the_real_digits_are_balanced() -> None:
    data = spoken_digits("test")
    assert (len(data), data.sample_rate, len(set(data.speakers.tolist()))) == (300, 8000, 6)
    assert np.bincount(data.labels).tolist() == [30] * 10
