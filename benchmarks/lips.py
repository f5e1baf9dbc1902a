"""Accuracy of lip encoders trained in several ways on 320 sentences of one speaker.

Percent of the moments of words, in 80 other sentences of GRID, that are named among 51 words from mouths of
24x48 pixels, after so many epochs.

Run: python benchmarks/lips.py [--tries NAME ...]
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from nestling.data import grid_sentences
from nestling.domains.speech.encoders import LipEncoder
from nestling.domains.speech.frames import FrameLoss, frame_accuracy, frame_labels
from nestling.domains.speech.mouths import scaled, varied
from nestling.training import TrainConfig, fit
from record import Results, arguments, parsed

BATCH, EVERY, TEST = 16, 2, 80


@dataclass(frozen=True)
class Try:
    """One way of training."""

    epochs: int = 30
    shift: int = 3
    mask: float = 0.2
    contrast: float = 0.2
    is_varied: bool = True
    channels: int = 16
    width: int = 128
    dropout: float = 0.3


TRIES = {
    "flips, shifts, light, masks": Try(),
    "no variation": Try(is_varied=False),
    "wider, more variation": Try(epochs=40, shift=4, mask=0.3, channels=24, width=192, dropout=0.4),
}


def measure(name: str, tried: Try, results: Results, quick: bool) -> None:
    """Train one encoder, and add a row for every second epoch."""
    data = grid_sentences()
    order = np.random.default_rng(0).permutation(len(data))
    train, test = np.sort(order[:-TEST]), np.sort(order[-TEST:])
    if quick:
        train, test = train[:32], test[:8]
    clips = scaled(torch.from_numpy(data.video))
    rows = [frame_labels(words, data.vocabulary, per_second=25, count=75) for words in data.words]
    classes = torch.from_numpy(np.stack(rows))
    torch.manual_seed(0)
    encoder = LipEncoder(tried.width, channels=tried.channels, dropout=tried.dropout)

    def vary(stream: torch.Tensor) -> torch.Tensor:
        if not tried.is_varied:
            return stream
        return varied(
            stream, torch.default_generator, shift=tried.shift, contrast=tried.contrast, mask=tried.mask
        )

    objective = FrameLoss(tried.width, 1 + len(data.vocabulary), vary=vary)
    steps, start = len(train) // BATCH, time.process_time()

    def look(step: int) -> dict[str, float]:
        found = frame_accuracy(encoder, objective.head, clips[test], classes[test])
        seen = frame_accuracy(encoder, objective.head, clips[train[:TEST]], classes[train[:TEST]])
        row = {"try": name, "epoch": step // steps, "words": f"{found['words']:.1f}"}
        row |= {"training words": f"{seen['words']:.1f}", "CPU s": f"{time.process_time() - start:.0f}"}
        results.add(row)
        print(*row.values(), sep="\t", flush=True)
        return {"words": found["words"]}

    config = TrainConfig(
        epochs=2 if quick else tried.epochs,
        batch_size=BATCH,
        lr=2e-3,
        weight_decay=0.05,
        evaluate_every=EVERY * steps,
    )
    fit(encoder, objective, (clips[train], classes[train]), config, evaluate=look)


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
