"""Training an encoder of a stream on the word that is spoken at each moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import Real, checked
from nestling.data.sets.grid import SpokenWord
from nestling.domains.speech.encoders import StreamEncoder
from nestling.nn.inference import evaluating
from nestling.process.blocks import blocks

SILENCE = 0
"""The class of moments without a word; word ``i`` of the vocabulary is class ``i + 1``."""

Vary = Callable[[Tensor], Tensor]


def frame_labels(
    words: Sequence[SpokenWord], vocabulary: Sequence[str], *, per_second: int, count: int
) -> NDArray[np.int64]:
    """The class at the middle of each of ``count`` moments.

    >>> frame_labels([SpokenWord("bin", 0.1, 0.3)], ["bin", "now"], per_second=10, count=4)
    array([0, 1, 1, 0])
    """
    classes = {word: place for place, word in enumerate(vocabulary, start=SILENCE + 1)}
    moments = (np.arange(count) + 0.5) / per_second
    labels = np.full(count, SILENCE, np.int64)
    for word in words:
        labels[(moments >= word.start) & (moments < word.end)] = classes[word.text]
    return labels


class FrameLoss(nn.Module):
    """Cross-entropy of the class at each moment, from a linear layer on the encoder's vectors.

    An objective of :func:`nestling.training.fit`, for batches (stream, classes).

    Args:
        width: entries of a vector.
        classes: words of the vocabulary, and silence.
        vary: changes the stream of a batch at random, such as with noise.
        silence: weight of moments without a word, which are half of all.
        smoothing: of the labels.
    """

    @checked(silence=Real(least=0), smoothing=Real(least=0, below=1))
    def __init__(
        self,
        width: int,
        classes: int,
        *,
        vary: Vary = lambda stream: stream,
        silence: float = 0.3,
        smoothing: float = 0.1,
    ) -> None:
        super().__init__()
        self.head, self.vary, self.smoothing = nn.Linear(width, classes), vary, smoothing
        weights = torch.ones(classes)
        weights[SILENCE] = silence
        self.register_buffer("weights", weights)

    def forward(self, model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The mean loss of a batch."""
        stream, classes = batch
        logits = self.head(model(self.vary(stream)).values)
        weights: Any = self.weights
        return F.cross_entropy(
            logits.flatten(0, 1), classes.flatten(), weights, label_smoothing=self.smoothing
        )


def frame_classes(encoder: StreamEncoder, head: nn.Linear, stream: Tensor, *, batch_size: int = 32) -> Tensor:
    """The class found at each moment, ``Int[batch, n]``."""
    with evaluating(encoder):
        parts = [head(encoder(stream[rows]).values).argmax(-1) for rows in blocks(len(stream), batch_size)]
    return torch.cat(parts)


def frame_accuracy(
    encoder: StreamEncoder, head: nn.Linear, stream: Tensor, classes: Tensor, *, batch_size: int = 32
) -> dict[str, float]:
    """Percent of moments with a word, and of all, whose class is found."""
    right = frame_classes(encoder, head, stream, batch_size=batch_size) == classes
    spoken = classes != SILENCE
    return {"words": 100 * float(right[spoken].float().mean()), "all": 100 * float(right.float().mean())}
