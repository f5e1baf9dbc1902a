"""Language models that answer questions about mosaics, trained alike, at several numbers of tokens."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nestling.domains.prefix import PrefixLM
from nestling.domains.prefix.language import logits_at
from nestling.domains.prefix.sequences import assembled
from nestling.domains.prefix.streams import Order
from nestling.errors import UntrainedGranularityWarning, require
from nestling.granularity import Nesting
from nestling.measure.cascade import AdaptiveClassifier
from nestling.measure.oracle import oracle
from nestling.nn.inference import evaluating
from nestling.nn.tokens import Compressor, Connector, GridPool, Projector, Tokens
from nestling.papers.claims.checks import Tour
from nestling.papers.claims.rate_search import RateByKind
from nestling.papers.problems import mosaics as data
from nestling.papers.problems.mosaics import FEATURES, KINDS, SIDE, VOCABULARY, Mosaics
from nestling.process.blocks import blocks
from nestling.schedules import Every, Schedule
from nestling.storage.resumable import ResumableValues
from nestling.training import TrainConfig, fit
from nestling.training.learner import Objective

SIZES = (1, 4, 16)
HIDDEN = 64
ByKind = dict[str, float]
"""Percent of right answers by kind of question."""

_RATES = (1e-3, 2e-3, 4e-3)
_BATCH = 64
_SEARCH_SHARE = 3  # the rate is chosen by training for a third of the steps
_SEEDS = {"train": 100, "development": 10_000, "test": 20_000}


def pooled(mode: Any = "mean") -> Connector:
    """A projector, and a pool behind it, as in M3."""
    sizes = SIZES
    return Connector(Projector(FEATURES, HIDDEN), GridPool((SIDE, SIDE), sizes, HIDDEN, mode=mode))


@dataclass(frozen=True)
class Method:
    """A model and how it is trained.

    Args:
        name: in the report.
        trained: the numbers of tokens that are trained.
        connector: made for each model.
        schedule: the numbers of one step.
        times: steps, in multiples of the usual number.
        tested: the numbers of tokens that are tested, fewest first.
        order: of the tokens before the question.
        chosen: choices of a few of the most tokens, by name, that are tested too.
    """

    name: str
    trained: tuple[int, ...] = SIZES
    connector: Callable[[], Compressor] = pooled
    schedule: Schedule = field(default_factory=Every)
    times: int = 1
    tested: tuple[int, ...] = SIZES
    order: Order = "forward"
    chosen: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def is_nested(self) -> bool:
        """Whether several numbers are trained; methods that agree in this share a learning rate."""
        return len(self.trained) > 1


class Study:
    """All methods on the same mosaics; each is trained when it is first needed.

    Args:
        tour: the tour.
        notes: keep what was measured.
        examples: the method on which the learning rate of nested methods is chosen, and of others.
        steps: of a usual training.
    """

    name = "mosaics of Fashion-MNIST"

    def __init__(
        self, tour: Tour, notes: ResumableValues, examples: dict[bool, Method], steps: int = 800
    ) -> None:
        self.quick, self.seeds, self.notes = tour.quick, tour.seeds, notes
        self.steps = 3 if tour.quick else steps
        quick = _RATES[1] if tour.quick else None
        self.rates = RateByKind(notes, self._developed, _RATES, examples, alone="one number", quick=quick)
        self._drawn: dict[Any, Mosaics] = {}

    def accuracies(self, method: Method, seed: int) -> dict[int, ByKind]:
        """Percent of right answers to test questions, by number of tokens and kind."""
        return {int(size): dict(kinds) for size, kinds in self.figures(method, seed)["accuracy"].items()}

    def means(self, method: Method, seed: int) -> dict[int, float]:
        """The mean over the kinds at each number of tokens."""
        return {n: float(np.mean(list(kinds.values()))) for n, kinds in self.accuracies(method, seed).items()}

    def figures(self, method: Method, seed: int) -> dict[str, Any]:
        """All figures of the model of one seed; see :meth:`_measured`."""
        return self.notes.once(f"{method.name}, seed {seed}", lambda: self._measured(method, seed))

    def untrained(self, method: Method, seed: int) -> PrefixLM:
        """A model before training."""
        transformers = require("transformers", "lora")
        config = transformers.LlamaConfig(
            hidden_size=HIDDEN,
            intermediate_size=4 * HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=VOCABULARY,
            max_position_embeddings=64,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        )
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            lm, connector = transformers.LlamaForCausalLM(config), method.connector()
        garments = data.garments("train", self.quick)
        nesting = Nesting.chain(tokens=method.trained)
        return PrefixLM(
            {"image": garments.encode}, {"image": connector}, lm, nesting=nesting, order=method.order
        )

    def questions(self, split: str, seed: int = 0) -> Mosaics:
        """Mosaics of one split, drawn afresh for each training seed."""
        counts = {"train": 51_200, "development": 1_500, "test": 3_000}
        count = 120 if self.quick else counts[split]
        key = (split, seed)
        if key not in self._drawn:
            labels = data.garments(split, self.quick).labels
            self._drawn[key] = data.mosaics(labels, count, _SEEDS[split] + seed)
        return self._drawn[key]

    def probabilities(self, model: PrefixLM, split: str, sizes: tuple[int, ...]) -> dict[int, Any]:
        """``Float[questions, classes]`` at each number of tokens, also where it was not trained."""
        questions = self._asked(model, split)
        found: dict[int, list[NDArray[np.float32]]] = {size: [] for size in sizes}
        with evaluating(model), warnings.catch_warnings():
            # What untrained numbers are worth is measured here.
            warnings.simplefilter("ignore", UntrainedGranularityWarning)
            for rows in blocks(len(questions), 500):
                for size in sizes:
                    logits = model(questions.batch(rows, answered=False), size, strict=False)
                    found[size].append(data.class_logits(logits).softmax(dim=1).numpy())
        return {size: np.concatenate(each) for size, each in found.items()}

    def chosen(self, model: PrefixLM, places: tuple[int, ...]) -> float:
        """Percent of right answers to test questions from some of the most tokens."""
        questions, full, right = self._asked(model, "test"), model.nesting.full, 0
        table: Any = model.lm.get_input_embeddings()  # type: ignore[operator]
        with evaluating(model):
            for rows in blocks(len(questions), 500):
                batch = questions.batch(rows, answered=False)
                made = model.streams.tokens(model.encode(batch), [full])["image"][full].values
                some = {"image": {full: Tokens(made[:, list(places)])}}
                every = range(len(batch.ids))
                filled = list(model.streams.filled(batch, some, [full] * len(batch.ids), every))
                text = table(batch.ids.clamp(min=0))
                read = assembled(batch.ids, batch.mask, text, filled, at_end=True)
                answers = data.class_logits(logits_at(model.lm, read, batch.mask)).argmax(dim=1).numpy()
                right += int((answers == questions.answers[rows]).sum())
        return 100 * right / len(questions)

    def _asked(self, model: PrefixLM, split: str) -> Mosaics:
        """The questions of a split, about garments that the model then sees."""
        model.streams.encoder("image").encoder = data.garments(split, self.quick).encode
        return self.questions(split)

    def trained(self, method: Method, rate: float, seed: int, share: int = 1) -> PrefixLM:
        """A model trained for its steps, or the ``share``-th part of them."""
        model = self.untrained(method, seed)
        objective = model.objective(schedule=method.schedule, reduction="mean", seed=seed)
        self.fit(model, objective, max(method.times * self.steps // share, 2), rate, seed)
        return model

    def fit(self, model: PrefixLM, objective: Objective, steps: int, rate: float, seed: int) -> None:
        """Train a model on the training questions of a seed."""
        questions = self.questions("train", seed)
        config = TrainConfig(max_steps=steps, batch_size=_BATCH, lr=rate, weight_decay=0.01, seed=seed)
        fit(
            model,
            objective,
            range(len(questions)),
            config,
            collate=lambda rows: questions.batch(rows, answered=True),
        )

    def _developed(self, method: Method, rate: float) -> float:
        """Percent of right answers to development questions after fewer steps, the mean over the numbers."""
        model, answers = self.trained(method, rate, 0, _SEARCH_SHARE), self.questions("development").answers
        each = self.probabilities(model, "development", method.trained)
        return float(np.mean([100 * (chances.argmax(axis=1) == answers).mean() for chances in each.values()]))

    def _measured(self, method: Method, seed: int) -> dict[str, Any]:
        """Accuracies, seconds of training, answers at full size; oracle and cascade, if there are several."""
        rate = self.rates.rate(method.is_nested)
        begin = time.process_time()
        model = self.trained(method, rate, seed)
        seconds = time.process_time() - begin
        chances, questions = self.probabilities(model, "test", method.tested), self.questions("test")
        answers = {size: each.argmax(axis=1) for size, each in chances.items()}
        found = {
            "accuracy": {str(size): _by_kind(each, questions) for size, each in answers.items()},
            "seconds": seconds,
            "answers": answers[method.tested[-1]].tolist(),
            "chosen": {name: self.chosen(model, places) for name, places in method.chosen.items()},
        }
        if len(answers) == 1:
            return found
        best = oracle(answers, questions.answers, groups=questions.kinds)
        return {
            **found,
            "oracle": {
                "accuracy": 100 * best.accuracy,
                "tokens": best.size,
                "gap": 100 * best.gap,
                "gap by luck": 100 * best.gap_by_luck,
            },
            "cascade": self._cascade(model, chances, method.tested),
        }

    def _cascade(self, model: PrefixLM, chances: dict[int, Any], sizes: tuple[int, ...]) -> dict[str, float]:
        """Few tokens first, and more while the answer is unsure; thresholds from development questions."""
        known = self.probabilities(model, "development", sizes)
        cascade = AdaptiveClassifier(sizes).fit(list(known.values()), self.questions("development").answers)
        heads = cascade.route(list(chances.values()))
        right = cascade.predict(list(chances.values())) == self.questions("test").answers
        cost = cascade.cost(heads, chances[sizes[0]].shape[1])
        return {
            "accuracy": 100 * float(right.mean()),
            "tokens of answers": cost.answering_dim,
            "tokens of all attempts": cost.cumulative_dim,
        }


def _by_kind(answers: Any, questions: Mosaics) -> ByKind:
    right = answers == questions.answers
    return {kind: 100 * float(right[questions.kinds == number].mean()) for number, kind in enumerate(KINDS)}
