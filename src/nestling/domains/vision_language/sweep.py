"""How right answers about pictures are at each number of tokens, and how many tokens each picture needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.data.questions import PictureQuestions
from nestling.domains.prefix.answered import Answered
from nestling.domains.vision_language.answerer import Answerer
from nestling.granularity import At, Granularity, Nesting
from nestling.measure.cascade import AdaptiveClassifier
from nestling.measure.curve.curve import Curve
from nestling.measure.oracle import oracle
from nestling.measure.sweep import sweep
from nestling.measure.tasks.answers import ExactMatch, MultipleChoice, plain_answer
from nestling.process.blocks import blocks
from nestling.process.progress import watched

_FEWEST_FOR_CASCADE = 200
ByGranularity = Mapping[Granularity, NDArray[Any]]


def sweep_answers(
    model: Answerer,
    questions: PictureQuestions,
    nesting: Nesting | None = None,
    *,
    batch_size: int = 8,
    **settings: Any,
) -> Curve:
    """Accuracy and cost at each number of tokens, with the oracle and a cascade in its note.

    Answers are generated and must match exactly, case and marks at the ends aside. Questions with choices are
    answered by the most likely choice instead.

    Args:
        model: the model.
        questions: to ask.
        nesting: the numbers of tokens; those of the model by default.
        batch_size: questions at a time.
        settings: of :func:`nestling.measure.sweep.sweep`.

    Raises:
        GranularityError: for numbers of tokens that were not trained.
        DataError: for a picture that cannot be read.
    """
    sizes = [model.nesting.resolve(g) for g in nesting or model.nesting]
    task: ExactMatch | MultipleChoice
    if questions.choices:
        columns = zip(questions.choices, questions.answers, strict=True)
        labels = np.array([choices.index(answer) for choices, answer in columns])
        found = _probabilities(model, questions, sizes, batch_size)
        task, note = MultipleChoice(questions, labels), _of_choices(found, labels)
    else:
        found = _texts(model, questions, sizes, batch_size)
        task, note = ExactMatch(questions, questions.answers), _of_texts(found, questions.answers)

    def ask(asked: PictureQuestions, at: At) -> object:
        return model.answer(asked.pictures(range(len(asked))), asked.questions, at)

    answered = Answered(found, model.nesting, model.cost, ask)
    return replace(sweep(answered, task, Nesting(tuple(sizes)), **settings), note=note)


def _texts(
    model: Answerer, questions: PictureQuestions, sizes: Sequence[Granularity], batch_size: int
) -> ByGranularity:
    """Generated answers, ``Str[n, 1]``."""
    found: dict[Granularity, list[str]] = {g: [] for g in sizes}
    for rows in watched(blocks(len(questions), batch_size), "answering", "batches"):
        some = questions[rows]
        pictures = some.pictures(range(len(some)))
        for g in sizes:
            found[g] += model.answer(pictures, some.questions, g)
    return {g: np.array(texts)[:, None] for g, texts in found.items()}


def _probabilities(
    model: Answerer, questions: PictureQuestions, sizes: Sequence[Granularity], batch_size: int
) -> ByGranularity:
    """Probabilities of the choices, ``Float[n, choices]``."""
    most = max(map(len, questions.choices))
    found: dict[Granularity, list[NDArray[np.float32]]] = {g: [] for g in sizes}
    for rows in watched(blocks(len(questions), batch_size), "answering", "batches"):
        some = questions[rows]
        pictures = some.pictures(range(len(some)))
        each = model.probabilities(pictures, some.questions, some.choices, sizes)
        for g, chances in each.items():
            found[g].append(np.pad(chances.numpy(), ((0, 0), (0, most - chances.shape[1]))))
    return {g: np.concatenate(parts) for g, parts in found.items()}


def _of_texts(found: ByGranularity, answers: Sequence[str]) -> str:
    sizes = [*found]
    texts = [[plain_answer(text) for text in found[g][:, 0].tolist()] for g in sizes]
    texts.append([plain_answer(answer) for answer in answers])
    _, numbers = np.unique(np.array(texts), return_inverse=True)
    *each, right = numbers.reshape(len(texts), -1)
    return _of_oracle(dict(zip(sizes, each, strict=True)), right)


def _of_choices(found: ByGranularity, labels: NDArray[np.int64]) -> str:
    best = {g: chances.argmax(axis=1) for g, chances in found.items()}
    return " ".join(filter(None, [_of_oracle(best, labels), _of_cascade(found, labels)]))


def _of_oracle(answers: ByGranularity, right: NDArray[np.int64]) -> str:
    if len(answers) < 2:
        return ""
    best = oracle({g["tokens"]: each for g, each in answers.items()}, right)
    return (
        f"If an oracle chose the number of tokens of each picture, accuracy would be {best.accuracy:.3f}, "
        f"with {best.size:.1f} tokens a picture; the best single number has {best.best:.3f}, and an oracle "
        f"among answers that know nothing of the picture {best.by_luck:.3f}."
    )


def _of_cascade(found: ByGranularity, labels: NDArray[np.int64]) -> str:
    """Few tokens first, and more while the answer is unsure; thresholds come from half of the questions."""
    if len(found) < 2 or len(labels) < _FEWEST_FOR_CASCADE:
        return ""
    learnt, tested = (slice(start, None, 2) for start in (0, 1))
    cascade = AdaptiveClassifier([g["tokens"] for g in found])
    cascade.fit([chances[learnt] for chances in found.values()], labels[learnt])
    chances = [each[tested] for each in found.values()]
    right = cascade.predict(chances) == labels[tested]
    spent = cascade.cost(cascade.route(chances), chances[0].shape[1]).cumulative_dim
    return (
        f"A cascade from few tokens to many, which stops once it is sure, has accuracy {right.mean():.3f} "
        f"with {spent:.1f} tokens a picture, those of all attempts (measured on half of the questions; the "
        "other half set its thresholds)."
    )
