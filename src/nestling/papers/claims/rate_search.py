"""The best learning rate on development data: by doubling or halving while that helps, or one of a few."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


class RateByKind(Generic[Method]):
    """The best of a few rates, chosen once for nested methods and once for all others.

    Args:
        notes: keep what was measured.
        develop: figure of a method on development data, trained at a rate with the first seed.
        rates: the rates to try.
        examples: the method on which the rate of nested methods is chosen, and that of others.
        alone: name of the others in the report.
        best: ``max`` or ``min`` of the figures.
        quick: the rate that is taken without a search; None searches.

    Attributes:
        chosen: the rates by kind.
    """

    def __init__(
        self,
        notes: ResumableValues,
        develop: Callable[[Method, float], float],
        rates: Sequence[float],
        examples: Mapping[bool, Method],
        *,
        alone: str,
        best: Callable[..., str] = max,
        quick: float | None = None,
    ) -> None:
        self._notes, self._develop, self._rates, self._examples = notes, develop, rates, examples
        self._alone, self._best, self._quick = alone, best, quick
        self.chosen: dict[str, float] = {}

    def rate(self, is_nested: bool) -> float:
        """The best rate of one kind of methods."""
        if self._quick is not None:
            return self._quick
        kind, example = "nested" if is_nested else self._alone, self._examples[is_nested]
        found: dict[str, float] = self._notes.once(
            f"{kind}, development",
            lambda: {str(rate): self._develop(example, rate) for rate in self._rates},
        )
        self.chosen[kind] = float(self._best(found, key=lambda rate: found[rate]))
        return self.chosen[kind]
