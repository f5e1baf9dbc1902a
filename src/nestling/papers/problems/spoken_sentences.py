"""Sentences of GRID as vectors of frozen encoders: clean, and in babble of other sentences.

The encoders are trained on the words of each moment, with the training sentences alone, and then frozen, as
Whisper and AV-HuBERT are in the paper. They see babble at random ratios, and mouths that are moved and
flipped. The vectors of a training sentence are kept in several such variants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shutil import rmtree

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from nestling.data.sets.grid import SpokenSentences
from nestling.domains.speech.encoders import LipEncoder, SoundEncoder, StreamEncoder
from nestling.domains.speech.frames import FrameLoss, frame_accuracy, frame_labels
from nestling.domains.speech.mouths import around_mouths, scaled, varied
from nestling.domains.speech.noise import babble, mix, mixed_at_random
from nestling.nn.inference import evaluating
from nestling.process.blocks import blocks
from nestling.storage.artifact import read_folder, write_folder
from nestling.training import TrainConfig, fit

CONDITIONS = {"clean": math.inf, "0 dB": 0.0, "-5 dB": -5.0}
_MOUTH = (12, 24)  # pixels of a clip of 24 x 48 around the part that moves most
_RATIOS = (-5.0, 0.0, 5.0, 10.0, 15.0, 20.0, math.inf)
_SPLIT_SEED, _TEST, _DEVELOPMENT = 0, 80, 40
_FULL_SCALE = 32_768.0
_BATCH = 40

_KIND, _WEIGHTS = "spoken_encoder", "model.safetensors"


@dataclass(frozen=True)
class Effort:
    """How long the encoders are trained, and how many variants and noises there are."""

    epochs: dict[str, int]
    variants: int
    babbles: int
    talkers: int = 6

    @classmethod
    def of(cls, quick: bool) -> Effort:
        """The usual effort, or one that only shows that everything runs."""
        if quick:
            return cls({"audio": 1, "video": 1}, variants=2, babbles=2, talkers=2)
        return cls({"audio": 20, "video": 30}, variants=6, babbles=200)


class SpokenVectors:
    """The vectors of sound and mouths of a split of the sentences: train, development and test.

    Args:
        data: the sentences.
        quick: few sentences and epochs.
        folder: of the trained encoders, so that they are trained once; None trains them at each use.
    """

    def __init__(self, data: SpokenSentences, *, quick: bool, folder: Path | None = None) -> None:
        self._effort, self._folder = Effort.of(quick), folder
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(data))
        test, development = (4, 4) if quick else (_TEST, _DEVELOPMENT)
        kept = order[: 16 + test + development] if quick else order
        ends = (len(kept) - test - development, len(kept) - test)
        self.parts = {
            "train": data.take(np.sort(kept[: ends[0]])),
            "development": data.take(np.sort(kept[ends[0] : ends[1]])),
            "test": data.take(np.sort(kept[ends[1] :])),
        }
        self._vocabulary = data.vocabulary
        self._variants: dict[str, Tensor] = {}
        self._vectors: dict[tuple[str, str, str], Tensor] = {}
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.encoders: dict[str, StreamEncoder] = {"audio": SoundEncoder(), "video": LipEncoder()}
            self._heads = {
                stream: FrameLoss(encoder.width, 1 + len(data.vocabulary), vary=self._vary(stream))
                for stream, encoder in self.encoders.items()
            }

    def texts(self, part: str) -> list[str]:
        """The sentences of a part."""
        return list(self.parts[part].texts)

    def accuracies(self) -> dict[str, float]:
        """Percent of the moments of words of test sentences that each trained encoder names."""
        found = {}
        for stream in self.encoders:
            for name, snr_db in (CONDITIONS if stream == "audio" else {"clean": math.inf}).items():
                given, classes = self._stream("test", stream, snr_db), self._labels("test", stream)
                accuracy = frame_accuracy(self._trained(stream), self._heads[stream].head, given, classes)
                found[f"{stream}, {name}"] = accuracy["words"]
        return found

    def variants(self, stream: str) -> Tensor:
        """Variants of the training sentences, ``Float[variants, n, frames, width]``."""
        if stream not in self._variants:
            vary = self._vary(stream, torch.Generator().manual_seed(1))
            encoder, given = self._trained(stream), self._stream("train", stream)
            drawn = [_encoded(encoder, given, vary) for _ in range(self._effort.variants)]
            self._variants[stream] = torch.stack(drawn)
        return self._variants[stream]

    def vectors(self, part: str, stream: str, condition: str) -> Tensor:
        """The vectors ``Float[n, frames, width]`` of a part, with babble in the sound."""
        key = (part, stream, condition if stream == "audio" else "")
        if key not in self._vectors:
            given = self._stream(part, stream, CONDITIONS[condition])
            self._vectors[key] = _encoded(self._trained(stream), given)
        return self._vectors[key]

    def forget(self) -> None:
        """Delete the stored encoders, as all is measured."""
        if self._folder is not None:
            rmtree(self._folder, ignore_errors=True)

    def _trained(self, stream: str) -> StreamEncoder:
        """An encoder; it is trained at the first use, unless an earlier run did."""
        encoder, objective = self.encoders[stream], self._heads[stream]
        if not any(weight.requires_grad for weight in encoder.parameters()):
            return encoder
        parts = nn.ModuleDict({"encoder": encoder, "head": objective.head})
        folder = None if self._folder is None else self._folder / stream
        if folder is not None and folder.exists():
            read_folder(folder, _KIND)
            load_model(parts, str(folder / _WEIGHTS))
        else:
            self._fit(stream, encoder, objective)
        parts.eval().requires_grad_(False)
        if folder is not None and not folder.exists():
            with write_folder(folder, _KIND) as target:
                save_model(parts, str(target / _WEIGHTS))
        return encoder

    def _fit(self, stream: str, encoder: StreamEncoder, objective: FrameLoss) -> None:
        sound = stream == "audio"
        config = TrainConfig(
            epochs=self._effort.epochs[stream],
            batch_size=16,
            lr=3e-3 if sound else 2e-3,
            weight_decay=0.01 if sound else 0.05,
        )
        fit(encoder, objective, (self._stream("train", stream), self._labels("train", stream)), config)

    def _stream(self, part: str, stream: str, snr_db: float = math.inf) -> Tensor:
        """The input of an encoder; noise of a part is the same at every ratio."""
        if stream == "video":
            return scaled(around_mouths(torch.from_numpy(self.parts[part].video), *_MOUTH))
        speech = _waves(self.parts[part])
        if math.isinf(snr_db):
            return torch.from_numpy(speech)
        first = 1_000 if part == "test" else 2_000
        return torch.from_numpy(mix(speech, self._babbles(range(first, first + len(speech))), snr_db))

    def _babbles(self, seeds: range) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """Babble of training sentences, a row for each seed."""
        pool = list(_waves(self.parts["train"]))
        return np.stack(
            [babble(pool, len(pool[0]), talkers=self._effort.talkers, seed=each) for each in seeds]
        )

    @cached_property
    def _training_babbles(self) -> Tensor:
        return torch.from_numpy(self._babbles(range(self._effort.babbles)))

    def _vary(self, stream: str, generator: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        drawn = torch.default_generator if generator is None else generator
        if stream == "video":
            return lambda clips: varied(clips, drawn)
        return lambda sound: mixed_at_random(sound, self._training_babbles, _RATIOS, drawn)

    def _labels(self, part: str, stream: str) -> Tensor:
        data, rate = self.parts[part], self.encoders[stream].per_second
        seconds = data.video.shape[1] / data.frame_rate
        rows = [
            frame_labels(words, self._vocabulary, per_second=rate, count=round(seconds * rate))
            for words in data.words
        ]
        return torch.from_numpy(np.stack(rows))


def _waves(data: SpokenSentences) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return data.audio.astype(np.float32) / _FULL_SCALE


def _encoded(
    encoder: StreamEncoder, given: Tensor, vary: Callable[[Tensor], Tensor] = lambda stream: stream
) -> Tensor:
    def parts() -> Iterator[Tensor]:
        for rows in blocks(len(given), _BATCH):
            yield encoder(vary(given[rows])).values

    with evaluating(encoder):
        return torch.cat(list(parts()))
