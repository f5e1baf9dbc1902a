"""The best learning rate on development data, found by doubling or halving while that helps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from nestling.papers.claims.checks import Named
from nestling.storage.resumable import Json, ResumableValues

FIRST_RATE = 2e-4

Worth = TypeVar("Worth", bound=Any)  # whatever compares, such as a number or a tuple of numbers


def climb(worth: Callable[[float], Worth], start: float) -> dict[float, Worth]:
    """The worth of each rate that was tried: upwards from ``start`` while that helps, or else downwards.

    Both neighbours of the best rate have been tried, so the best never lies at the edge of the search.

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


Method = TypeVar("Method", bound=Named)
Model = TypeVar("Model")


class RateSearch(Generic[Method, Model]):
    """Figures of every method, each trained at its best rate, which is found with the first seed.

    The model of that rate is also the one that is reported for the first seed.

    Args:
        notes: keep what was measured.
        train: a model by a method, at a rate and with a seed.
        develop: figures of a model on development data.
        look: figures of a model for the report.
        worth: objective of the search, from the figures on development data.
        quick: take the first rate, without a search.
    """

    def __init__(
        self,
        notes: ResumableValues,
        train: Callable[[Method, float, int], Model],
        develop: Callable[[Method, Model], dict[str, float]],
        look: Callable[[Method, Model], Json],
        worth: Callable[[Method, Mapping[str, float]], Any],
        *,
        quick: bool,
    ) -> None:
        self._notes, self._train, self._develop, self._look = notes, train, develop, look
        self._worth, self._quick = worth, quick
        self.rates: dict[str, float] = {}

    def figures(self, method: Method, seed: int) -> Any:
        """The reported figures of the model of one seed."""
        rate = self.rate(method)  # whose search trains the first seed
        return self._notes.once(
            f"{method.name}, seed {seed}", lambda: self._look(method, self._train(method, rate, seed))
        )

    def rate(self, method: Method) -> float:
        """The best rate."""
        self.rates[method.name] = rate = float(self._best(method, self.developed(method)))
        return rate

    def developed(self, method: Method) -> dict[str, dict[str, float]]:
        """Figures on development data for each rate tried, with the first seed."""

        def search() -> dict[str, dict[str, float]]:
            models: dict[str, Model] = {}
            found: dict[str, dict[str, float]] = {}

            def worth(rate: float) -> Any:
                models[str(rate)] = self._train(method, rate, 0)
                found[str(rate)] = self._develop(method, models[str(rate)])
                return self._worth(method, found[str(rate)])

            worth(FIRST_RATE) if self._quick else climb(worth, FIRST_RATE)
            best = models[self._best(method, found)]
            self._notes.once(f"{method.name}, seed 0", lambda: self._look(method, best))
            return found

        return self._notes.once(f"{method.name}, development", search)

    def _best(self, method: Method, found: Mapping[str, Mapping[str, float]]) -> str:
        return max(found, key=lambda rate: self._worth(method, found[rate]))
