"""Answers of a model at each size as what a sweep measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from nestling.cut import RAW
from nestling.elastic import Cost
from nestling.granularity import At, Granularity, Nesting


@dataclass(frozen=True, eq=False)
class Answered:
    """A model whose answers are known already.

    Args:
        answers: ``[n, outputs]`` at each granularity.
        nesting: of the model.
        of: its cost at a granularity.
        ask: answers inputs again, so that it can be timed.
    """

    answers: Mapping[Granularity, NDArray[Any]]
    nesting: Nesting
    of: Callable[[At], Cost]
    ask: Callable[[Any, At], object]
    rule = RAW

    def encode_each(self, x: object, granularities: Sequence[Granularity]) -> dict[Granularity, NDArray[Any]]:
        """The answers at some granularities."""
        return {g: self.answers[g] for g in granularities}

    def __call__(self, x: Any, at: At = None) -> object:
        """Answers some inputs again."""
        return self.ask(x, at)

    def cost(self, at: At = None) -> Cost:
        """The cost of one item."""
        return self.of(at)
