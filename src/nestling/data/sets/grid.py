"""The GRID corpus: spoken sentences of a fixed grammar, with sound and the speaker's mouth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from nestling.data.sets.source import locate
from nestling.errors import DataError

_FILE = "grid_s1_400.npz"
_SILENCE = ("sil", "sp")
_ARRAYS = ("video", "audio", "transcript", "clip")


@dataclass(frozen=True)
class SpokenWord:
    """A word of a sentence, and when it is spoken, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class SpokenSentences:
    """Sentences with their sound and pictures of the mouth, all of equal length.

    Args:
        audio: ``Int16[n, samples]``.
        video: ``UInt8[n, frames, height, width]``, grey.
        words: of each sentence, in order, without silence.
        ids: of the sentences.
        sample_rate: samples in a second.
        frame_rate: pictures in a second.
    """

    audio: NDArray[np.int16]
    video: NDArray[np.uint8]
    words: tuple[tuple[SpokenWord, ...], ...]
    ids: tuple[str, ...]
    sample_rate: int = 16_000
    frame_rate: int = 25

    def __len__(self) -> int:
        return len(self.words)

    @property
    def texts(self) -> tuple[str, ...]:
        """The words of each sentence as text."""
        return tuple(" ".join(word.text for word in words) for words in self.words)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word once, sorted."""
        return tuple(sorted({word.text for words in self.words for word in words}))

    def take(self, rows: NDArray[np.intp] | slice) -> SpokenSentences:
        """Some of the sentences."""
        places = np.arange(len(self))[rows].tolist()
        return SpokenSentences(
            self.audio[rows],
            self.video[rows],
            tuple(self.words[place] for place in places),
            tuple(self.ids[place] for place in places),
            self.sample_rate,
            self.frame_rate,
        )


def grid_sentences() -> SpokenSentences:
    """400 sentences of speaker s1 of GRID, three seconds each: sound at 16 kHz, mouths of 24x48 at 25/s.

    A sentence is command, colour, preposition, letter, digit and adverb, such as ``bin blue at f two now``.
    One speaker and a closed grammar: good for comparisons, not for statements about speech recognition.

    Raises:
        DataError: if the file cannot be found, or is not what it should be.

    Source: Cooke et al. 2006, "An audio-visual corpus for speech perception".
    """
    return read_grid(locate("grid") / _FILE)


def read_grid(path: Path) -> SpokenSentences:
    """The sentences of one file of arrays.

    Raises:
        DataError: if it is missing, damaged, or holds other arrays.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            found = {name: stored[name] for name in _ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} is damaged or of another kind ({error}); get it again") from error
    audio, video = found["audio"], found["video"]
    fits = audio.ndim == 2 and audio.dtype == np.int16 and video.ndim == 4 and video.dtype == np.uint8
    if not fits or len({len(array) for array in found.values()}) > 1 or not len(audio):
        raise DataError(f"{path} holds other arrays than sound, pictures and words; get it again")
    words = tuple(read_alignment(str(line)) for line in found["transcript"])
    return SpokenSentences(audio, video, words, tuple(map(str, found["clip"])))


def read_alignment(line: str) -> tuple[SpokenWord, ...]:
    """The words of ``"start,end,word;start,end,word"``, without silence.

    Raises:
        DataError: for other text, or times that do not increase.

    >>> read_alignment("0.0,0.69,sil;0.69,0.9,bin")
    (SpokenWord(text='bin', start=0.69, end=0.9),)
    """
    found, last = [], 0.0
    for part in line.split(";"):
        start, _, rest = part.partition(",")
        end, _, text = rest.partition(",")
        try:
            word = SpokenWord(text.strip(), float(start), float(end))
        except ValueError as error:
            raise DataError(f"{part!r} is not start,end,word with times in seconds") from error
        if not last <= word.start < word.end or not word.text:
            raise DataError(f"{part!r} does not follow the words before it, or has no length or no word")
        last = word.end
        found.append(word)
    return tuple(word for word in found if word.text not in _SILENCE)
