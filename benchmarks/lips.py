"""Accuracy of lip encoders trained in several ways on 320 sentences of one speaker.

Percent of the moments of words, in 80 other sentences of GRID, that are named among 51 words from pictures of
24x48 pixels, after so many epochs. "Or alike" also counts words whose mouths look the same, such as b and p.
"Letters" are the 25 letters alone, which no grammar gives away.

Run: python benchmarks/lips.py [--tries NAME ...]
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nestling.data import grid_sentences
from nestling.data.sets.grid import SpokenSentences, SpokenWord
from nestling.domains.speech.encoders import LipEncoder, StreamEncoder
from nestling.domains.speech.frames import SILENCE, FrameLoss, frame_classes, frame_labels
from nestling.domains.speech.mouths import around_mouths, scaled, varied
from nestling.training import TrainConfig, fit
from record import Results, arguments, parsed

BATCH, EVERY, TEST, SEED = 16, 5, 80, 0

SOUNDS = {
    "V1": "ao ah aa er oy aw hh",
    "V2": "uw uh ow",
    "V3": "ae eh ey ay",
    "V4": "ih iy",
    "A": "l r y",
    "B": "s z",
    "C": "t d n",
    "D": "sh zh ch jh",
    "E": "p b m",
    "F": "th dh",
    "G": "f v",
    "H": "ng k g w",
}
"""The phonemes of each viseme (Neti et al. 2000, "Audio-visual speech recognition"; LipNet uses them too)."""

SPOKEN = """
a ey; again ah g eh n; at ae t; b b iy; bin b ih n; blue b l uw; by b ay; c s iy; d d iy; e iy; eight ey t;
f eh f; five f ay v; four f ao; g jh iy; green g r iy n; h ey ch; i ay; in ih n; j jh ey; k k ey; l eh l;
lay l ey; m eh m; n eh n; nine n ay n; now n aw; o ow; one w ah n; p p iy; place p l ey s; please p l iy z;
q k y uw; r aa; red r eh d; s eh s; set s eh t; seven s eh v ah n; six s ih k s; soon s uw n; t t iy;
three th r iy; two t uw; u y uw; v v iy; white w ay t; with w ih dh; x eh k s; y w ay; z z eh d;
zero z ih r ow
"""
"""The phonemes of the words of GRID, as a British speaker says them."""


def visemes() -> dict[str, tuple[str, ...]]:
    """The visemes of each word."""
    seen = {sound: viseme for viseme, sounds in SOUNDS.items() for sound in sounds.split()}
    spoken = [entry.split() for entry in SPOKEN.split(";")]
    return {word: tuple(seen[sound] for sound in sounds) for word, *sounds in spoken}


@dataclass(frozen=True)
class Try:
    """One way of training."""

    epochs: int = 30
    shift: int = 3
    mask: float = 0.2
    contrast: float = 0.2
    is_varied: bool = True
    is_cropped: bool = False
    visemes: float = 0.0
    channels: int = 16
    width: int = 128
    dropout: float = 0.3


TRIES = {
    "flips, shifts, light, masks": Try(),
    "no variation": Try(is_varied=False),
    "visemes": Try(visemes=0.5),
    "crops": Try(is_cropped=True),
    "crops, visemes": Try(is_cropped=True, visemes=0.5),
    "crops, visemes, more variation": Try(
        epochs=60, is_cropped=True, visemes=0.5, shift=4, mask=0.3, dropout=0.4
    ),
    "crops, visemes, wider": Try(is_cropped=True, visemes=0.5, channels=24, width=192),
}
CROP = (12, 24)


class WithVisemes(nn.Module):
    """The loss of words, and a share of the loss of visemes, of one encoding.

    An objective of :func:`nestling.training.fit`, for batches (stream, words, visemes).
    """

    def __init__(self, tried: Try, words: int) -> None:
        super().__init__()
        self.tried = tried
        self.words = FrameLoss(tried.width, words)
        self.visemes = FrameLoss(tried.width, 1 + len(SOUNDS))

    def forward(self, model: StreamEncoder, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The mean loss of a batch."""
        stream, words, parts = batch
        encoded = model(self.varied(stream))
        loss: Tensor = self.words(lambda _: encoded, (stream, words))
        if self.tried.visemes:
            loss = loss + self.tried.visemes * self.visemes(lambda _: encoded, (stream, parts))
        return loss

    def varied(self, stream: Tensor) -> Tensor:
        """The clips of a batch, changed at random unless the try does without."""
        tried = self.tried
        if not tried.is_varied:
            return stream
        drawn = torch.default_generator
        return varied(stream, drawn, shift=tried.shift, contrast=tried.contrast, mask=tried.mask)


def parts_of(word: SpokenWord) -> list[SpokenWord]:
    """The visemes of a word, of equal length, as no one has marked where they begin."""
    names = visemes()[word.text]
    ends = np.linspace(word.start, word.end, len(names) + 1)
    return [SpokenWord(*part) for part in zip(names, ends[:-1], ends[1:], strict=True)]


def labels(data: SpokenSentences) -> tuple[Tensor, Tensor]:
    """The word and the viseme of each frame."""

    def rows(sentences: Sequence[Sequence[SpokenWord]], names: Sequence[str]) -> Tensor:
        count = data.video.shape[1]
        found = [frame_labels(words, names, per_second=data.frame_rate, count=count) for words in sentences]
        return torch.from_numpy(np.stack(found))

    parts = [[part for word in words for part in parts_of(word)] for words in data.words]
    return rows(data.words, data.vocabulary), rows(parts, tuple(SOUNDS))


def shares(found: Tensor, classes: Tensor, vocabulary: Sequence[str]) -> dict[str, str]:
    """Percent of the moments of words, and of letters, that are named right."""
    looks = visemes()
    kinds = list(looks.values())
    alike = torch.tensor([-1, *(kinds.index(looks[word]) for word in vocabulary)])
    letters = torch.tensor([False, *(len(word) == 1 for word in vocabulary)])
    right = found == classes
    spoken = classes != SILENCE
    figures = {
        "words": right[spoken],
        "words or alike": (alike[found] == alike[classes])[spoken],
        "letters": right[letters[classes]],
    }
    return {name: f"{100 * float(each.float().mean()):.1f}" for name, each in figures.items()}


def measure(name: str, tried: Try, results: Results, quick: bool) -> None:
    """Train one encoder, and add a row for some of the epochs."""
    data = grid_sentences()
    order = np.random.default_rng(0).permutation(len(data))
    train, test = np.sort(order[:-TEST]), np.sort(order[-TEST:])
    if quick:
        train, test = train[:32], test[:8]
    pictures = torch.from_numpy(data.video)
    clips = scaled(around_mouths(pictures, *CROP) if tried.is_cropped else pictures)
    words, parts = labels(data)
    torch.manual_seed(SEED)
    encoder = LipEncoder(tried.width, channels=tried.channels, dropout=tried.dropout)
    objective = WithVisemes(tried, 1 + len(data.vocabulary))
    steps, start = len(train) // BATCH, time.process_time()

    def look(step: int) -> dict[str, float]:
        row: dict[str, object] = {"try": name, "epoch": step // steps}
        row |= shares(frame_classes(encoder, objective.words.head, clips[test]), words[test], data.vocabulary)
        seen = frame_classes(encoder, objective.words.head, clips[train[:TEST]])
        row["training words"] = shares(seen, words[train[:TEST]], data.vocabulary)["words"]
        row["CPU s"] = f"{time.process_time() - start:.0f}"
        results.add(row)
        print(*row.values(), sep="\t", flush=True)
        return {"words": float(str(row["words"]))}

    config = TrainConfig(
        epochs=1 if quick else tried.epochs,
        batch_size=BATCH,
        lr=2e-3,
        weight_decay=0.05,
        evaluate_every=(1 if quick else EVERY) * steps,
    )
    fit(encoder, objective, (clips[train], words[train], parts[train]), config, evaluate=look)


def main() -> None:
    """Run the tries that are named, or all."""
    parser = arguments(__doc__)
    parser.add_argument("--tries", nargs="+", choices=TRIES, default=list(TRIES), help="which of them")
    given = parsed(parser)
    results = Results("lips", given.output, keys=("try", "epoch"))
    for name in given.tries:
        measure(name, TRIES[name], results, given.quick)


if __name__ == "__main__":
    main()
