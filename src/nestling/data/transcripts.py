"""Recordings of speech with what is said."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestling.data.sets.fsdd import read_wav, spoken_digits
from nestling.data.sets.grid import grid_sentences
from nestling.data.tables.delimited import header
from nestling.data.tables.files import files_of, role_column
from nestling.data.tables.table import read_table
from nestling.errors import DataError

SETS = ("fsdd", "grid")
"""Public data sets that may be named in the place of a table."""
_AUDIO = ("audio", "recording", "sound", "file", "path", "file_name", "wav")
_TEXTS = ("text", "transcript", "sentence", "transcription")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_FULL_SCALE = 32_768.0
_GRID_TEST = 80
_SPLIT = {"train": slice(None, -_GRID_TEST), "test": slice(-_GRID_TEST, None)}

Sound = Path | NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Transcripts:
    """Recordings of one channel, and the text of each.

    Args:
        sounds: ``Int16[samples]`` of each, or wav files of 16 bits, which are read when they are needed.
        texts: one a recording.
        sample_rate: samples in a second.

    Raises:
        DataError: for none, or different lengths.
    """

    sounds: tuple[Sound, ...]
    texts: tuple[str, ...]
    sample_rate: int

    def __post_init__(self) -> None:
        if len(self.sounds) != len(self.texts) or not self.texts:
            raise DataError("each recording needs its text, and there must be at least one")

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: slice) -> Transcripts:
        return replace(self, sounds=self.sounds[rows], texts=self.texts[rows])

    def head(self, count: int | None) -> Transcripts:
        """The first ``count`` recordings; all, if there are fewer or ``count`` is None."""
        return self[:count]

    def audio(self, rows: Sequence[int]) -> list[NDArray[np.float32]]:
        """The sound of some rows, from -1 to 1.

        Raises:
            DataError: for a file that is no such recording.
        """
        sounds = [self.sounds[row] for row in rows]
        samples = [read_sound(each) if isinstance(each, Path) else each for each in sounds]
        return [each.astype(np.float32) / _FULL_SCALE for each in samples]

    def check_seconds(self, least: float, why: str) -> None:
        """Refuse recordings that are too short; of files only the headers are read.

        Args:
            least: seconds.
            why: for what they are too short, in errors.

        Raises:
            DataError: naming the shortest.
        """
        samples = [header_of(each)[0] if isinstance(each, Path) else len(each) for each in self.sounds]
        shortest = int(np.argmin(samples))
        seconds, sound = samples[shortest] / self.sample_rate, self.sounds[shortest]
        if seconds < least:
            name = sound if isinstance(sound, Path) else f"recording {shortest}"
            raise DataError(
                f"{name} has {seconds:.2f} seconds of sound, too short for {why}: at least {least:g} "
                "seconds; use smaller rates, or leave it out"
            )


def header_of(path: Path) -> tuple[int, int]:
    """Number of samples and sample rate of a wav file.

    Raises:
        DataError: for a file that is missing, or another kind of file.
    """
    try:
        with wave.open(str(path)) as sound:
            return sound.getnframes(), sound.getframerate()
    except (OSError, wave.Error, EOFError) as error:
        raise DataError(f"{path} is not a wav file, or is damaged ({error})") from error


def read_sound(path: Path) -> NDArray[np.int16]:
    """Samples of a wav file of one channel and 16 bits.

    Raises:
        DataError: for a file that is missing, damaged or of another format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    return read_wav(data, str(path))[0]


def read_transcripts(
    path: str | Path, audio: str | None = None, text: str | None = None, *, split: str = "train"
) -> Transcripts:
    """Recordings with their texts: a table of wav files, or a public data set by its name.

    Columns that are not named are found by their usual names: ``audio`` and ``text``. Files are named as
    seen from the folder of the table.

    Args:
        path: a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file; ``fsdd``, single digits; or ``grid``,
            sentences of one speaker, of which the last 80 are for testing.
        audio: its column of files.
        text: its column of texts.
        split: ``"train"`` or ``"test"``, of a public data set.

    Raises:
        DataError: if the file cannot be read, a column is missing, texts are blank, or recordings do not
            exist or have different sample rates.
    """
    if str(path) == "fsdd":
        digits = spoken_digits(split)
        return Transcripts(digits.audio, tuple(_DIGITS[label] for label in digits.labels), digits.sample_rate)
    if str(path) == "grid":
        sentences = grid_sentences().take(_SPLIT[split])
        return Transcripts(tuple(sentences.audio), sentences.texts, sentences.sample_rate)
    table = read_table(path, header(audio, text))
    files = files_of(table, role_column(table, "audio", audio, _AUDIO))
    texts = tuple(table.texts(role_column(table, "text", text, _TEXTS)))
    return Transcripts(files, texts, _common_rate(files))


def _common_rate(files: Sequence[Path]) -> int:
    """The sample rate of all files, by their headers."""
    rates = [header_of(path)[1] for path in files]
    other = next((place for place, rate in enumerate(rates) if rate != rates[0]), None)
    if other is not None:
        raise DataError(
            f"{files[other]} has {rates[other]} samples a second, and {files[0]} {rates[0]}; resample all "
            "recordings to one rate"
        )
    return rates[0]
