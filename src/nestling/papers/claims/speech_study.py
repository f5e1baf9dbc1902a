"""The recognisers that the tour of Llama-MTSK compares: trained alike on GRID, and tested in noise."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal

import numpy as np
import torch

from nestling.data.sets.grid import grid_sentences
from nestling.domains.prefix.stories import stories
from nestling.domains.speech.connectors import SECONDS, Projection
from nestling.domains.speech.encoders import EncodedStream
from nestling.domains.speech.recogniser import Recogniser
from nestling.domains.speech.wer import WordErrors, word_errors
from nestling.errors import UntrainedGranularityWarning
from nestling.granularity import Nesting
from nestling.nn.lora import Strategy
from nestling.papers.claims.checks import Tour
from nestling.papers.claims.rate_search import RateByKind
from nestling.papers.problems.spoken_sentences import CONDITIONS, SpokenVectors
from nestling.storage.resumable import ResumableValues
from nestling.training import TrainConfig, fit

Rates = tuple[int, ...]
Errors = dict[str, dict[Rates, WordErrors]]
"""Word errors by condition and rates, such as ``"clean"`` and ``(4, 2)``."""

_LEARNING_RATES = (2e-3, 4e-3, 8e-3)
_STEPS, _BATCH = 500, 8
_NO_PROMPT = {"audio": "", "video": "", "audio+video": ""}


@dataclass(frozen=True)
class Method:
    """A recogniser and how it is trained.

    Args:
        name: in the report.
        rates: vectors per token, by stream.
        trained: those of the rates that are trained; all by default.
        strategy: of the adapters.
        mode: of compression.
        projection: a projector for each rate, or one for all.
    """

    name: str
    rates: Mapping[str, Rates]
    trained: Mapping[str, Rates] | None = None
    strategy: Strategy = "ss"
    mode: Literal["mean", "stack"] = "mean"
    projection: Projection = "scale"

    @property
    def seen(self) -> Mapping[str, Rates]:
        """The rates that are trained."""
        return self.rates if self.trained is None else self.trained

    @property
    def is_nested(self) -> bool:
        """Whether several rates are trained; methods that agree in this share a learning rate."""
        return any(len(rates) > 1 for rates in self.seen.values())


class Study:
    """All methods on the same sentences; each is trained when it is first needed.

    Args:
        tour: the tour.
        notes: keep what was measured.
        examples: the method on which the learning rate of nested methods is chosen, and of others.
    """

    name = "GRID s1, 80 test sentences of 400 (one speaker, closed grammar)"

    def __init__(self, tour: Tour, notes: ResumableValues, examples: Mapping[bool, Method]) -> None:
        name = f"llama-mtsk.encoders{'.quick' if tour.quick else ''}"
        folder = None if tour.folder is None else tour.folder / name
        self.quick, self.notes = tour.quick, notes
        self.speech = SpokenVectors(grid_sentences(), quick=tour.quick, folder=folder)
        self.learning_rates = RateByKind(
            notes,
            self._developed,
            _LEARNING_RATES,
            examples,
            alone="one rate",
            best=min,
            quick=_LEARNING_RATES[0] if tour.quick else None,
        )

    def errors(self, method: Method, seed: int) -> Errors:
        """Word errors on the test sentences."""
        found = self.notes.once(f"{method.name}, seed {seed}", lambda: self._measured(method, seed))
        words = np.array([len(text.split()) for text in self.speech.texts("test")])
        return {
            condition: {_read(rates): WordErrors(np.array(each), words) for rates, each in by_rates.items()}
            for condition, by_rates in found.items()
        }

    def rates_of(self, method: Method, seed: int, condition: str = "clean") -> dict[Rates, float]:
        """The word error rate at each combination of rates."""
        return {rates: errors.rate for rates, errors in self.errors(method, seed)[condition].items()}

    def accuracies(self) -> dict[str, float]:
        """Percent of the moments of words that the encoders name."""
        return self.notes.once("encoders", self.speech.accuracies)

    def recogniser(self, method: Method, seed: int = 0) -> Recogniser:
        """An untrained recogniser around the frozen encoders and a copy of the language model."""
        lm, tokenizer = self._language
        encoders = [
            EncodedStream(stream, self.speech.encoders[stream].width, self.speech.encoders[stream].per_second)
            for stream in method.rates
        ]
        sizes = {
            each.stream: [SECONDS * each.per_second // rate for rate in reversed(method.seen[each.stream])]
            for each in encoders
        }
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            return Recogniser.around(
                copy.deepcopy(lm),
                tokenizer,
                encoders,
                method.rates,
                strategy=method.strategy,
                rank=64,
                alpha=64.0,
                mode=method.mode,
                projection=method.projection,
                hidden=256,
                nesting=Nesting.grid(**sizes),
                prompts=_NO_PROMPT,
                decoding={"max_new_tokens": 4 if self.quick else 28},
                seed=seed,
            )

    @cached_property
    def _language(self) -> tuple[Any, Any]:
        """A Llama of stories that has read random sentences of the grammar, as text; and its tokenizer."""
        lm, tokenizer = stories()
        columns = list(zip(*(text.split() for text in self.speech.texts("train")), strict=True))
        words = [sorted(set(column)) for column in columns]
        steps, rows = (2, 4) if self.quick else (200, 64)
        draw = np.random.default_rng(0)
        texts = [" ".join(draw.choice(each) for each in words) for _ in range(steps * rows)]
        start, end = tokenizer.bos_token_id, tokenizer.eos_token_id

        def batch(rows: list[int]) -> torch.Tensor:
            ids = [
                torch.tensor([start, *tokenizer(texts[row], add_special_tokens=False).input_ids, end])
                for row in rows
            ]
            return torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-1)

        def loss(model: Any, ids: torch.Tensor) -> Any:
            labels = ids.masked_fill(ids < 0, -100)
            return model(input_ids=ids.clamp(min=0), attention_mask=(ids >= 0).long(), labels=labels).loss

        fit(lm, loss, range(len(texts)), TrainConfig(batch_size=rows, lr=2e-3), collate=batch)
        return lm.eval(), tokenizer

    def _developed(self, method: Method, learning_rate: float) -> float:
        """Word error rate on the clean development sentences, the mean over the rates."""
        errors = self._tested(self._trained(method, learning_rate, 0), method, "development", "clean")
        return float(np.mean([each.rate for each in errors.values()]))

    def _measured(self, method: Method, seed: int) -> dict[str, dict[str, list[int]]]:
        model = self._trained(method, self.learning_rates.rate(method.is_nested), seed)
        return {
            condition: {
                ",".join(map(str, rates)): each.errors.tolist()
                for rates, each in self._tested(model, method, "test", condition).items()
            }
            for condition in CONDITIONS
        }

    def _trained(self, method: Method, learning_rate: float, seed: int) -> Recogniser:
        """A recogniser that reads a random variant of each sentence at every rate, step after step."""
        model, texts = self.recogniser(method, seed), self.speech.texts("train")
        variants = {stream: self.speech.variants(stream) for stream in method.rates}

        def batch(rows: list[int]) -> Any:
            chosen: dict[str, Any] = {
                stream: each[torch.randint(len(each), (len(rows),)), torch.tensor(rows)]
                for stream, each in variants.items()
            }
            return model.batch([texts[row] for row in rows], **chosen)

        steps = 2 if self.quick else _STEPS
        config = TrainConfig(max_steps=steps, batch_size=_BATCH, lr=learning_rate, seed=seed)
        fit(model.model, model.model.objective(reduction="mean"), range(len(texts)), config, collate=batch)
        return model

    def _tested(
        self, model: Recogniser, method: Method, part: str, condition: str
    ) -> dict[Rates, WordErrors]:
        """Word errors at each combination of rates, also those that were not trained."""
        vectors: dict[str, Any] = {
            stream: self.speech.vectors(part, stream, condition) for stream in method.rates
        }
        batch = model.batch(**vectors)
        found = {}
        for rates in product(*method.rates.values()):
            at = model.sizes(**dict(zip(method.rates, rates, strict=True)))
            # What untrained rates are worth is measured here.
            with warnings.catch_warnings(action="ignore", category=UntrainedGranularityWarning):
                ids = model.model.generate(batch, at, strict=False)
            texts = [model.model.template.tokenizer.decode(each, skip_special_tokens=True) for each in ids]
            found[rates] = word_errors(self.speech.texts(part), texts)
        return found


def _read(rates: str) -> Rates:
    return tuple(map(int, rates.split(",")))
