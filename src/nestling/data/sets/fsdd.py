"""The Free Spoken Digit Dataset: digits that six people say, as short recordings."""

from __future__ import annotations

import re
import wave
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from nestling.data.sets.source import locate
from nestling.errors import ConfigError, DataError, unknown

_SPLITS = ("train", "test")
_TEST_INDICES = 5
_NAME = re.compile(r"(?:.*/)?(\d)_([a-z]+)_(\d+)\.wav")


@dataclass(frozen=True)
class SpokenDigits:
    """Recordings of single digits.

    Args:
        audio: ``Int16[samples]`` of each recording.
        labels: ``Int64[n]``, the digit.
        speakers: of the recordings.
        sample_rate: samples in a second.
    """

    audio: tuple[NDArray[np.int16], ...]
    labels: NDArray[np.int64]
    speakers: NDArray[np.str_]
    sample_rate: int

    def __len__(self) -> int:
        return len(self.labels)


def spoken_digits(split: str = "train") -> SpokenDigits:
    """2,700 (``"train"``) or 300 (``"test"``) recordings at 8 kHz, from 0.1 to 2.3 seconds long.

    Recordings 0 to 4 of each speaker and digit are for testing, as the makers of the data set say.

    Raises:
        ConfigError: for another split.
        DataError: if the file cannot be found, or is not what it should be.

    Source: Jackson et al., "Free Spoken Digit Dataset".
    """
    if split not in _SPLITS:
        raise ConfigError(unknown("split", split, _SPLITS))
    return read_digits(locate("fsdd") / "recordings.zip", split)


def read_digits(path: Path, split: str) -> SpokenDigits:
    """The recordings of one split in a zip file of ``{digit}_{speaker}_{index}.wav``.

    Raises:
        DataError: if the file is missing or damaged, or recordings have different sample rates.
    """
    audio, labels, speakers, rates = [], [], [], set()
    try:
        with ZipFile(path) as stored:
            for name in sorted(stored.namelist()):
                match = _NAME.fullmatch(name)
                if match is None or (int(match[3]) < _TEST_INDICES) != (split == "test"):
                    continue
                samples, rate = read_wav(stored.read(name), name)
                audio.append(samples)
                labels.append(int(match[1]))
                speakers.append(match[2])
                rates.add(rate)
    except (OSError, BadZipFile) as error:
        raise DataError(f"{path} is missing, damaged or no zip file ({error}); get it again") from error
    if not audio or len(rates) > 1:
        raise DataError(f"{path} holds {len(audio)} recordings of this split at the sample rates {rates}")
    return SpokenDigits(tuple(audio), np.array(labels, np.int64), np.array(speakers), rates.pop())


def read_wav(data: bytes, name: str = "the recording") -> tuple[NDArray[np.int16], int]:
    """Samples and sample rate of a wav file of one channel and 16 bits.

    Raises:
        DataError: for a damaged file, no samples, or another format.
    """
    try:
        with wave.open(BytesIO(data)) as sound:
            channels, width, rate = sound.getnchannels(), sound.getsampwidth(), sound.getframerate()
            raw = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError) as error:
        raise DataError(f"{name} is not a wav file, or is damaged ({error})") from error
    if channels != 1 or width != 2 or not raw or len(raw) % 2:
        raise DataError(
            f"{name} has {channels} channels of {8 * width} bits and {len(raw)} bytes; give one channel of "
            "16 bits with at least one sample"
        )
    return np.frombuffer(raw, "<i2").astype(np.int16), rate
