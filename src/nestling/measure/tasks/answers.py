"""Tasks on answers: free text that must match, and the right one of several choices."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule
from nestling.errors import DataError
from nestling.measure.tasks.classification import HeadClassification
from nestling.measure.tasks.scores import MeanScores

_AROUND = string.punctuation + string.whitespace


def plain_answer(text: str) -> str:
    """``text`` as it is compared: without case, repeated blanks, and marks at its ends.

    >>> plain_answer(" A red  Boat. ")
    'a red boat'
    """
    return " ".join(text.casefold().strip(_AROUND).split())


@dataclass(frozen=True, eq=False)
class ExactMatch:
    """Does the model answer as it should, case and marks at the ends aside?

    Args:
        x: inputs of a model whose outputs are texts ``Str[n, 1]``.
        answers: the right one of each.

    Raises:
        DataError: for another number of answers than of inputs.
    """

    x: Any
    answers: Sequence[str]

    name = "exact match"
    needs = "answers"
    metrics = ("accuracy",)

    def __post_init__(self) -> None:
        if len(self.answers) != len(self.x):
            raise DataError(f"{len(self.answers)} answers were given for {len(self.x)} inputs")

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs to answer."""
        return {"x": self.x}

    def with_inputs(self, inputs: Mapping[str, Any]) -> Self:
        """The same task on other inputs."""
        return replace(self, **inputs)

    def score(self, encoded: Mapping[str, NDArray[Any]], dims: Sequence[int], rule: CutRule) -> MeanScores:
        """Whether the texts ``Str[sizes, n, 1]`` are right."""
        right = [plain_answer(answer) for answer in self.answers]
        rows = [[plain_answer(text) for text in size[:, 0].tolist()] for size in encoded["x"]]
        return MeanScores((np.array(rows) == np.array(right))[:, :, None], self.metrics)


@dataclass(frozen=True, eq=False)
class MultipleChoice(HeadClassification):
    """Does the model take the right one of several choices?

    Args:
        x: inputs of a model that outputs a probability for each choice, 0 for those that a question has not.
        labels: ``Int[n]``, the place of the right choice.
    """

    name = "multiple choice"
