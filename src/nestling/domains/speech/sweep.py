"""How right transcripts are at each number of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule
from nestling.data.transcripts import Transcripts
from nestling.domains.prefix.answered import Answered
from nestling.domains.speech.recogniser import Recogniser
from nestling.domains.speech.wer import word_errors
from nestling.granularity import At, Granularity, Nesting
from nestling.measure.curve.curve import Curve
from nestling.measure.sweep import sweep
from nestling.process.blocks import blocks
from nestling.process.progress import watched

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WordAccuracy:
    """Word accuracy of all sentences together: 1 minus the word error rate. Insertions may take it below 0.

    Args:
        errors: ``Int[sizes, sentences]``, word edits from each text to its transcript.
        words: ``Int[sentences]``, of each text.
    """

    errors: NDArray[np.int64]
    words: NDArray[np.int64]

    metrics = ("word_accuracy",)

    @property
    def groups(self) -> tuple[int, ...]:
        """All sentences are one group."""
        return (len(self.words),)

    def statistic(self, weights: Floats) -> Floats:
        """Accuracies ``Float[resamples, sizes, 1]``; NaN for a resample without a word."""
        words = (weights @ self.words)[:, None]
        rates = np.where(words > 0, weights @ self.errors.T / np.where(words > 0, words, 1), np.nan)
        return np.asarray((1 - rates)[:, :, None])


@dataclass(frozen=True, eq=False)
class Transcription:
    """Are transcripts word for word what was said?

    Args:
        x: recordings, of a model whose outputs are texts ``Str[n, 1]``.
        texts: what is said in each.
    """

    x: Any
    texts: Sequence[str]

    name = "transcription"
    needs = "answers"
    metrics = WordAccuracy.metrics

    @property
    def inputs(self) -> dict[str, Any]:
        """The recordings."""
        return {"x": self.x}

    def with_inputs(self, inputs: Mapping[str, Any]) -> Self:
        """The same task on other recordings."""
        return replace(self, **inputs)

    def score(self, encoded: Mapping[str, NDArray[Any]], dims: Sequence[int], rule: CutRule) -> WordAccuracy:
        """The word errors of texts ``Str[sizes, n, 1]``."""
        found = [word_errors(self.texts, size[:, 0].tolist()) for size in encoded["x"]]
        return WordAccuracy(np.stack([each.errors for each in found]), found[0].words)


def sweep_transcripts(
    model: Recogniser,
    recordings: Transcripts,
    nesting: Nesting | None = None,
    *,
    batch_size: int = 8,
    **settings: Any,
) -> Curve:
    """Word accuracy and cost at each number of tokens in ten seconds; the note names the rates.

    Args:
        model: the recogniser; sound alone is given to it.
        recordings: with their texts.
        nesting: the numbers of tokens; those of the model by default.
        batch_size: recordings at a time.
        settings: of :func:`nestling.measure.sweep.sweep`.

    Raises:
        GranularityError: for numbers of tokens that were not trained.
        DataError: for recordings that cannot be read, or are too short for a token.
    """
    sizes = [model.nesting.resolve(g) for g in nesting or model.nesting]
    rate = model.pool("audio").rate(sizes[0])
    recordings.check_seconds(rate / model.encoder("audio").per_second, f"a token of {rate} vectors")
    texts: dict[Granularity, list[str]] = {g: [] for g in sizes}

    def transcribed(asked: Transcripts, at: At) -> list[str]:
        audio = asked.audio(range(len(asked)))
        return model.transcribe(audio=audio, sample_rate=asked.sample_rate, at=at)

    for rows in watched(blocks(len(recordings), batch_size), "transcribing", "batches"):
        for g in sizes:
            texts[g] += transcribed(recordings[rows], g)
    found = {g: np.array(each)[:, None] for g, each in texts.items()}
    answered = Answered(found, model.nesting, model.model.cost, transcribed)
    task = Transcription(recordings, recordings.texts)
    return replace(sweep(answered, task, Nesting(tuple(sizes)), **settings), note=_of_rates(model, sizes))


def _of_rates(model: Recogniser, sizes: Sequence[Granularity]) -> str:
    rates = ", ".join(f"{g} is one for every {model.pool('audio').rate(g)} vectors" for g in sizes)
    return f"Word accuracy is 1 minus the word error rate. Tokens in ten seconds: {rates}."
