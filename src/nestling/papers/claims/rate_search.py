"""The learning rate that does best on development data, found by doubling or halving while that pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from nestling.papers.claims.checks import Named
from nestling.papers.claims.notes import Json, Notes

FIRST_RATE = 2e-4

Worth = TypeVar("Worth", bound=Any)  # whatever compares, such as a number or a tuple of numbers


def climb(worth: Callable[[float], Worth], start: float) -> dict[float, Worth]:
    """What each rate that was tried is worth: upwards from ``start`` while that pays, or else downwards.

    A rate on either side of the best one has been tried, so that the best is at no edge of the search.

    >>> climb(lambda rate: -abs(rate - 3), 1.0)
    {1.0: -2.0, 2.0: -1.0, 4.0: -1.0}
    """
    tried = {start: worth(start)}
    for factor in (2.0, 0.5):
        rate = start
        while True:
            tried[rate * factor] = worth(rate * factor)
            if not tried[rate * factor] > tried[rate]:
                break
            rate *= factor
        if rate != start:
            break
    return tried


Way = TypeVar("Way", bound=Named)
Model = TypeVar("Model")


class RateSearch(Generic[Way, Model]):
    """Figures of every way to train, each at the rate that does best for it with the first seed.

    The model that the search has trained at that rate is the one that is reported for the first seed.

    Args:
        notes: keep what was measured.
        train: a model in some way, at a rate and with a seed.
        develop: figures of a model on development data.
        look: what is reported of a model.
        worth: what counts of the figures on development data.
        quick: take the first rate, without a search.
    """

    def __init__(
        self,
        notes: Notes,
        train: Callable[[Way, float, int], Model],
        develop: Callable[[Way, Model], dict[str, float]],
        look: Callable[[Way, Model], Json],
        worth: Callable[[Way, Mapping[str, float]], Any],
        *,
        quick: bool,
    ) -> None:
        self._notes, self._train, self._develop, self._look = notes, train, develop, look
        self._worth, self._quick = worth, quick
        self.rates: dict[str, float] = {}

    def figures(self, way: Way, seed: int) -> Any:
        """What is reported of the model of one seed."""
        rate = self.rate(way)  # whose search trains the first seed
        return self._notes.once(
            f"{way.name}, seed {seed}", lambda: self._look(way, self._train(way, rate, seed))
        )

    def rate(self, way: Way) -> float:
        """The rate that does best."""
        self.rates[way.name] = rate = float(self._best(way, self.developed(way)))
        return rate

    def developed(self, way: Way) -> dict[str, dict[str, float]]:
        """Figures on development data by the rate, with the first seed."""

        def search() -> dict[str, dict[str, float]]:
            models: dict[str, Model] = {}
            found: dict[str, dict[str, float]] = {}

            def worth(rate: float) -> Any:
                models[str(rate)] = self._train(way, rate, 0)
                found[str(rate)] = self._develop(way, models[str(rate)])
                return self._worth(way, found[str(rate)])

            worth(FIRST_RATE) if self._quick else climb(worth, FIRST_RATE)
            best = models[self._best(way, found)]
            self._notes.once(f"{way.name}, seed 0", lambda: self._look(way, best))
            return found

        return self._notes.once(f"{way.name}, development", search)

    def _best(self, way: Way, found: Mapping[str, Mapping[str, float]]) -> str:
        return max(found, key=lambda rate: self._worth(way, found[rate]))
